r"""Sets of bands: response curves, and per band the softening, typical errors and conversions.

A set is the name of a preset, names of speclite's curves with commas between them, or a TOML file,

.. code-block:: toml

    [g]
    filter = "my_g.dat"         # two columns: wavelength, photon response; or a name of speclite;
                                # or of sedpy, "sedpy:sdss_g0"
    unit = "nm"                 # of the wavelengths; default Angstrom, or by the header
    error = [0.02, -2.3, 0.7]   # c [mag], a, b; optional for curves of presets
    softening = 0.2             # nanomaggies; the rest is optional
    vega = 0.1                  # m_AB - m_Vega
    extinction = 3.2            # A_b / E(B-V)
    model_floor = 0.1           # systematic error of the model in this band [mag]

with the median error :math:`\sigma^2 = (c f / 1.0857)^2 + 10^{a + b \log_{10}\max(f, 1)}` at f
nanomaggies. The hash of the curves is part of the identity of a run.

References:
    | speclite (BSD-3): filter curves
    | Schlafly & Finkbeiner 2011, ApJ 737, 103, table 6; legacysurvey.org (DECam, WISE)
    | Blanton & Roweis 2007, AJ 133, 734; Jarrett et al. 2011, ApJ 735, 112 (Vega)
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import speclite.filters
from numpy.typing import NDArray

from sbi_core import ConfigError, read_text
from sbi_sedflow.constants import BANDS, PIVOTS
from sbi_sedflow.curves import ANGSTROMS, curve_of_file
from sbi_sedflow.filters import Filter, FilterSet, load_filters, sedpy_curve
from sbi_sedflow.luptitudes import SOFTENING

__all__ = ["PRESETS", "Band", "BandSet", "load_bands", "longest", "softening_of"]

F64 = NDArray[np.float64]
_GALEX, _SDSS = "galex-fuv,galex-nuv", ",".join(f"sdss2010-{b}" for b in "ugriz")
PRESETS = {
    "galex-sdss": f"{_GALEX},{_SDSS}",
    "sdss": _SDSS,
    "grz": "decamDR1-g,decamDR1-r,decamDR1-z",
    "legacy": "decamDR1-g,decamDR1-r,decamDR1-z,wise2010-W1,wise2010-W2",
    "lsst": ",".join(f"lsst2023-{b}" for b in "ugrizy"),
    "galex-sdss-2mass": f"{_GALEX},{_SDSS},twomass-J,twomass-H,twomass-Ks",
}


@dataclass(frozen=True)
class Band:
    """One band.

    Parameters
    ----------
    name
        As in columns ``flux_NAME``.
    curve
        Its response.
    softening
        Of the asinh magnitudes [nanomaggies].
    error
        c [mag], a, b of the median error; ``None``: to be fitted. F and N have their own form.
    scatter
        Of log10 of the error [dex].
    vega
        m_AB - m_Vega; None: unknown.
    extinction
        A / E(B-V) on the scale of Schlegel, Finkbeiner & Davis; None: unknown.
    model_floor
        Systematic error of the model, where it exceeds that of the other bands [mag].
    galex
        ``F`` or ``N``: errors of shallow and deep GALEX exposures, instead of a and b.
    """

    name: str
    curve: Filter
    softening: float
    error: tuple[float, float, float] | None
    scatter: float = 0.2
    vega: float | None = None
    extinction: float | None = None
    model_floor: float = 0.0
    galex: str = ""

    @cached_property
    def pivot(self) -> float:
        """Pivot wavelength [Angstrom]; of GALEX and SDSS to four digits, as in the package."""
        return _PIVOTS.get(self.curve.name, 0.0) or self.curve.pivot

    @property
    def tokens(self) -> tuple[str, ...]:
        """Its names in columns, lower case."""
        return (self.name.lower(), *_TOKENS.get(self.name, ()))


_TOKENS = {  # other names; with a point: CIGALE; sdss_u0: sedpy
    "F": ("fuv", "galex.fuv", "galex_fuv"), "N": ("nuv", "galex.nuv", "galex_nuv"),
    **{b: (f"sdss.{b}p", f"{b}_prime", f"sdss.{b}", f"sdss_{b}", f"sdss_{b}0") for b in "ugriz"},
    "J": ("2mass.j", "2mass_j", "twomass_j"), "H": ("2mass.h", "2mass_h", "twomass_h"),
    "Ks": ("k", "2mass.ks", "2mass_ks", "twomass_ks"),
    "W1": ("wise.w1", "wise1", "wise_w1"), "W2": ("wise.w2", "wise2", "wise_w2"),
}  # fmt: skip
_SDSS_E = {"u": (0.05, -1.09, 0.97), "g": (0.02, -2.47, 1.08), "r": (0.02, -2.59, 1.16),
           "i": (0.02, -1.35, 0.78), "z": (0.03, -0.74, 0.84)}  # fmt: skip
_SDSS_SD = (0.38, 0.36, 0.35, 0.26, 0.26, 0.36, 0.34)
_VEGA = (2.223, 1.699, 0.91, -0.08, 0.16, 0.37, 0.54)
_PIVOTS = dict(zip(PRESETS["galex-sdss"].split(","), PIVOTS, strict=True))
_R = (8.24, 8.20, 4.239, 3.303, 2.285, 1.698, 1.263)
# typical of galaxies in the catalogues; fit the errors of your table instead: simulator.noise
_KNOWN: dict[str, dict[str, Any]] = {
    **{
        name: {
            "name": b, "softening": s, "error": _SDSS_E.get(b, (0.04, np.nan, np.nan)),
            "scatter": max(sd / 2, 0.1), "vega": v, "extinction": r,
            "galex": b if b in "FN" else "",
        }
        for name, b, s, sd, v, r in zip(
            PRESETS["galex-sdss"].split(","), BANDS, SOFTENING, _SDSS_SD, _VEGA, _R, strict=True
        )
    },
    "decamDR1-g": {"error": (0.01, -2.3, 0.7), "extinction": 3.214},
    "decamDR1-r": {"error": (0.01, -2.0, 0.7), "extinction": 2.165},
    "decamDR1-i": {"error": (0.01, -1.6, 0.7), "extinction": 1.592},
    "decamDR1-z": {"error": (0.01, -1.3, 0.7), "extinction": 1.211},
    # no emission by dust in the model: a floor as large as its usual share in these bands
    "wise2010-W1": {"error": (0.02, 0.0, 0.5), "vega": 2.699, "extinction": 0.184,
                    "model_floor": 0.10},
    "wise2010-W2": {"error": (0.02, 0.6, 0.5), "vega": 3.339, "extinction": 0.113,
                    "model_floor": 0.15},
    "lsst2023-u": {"error": (0.01, -3.7, 0.9), "extinction": 4.145},
    "lsst2023-g": {"error": (0.01, -4.7, 0.9), "extinction": 3.237},
    "lsst2023-r": {"error": (0.01, -4.8, 0.9), "extinction": 2.273},
    "lsst2023-i": {"error": (0.01, -4.2, 0.9), "extinction": 1.684},
    "lsst2023-z": {"error": (0.01, -3.7, 0.9), "extinction": 1.323},
    "lsst2023-y": {"error": (0.01, -2.7, 0.9), "extinction": 1.088},
    "twomass-J": {"error": (0.03, 3.2, 0.3), "vega": 0.91, "extinction": 0.723},
    "twomass-H": {"error": (0.03, 3.5, 0.3), "vega": 1.39, "extinction": 0.460},
    "twomass-Ks": {"error": (0.03, 3.5, 0.3), "vega": 1.85, "extinction": 0.310},
}  # fmt: skip


@dataclass(frozen=True)
class BandSet:
    """Bands of the data, in the order of the fluxes.

    Parameters
    ----------
    name
        Name of the preset, the list, or the file.
    bands
        At least two.
    """

    name: str
    bands: tuple[Band, ...]

    def __len__(self) -> int:
        return len(self.bands)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(b.name for b in self.bands)

    @cached_property
    def curves(self) -> tuple[Filter, ...]:
        """Response curves."""
        return tuple(b.curve for b in self.bands)

    @cached_property
    def softening(self) -> tuple[float, ...]:
        """Softening of the asinh magnitudes [nanomaggies]."""
        return tuple(b.softening for b in self.bands)

    @cached_property
    def pivots(self) -> tuple[float, ...]:
        """Pivot wavelengths [Angstrom]."""
        return tuple(b.pivot for b in self.bands)

    @property
    def is_default(self) -> bool:
        """Whether these are the bands F N u g r i z."""
        return self.names == BANDS and self.name in FILTER_SETS

    @cached_property
    def reference(self) -> int:
        """Index of the band that orders galaxies by brightness: r, or the nearest to it."""
        return int(np.argmin(np.abs(np.asarray(self.pivots) - PIVOTS[4])))

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the bands of every survey, by the first part of the names of curves."""
        survey = [b.curve.name.split("-")[0] for b in self.bands]
        return tuple(
            tuple(k for k, s in enumerate(survey) if s == one) for one in dict.fromkeys(survey)
        )

    @cached_property
    def identity(self) -> Any:
        """Source of the default curves, or names and the hash of the curves and softenings."""
        if self.is_default:
            return self.name
        digest = hashlib.sha256()
        for b in self.bands:
            for part in (b.curve.wave, b.curve.response, np.asarray([b.softening, b.model_floor])):
                digest.update(np.ascontiguousarray(part, np.float64).tobytes())
        return {"bands": list(self.names), "sha256": digest.hexdigest()}


FILTER_SETS: tuple[FilterSet, ...] = ("speclite", "sedpy")


def load_bands(which: str = "galex-sdss", filters: FilterSet = "speclite") -> BandSet:
    """Return a set of bands.

    Parameters
    ----------
    which
        A preset, names of curves with commas between them, or a TOML file.
    filters
        Source of the curves of GALEX and SDSS in the default set.

    Raises
    ------
    ConfigError
        If a name, file or value is unknown or cannot be used.
    """
    if which == "galex-sdss":
        curves = load_filters(filters)
        names = PRESETS[which].split(",")
        bands = [_band(_KNOWN[n], c) for n, c in zip(names, curves, strict=True)]
        return BandSet(filters, tuple(bands))
    if which.endswith(".toml"):
        return _unique(BandSet(which, tuple(_of_file(Path(which)))))
    names = [n.strip() for n in PRESETS.get(which, which).split(",") if n.strip()]
    unknown = [n for n in names if n not in _KNOWN]
    if unknown or len(names) < 2:
        presets, curves_known = ", ".join(PRESETS), ", ".join(_KNOWN)
        msg = (
            f"simulator.bands = '{which}': write a preset ({presets}), two or more curves with "
            f"commas between them ({curves_known}), or a TOML file with any curves"
        )
        raise ConfigError(msg)
    return _unique(BandSet(which, tuple(_band(_KNOWN[n], _curve(n, Path())) for n in names)))


def longest(bands: BandSet) -> float:
    """Return the longest wavelength [Angstrom] that matters to a set."""
    return max(float(c.wave[c.response > 0.001 * c.response.max()][-1]) for c in bands.curves)


def softening_of(a: float) -> float:
    """Return the usual softening, three errors of a faint galaxy."""
    return float(3 * 10 ** (0.5 * a))


def _band(facts: Mapping[str, Any], curve: Filter) -> Band:
    error = facts.get("error")
    usual = 1.0 if error is None else softening_of(error[1])
    return Band(
        name=facts.get("name", curve.name.split("-")[-1]),
        curve=curve,
        softening=float(facts.get("softening", usual)),
        error=None if error is None else tuple(float(v) for v in error),  # type: ignore[arg-type]
        **{
            k: facts[k]
            for k in ("scatter", "vega", "extinction", "model_floor", "galex")
            if k in facts
        },
    )


def _of_file(path: Path) -> list[Band]:
    try:
        tree = tomllib.loads(read_text(path))
    except FileNotFoundError:
        msg = f"simulator.bands: no file '{path}'"
        raise ConfigError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"simulator.bands: '{path}' cannot be read as TOML: {error}"
        raise ConfigError(msg) from None
    bands = []
    for name, facts in tree.items():
        if not isinstance(facts, dict) or not isinstance(facts.get("filter"), str):
            msg = f"'{path}': a band is a table [NAME] with filter = CURVE in quotation marks"
            raise ConfigError(msg)
        _check_values(f"'{path}', band {name}", facts)
        known = dict(_KNOWN.get(facts["filter"], {}))
        known |= {"galex": ""} if "error" in facts else {}
        curve = _curve(facts["filter"], path.parent, facts.get("unit"))
        bands.append(_band({**known, **facts, "name": name}, curve))
    if len(bands) < 2:
        msg = f"'{path}' holds {len(bands)} bands; at least two are needed"
        raise ConfigError(msg)
    return bands


def _check_values(where: str, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError for unknown keys of a band and values that cannot be right."""
    limits = {"scatter": 0.0, "softening": 0.0, "vega": -np.inf, "extinction": 0.0,
              "model_floor": 0.0}  # fmt: skip
    problem = ""
    unknown = sorted(facts.keys() - limits.keys() - {"filter", "unit", "error"})
    if unknown:
        known = ", ".join(("filter", "unit", "error", *limits))
        problem = f"unknown key '{unknown[0]}'; the keys are {known}"
    if facts.get("unit", "nm") not in ANGSTROMS:
        problem = f"unit = '{facts['unit']}', expected {', '.join(ANGSTROMS)}"
    error = facts.get("error", [0.0] * 3)
    if not isinstance(error, list) or len(error) != 3 or not all(map(_is_number, error)):
        problem = "values are numbers, error = [c, a, b]"
    for key, least in limits.items():
        value = facts.get(key, 1.0)
        if not _is_number(value) or value < least or (key == "softening" and value == 0):
            sign = "positive" if key == "softening" else "not negative"
            problem = f"{key} = {value}, expected a number" + ("" if key == "vega" else f", {sign}")
    if problem:
        msg = f"{where}: {problem}"
        raise ConfigError(msg)


def _is_number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and bool(np.isfinite(value))


def _unique(bands: BandSet) -> BandSet:
    names = [n.lower() for n in bands.names]  # the case of columns does not matter
    twice = [n for n, plain in zip(bands.names, names, strict=True) if names.count(plain) > 1]
    if twice:
        same = f"'{twice[0]}'" if twice[0] == twice[1] else " and ".join(f"'{n}'" for n in twice)
        msg = f"simulator.bands = '{bands.name}' has two bands {same}; name them in a TOML file"
        raise ConfigError(msg)
    return bands


def _curve(name: str, folder: Path, unit: str | None = None) -> Filter:
    """Return a curve of speclite, of sedpy, or of a file with two columns."""
    path = folder / name
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_curve(name, path, changed, unit)


@lru_cache(maxsize=64)
def _read_curve(name: str, path: Path, changed: int, unit: str | None) -> Filter:
    """Return a curve; ``changed`` is the time of the last change of its file, 0 without a file.

    Raises
    ------
    ConfigError
        If it is neither, or is not a response curve.
    """
    if changed:
        return Filter(path.stem, *curve_of_file(path, unit))
    if unit is not None:
        msg = f"unit = '{unit}' is for curves of files, which '{name}' is not ('{path}')"
        raise ConfigError(msg)
    if name.startswith("sedpy:"):
        return sedpy_curve(name.removeprefix("sedpy:"))
    try:
        curve = speclite.filters.load_filter(name)
    except (ValueError, OSError):
        msg = (
            f"filter '{name}' is neither a curve of speclite (such as decamDR1-g) or sedpy "
            "(such as sedpy:sdss_g0) nor a file "
            f"with two columns, wavelength [Angstrom] and photon response ('{path}')"
        )
        raise ConfigError(msg) from None
    wave = np.asarray(curve.wavelength, np.float64)
    return Filter(name, wave, np.asarray(curve.response, np.float64))
