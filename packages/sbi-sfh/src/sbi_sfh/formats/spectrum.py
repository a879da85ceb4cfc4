"""One spectrum as a file has it, made of named columns and facts.

Columns and facts are found by the names that surveys and codes use. When the flux has two
dimensions, every row is a galaxy: other columns are rows of the same shape, shared (wavelengths)
or one number per galaxy (redshift, identifier).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as astropy_units
from numpy.typing import NDArray

from sbi_core import ObservationError
from sbi_sfh.constants import FWHM_PER_SIGMA

__all__ = ["RawSpectrum", "Spectrum", "UnusableSpectrumError", "has_spectrum", "spectra_of"]

F64 = NDArray[np.float64]
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "wave": ("wave", "wavelength", "lambda", "lam", "spectral_axis"),
    "loglam": ("loglam", "log_wave", "loglambda"),
    "flux": ("flux", "spec", "f_lambda", "galaxy"),
    "ivar": ("ivar", "inverse_variance", "flux_ivar"),
    "err": (
        "err", "error", "flux_err", "flux_error", "fluxerr", "sigma_flux", "uncertainty", "e_flux",
        "noise",
    ),
    "var": ("var", "variance", "stat"),
    "mask": ("mask", "and_mask", "andmask", "bad", "badpix", "qual"),
    "sres": ("sres", "specres", "resolution", "r"),
    "wdisp": ("wdisp",),
}  # fmt: skip
_FACTS: Mapping[str, tuple[str, ...]] = {
    "redshift": ("redshift", "z"),
    "vacuum": ("vacuum", "invacuum", "airorvac"),
    "sigma": ("sigma", "vdisp", "sigma_kms", "vel_dis"),
    "unit": ("waveunit", "wave_unit", "wunit"),
    "id": ("plateifu", "id", "targetid", "object", "name"),
    "frame": ("frame",),
}
_VACUUM = ("t", "true", "1", "yes", "vac", "vacuum")
_AIR = ("f", "false", "0", "no", "air")
_FAILED_DISPERSION = 850.0  # km/s: where the fit of the SDSS pipeline ends, not a measurement


class UnusableSpectrumError(ObservationError):
    """A spectrum that cannot be inferred, although others of the same file may be.

    Parameters
    ----------
    reason
        Flag of the galaxy in the tables of results.
    message
        The problem, with the name of the spectrum, and the remedy.
    id
        Name of the galaxy, where it is known.
    """

    def __init__(self, reason: str, message: str, id: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.reason = reason
        self.id = id


@dataclass(frozen=True)
class RawSpectrum:
    """One spectrum as a file has it.

    Parameters
    ----------
    id
        Name of the galaxy.
    where
        File and part, for messages.
    wave
        Wavelengths in ``unit``, increasing, (L,).
    flux
        Flux density per wavelength, (L,).
    ivar
        Inverse variance, (L,); 0 where there are no data.
    good
        False where the file masks a pixel, (L,).
    unit
        Unit of the wavelengths; None if the file has none.
    vacuum
        True for wavelengths in vacuum, False in air; None if the file does not state it.
    redshift
        Redshift; None if the file has none.
    sigma
        Velocity dispersion of the galaxy, km/s; None if the file has none.
    resolution
        Resolving power lambda/FWHM, (L,); None if the file has none.
    rest
        True for wavelengths in the rest frame.
    notes
        Conversions, one sentence each.
    """

    id: str
    where: str
    wave: F64
    flux: F64
    ivar: F64
    good: NDArray[np.bool_]
    unit: str | None = None
    vacuum: bool | None = None
    redshift: float | None = None
    sigma: float | None = None
    resolution: F64 | None = None
    rest: bool = False
    notes: tuple[str, ...] = ()


Spectrum = RawSpectrum | UnusableSpectrumError  # of a row: the spectrum, or the reason for its lack


def has_spectrum(columns: Mapping[str, Any]) -> bool:
    """Return whether there are columns with wavelengths and flux."""
    names = _lower(columns)
    wave = _column(names, "wave") or _column(names, "loglam")
    return wave is not None and _column(names, "flux") is not None


def spectra_of(
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
    where: str,
    units: Mapping[str, Any] | None = None,
) -> Iterator[Spectrum]:
    """Yield the spectra of some columns; of several rows also what is wrong with single ones.

    Parameters
    ----------
    columns
        Arrays by name.
    facts
        Redshift, air or vacuum and the like, by name.
    where
        File and part, for messages and, without an identifier, names of galaxies.
    units
        Units of columns.

    Raises
    ------
    ObservationError
        If there are no wavelengths, no flux or no errors.
    """
    names = _lower(columns)
    flux = _column(names, "flux")
    if flux is None or not has_spectrum(columns):
        msg = (
            f"{where}: needs columns WAVE (or LOGLAM) and FLUX, has {', '.join(map(str, columns))}"
        )
        raise ObservationError(msg)
    if not any(_column(names, kind) for kind in ("ivar", "err", "var")):
        msg = f"{where}: needs a column IVAR or ERR, has {', '.join(map(str, columns))}"
        raise ObservationError(msg)
    values = {name: np.ma.asarray(_plain(v)) for name, v in columns.items()}
    shape = values[flux].shape
    if len(shape) < 2:
        yield _one(values, facts, where, units or {})
        return
    for k in range(shape[0]):
        row = {n: v[k] if v.shape == shape else v for n, v in values.items()}
        own = {n: v[k] for n, v in values.items() if v.ndim == 1 and len(v) == shape[0]}
        rest = {n: v for n, v in row.items() if n not in own or v.shape == shape[1:]}
        name = (
            {} if shape[0] == 1 or _fact({**facts, **own}, "id") else {"id": f"{_stem(where)}-{k}"}
        )
        yield _one(rest, {**facts, **name, **own}, f"{where}, row {k}", units or {})


def _row(
    columns: Mapping[str, Any], facts: Mapping[str, Any], where: str, units: Mapping[str, Any]
) -> RawSpectrum | UnusableSpectrumError:
    """Return the spectrum of a row, or why there is none."""
    try:
        return _one(columns, facts, where, units)
    except UnusableSpectrumError as error:
        error.id = str(_fact(facts, "id") or "")
        return error


def _plain(values: Any) -> Any:
    """Return the numbers of a column or quantity."""
    return values.value if isinstance(values, astropy_units.Quantity) else values


def _lower(columns: Mapping[str, Any]) -> dict[str, str]:
    return {str(c).strip().lower(): str(c) for c in columns}


def _column(names: Mapping[str, str], kind: str) -> str | None:
    return next((names[a] for a in _COLUMNS[kind] if a in names), None)


def _fact(facts: Mapping[str, Any], kind: str) -> Any:
    lower = {str(k).strip().lower(): v for k, v in facts.items()}
    known = (lower[a] for a in _FACTS[kind] if a in lower and not np.ma.is_masked(lower[a]))
    return next((v for v in known if v is not None and str(v).strip() != ""), None)


def _stem(where: str) -> str:
    return where.split(",")[0].strip("'").split("/")[-1].split(".")[0]


def _number(facts: Mapping[str, Any], kind: str, where: str) -> float | None:
    value = _fact(facts, kind)
    if value is None:
        return None
    try:
        return float(np.asarray(value).reshape(-1)[0])
    except ValueError:
        msg = f"{where}: the {kind} is '{value}', expected a number"
        raise UnusableSpectrumError("facts_missing", msg) from None


def _vacuum(facts: Mapping[str, Any], where: str) -> bool | None:
    """Return True for vacuum, False for air, None if the facts do not state it."""
    value = _fact(facts, "vacuum")
    if value is None:
        return None
    word = str(np.asarray(value).reshape(-1)[0]).strip().lower()
    if word in (*_VACUUM, *_AIR):
        return word in _VACUUM
    msg = f"{where}: VACUUM = '{value}' is neither vacuum nor air; write T or F"
    raise UnusableSpectrumError("facts_missing", msg)


def _numbers(values: Any, name: str, where: str) -> F64:
    """Return a column as (L,) float64; NaN where masked or empty."""
    data = np.ma.asarray(values).reshape(-1)
    try:
        return np.asarray(np.ma.filled(data.astype(np.float64), np.nan), np.float64)
    except (TypeError, ValueError):
        msg = f"{where}: column '{name}' does not hold numbers"
        raise UnusableSpectrumError("unreadable", msg) from None


def _one(
    columns: Mapping[str, Any], facts: Mapping[str, Any], where: str, units: Mapping[str, Any]
) -> RawSpectrum:
    """Assemble one spectrum."""
    names = _lower(columns)
    chosen = {kind: _column(names, kind) for kind in _COLUMNS}
    data = {k: _numbers(columns[n], n, where) for k, n in chosen.items() if n is not None}
    flux = data["flux"]
    vacuum = _vacuum(facts, where)
    if "wave" in data:
        wave, unit = data["wave"], units.get(str(chosen["wave"])) or _fact(facts, "unit")
    else:
        wave, unit = 10.0 ** data["loglam"], "Angstrom"  # the convention of SDSS: in vacuum
        vacuum = True if vacuum is None else vacuum
    ivar = _inverse_variance(data)
    good = np.ones(len(flux), bool) if "mask" not in data else data["mask"] == 0  # empty: bad
    resolution = data.get("sres")
    if resolution is None and "wdisp" in data:
        # SDSS: sigma in pixels of 1e-4 in log10 lambda
        step = np.maximum(data["wdisp"], 1e-3) * 1e-4 * np.log(10.0) * FWHM_PER_SIGMA
        resolution = 1.0 / step
    lengths = {len(v) for v in (wave, flux, ivar, good)}
    if len(lengths) > 1:
        msg = f"{where}: wavelength, flux and errors have different lengths {sorted(lengths)}"
        raise UnusableSpectrumError("bad_wavelengths", msg)
    notes = []
    if _per_frequency(units.get(str(chosen["flux"]))):
        flux, ivar = flux / wave**2, ivar * wave**4
        notes.append("flux per frequency converted to flux per wavelength")
    if len(wave) > 1 and (np.diff(wave) < 0).all():
        turned = (v[::-1] for v in (wave, flux, ivar, good))
        wave, flux, ivar, good = turned  # type: ignore[assignment]
        resolution = None if resolution is None else resolution[::-1]
    sigma = _number(facts, "sigma", where)
    if sigma is not None and not 0 < sigma < _FAILED_DISPERSION:
        notes.append(f"velocity dispersion of {sigma:g} km/s is a mark of a failed fit: not used")
        sigma = None
    frame = str(_fact(facts, "frame") or "observed").lower()
    return RawSpectrum(
        id=str(_fact(facts, "id") or _stem(where)).strip(),
        where=where, wave=wave, flux=flux, ivar=ivar, good=good,
        unit=None if unit is None else str(unit), vacuum=vacuum,
        redshift=_number(facts, "redshift", where), sigma=sigma,
        resolution=resolution, rest=frame.startswith("rest"), notes=tuple(notes),
    )  # fmt: skip


def _inverse_variance(data: Mapping[str, F64]) -> F64:
    """Return inverse variances; 0 where the error is 0, negative where it is negative."""
    if "ivar" in data:
        return data["ivar"]
    with np.errstate(divide="ignore", invalid="ignore"):
        if "err" in data:
            err = data["err"]
            return np.where(err > 0, 1.0 / err**2, np.where(err == 0, 0.0, -np.abs(err)))
        var = data["var"]
        return np.where(var == 0, 0.0, 1.0 / var)


def _per_frequency(unit: Any) -> bool:
    try:
        return bool(astropy_units.Unit(str(unit or "")).is_equivalent("Jy"))
    except (ValueError, TypeError):
        return False
