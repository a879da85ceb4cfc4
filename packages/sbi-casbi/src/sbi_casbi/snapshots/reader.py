"""One snapshot: its main halo, and the abundances of its stars.

Gasoline: ``<root>/g8.26e11/g8.26e11.01024`` (big-endian tipsy) with auxiliary arrays
``.FeMassFrac``, ``.OxMassFrac`` (int32 N, then N values over gas, dark matter and stars), the
``.param`` file beside it or one level up, and optionally ``.z0.000.AHF_halos/_particles`` or
``.grp``. Gadget, AREPO and GIZMO: HDF5, in one or several files. RAMSES: a folder ``output_00080``.
pynbody reads masses, units and cosmology. Abundances are calculated here, because pynbody's derived
arrays replace zeros by the smallest positive value; :mod:`sbi_casbi.snapshots.fields` names them.

References:
    | Pontzen et al. 2013, pynbody, ascl:1305.002
    | Wang et al. 2015, MNRAS 454, 83 (NIHAO)
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import SMALLEST, Element, abundances, solar_scale
from sbi_casbi.cosmology import age_gyr
from sbi_casbi.snapshots.fields import fields_of, guessed, mass_fractions
from sbi_casbi.snapshots.halos import HaloSource, catalogue_files, main_halo
from sbi_casbi.stems import STEM_PATTERN, stem_and_step
from sbi_core import ConfigError, DataFileError, SbiError

__all__ = ["HaloSource", "Snapshot", "files_of", "need_pynbody", "read_snapshot"]

F64 = NDArray[np.float64]
_FEWEST = 50  # usable stars
_AUXILIARY = ("FeMassFrac", "OxMassFrac", "MgMassFrac")
_PARTICLE_BYTES = (48, 36, 44)  # gas, dark matter, star, in single precision
_MASS_RANGE = (1.0, 16.0)  # log10 of any plausible halo mass [Msun]


@dataclass(frozen=True)
class Snapshot:
    """The main halo of one snapshot.

    Parameters
    ----------
    name, stem, step
        File name, simulation, step.
    fe_h, alpha_fe
        [Fe/H], and [O/Fe] or [Mg/Fe] of the usable stars [dex], (n,).
    mass
        Their masses [Msun], (n,).
    mstar, mdm, mgas
        Masses of the halo [Msun]; ``mgas`` is NaN for RAMSES.
    tau, z
        Age of the universe [Gyr] and redshift.
    n_masked
        Number of excluded stars: without one of the elements, sink or wind particles, or not
        finite.
    halo_id
        Number of the halo; -1 for the whole snapshot.
    halo_source
        ahf, grp, catalogue (of other codes) or whole.
    """

    name: str
    stem: str
    step: int
    fe_h: F64
    alpha_fe: F64
    mass: F64
    mstar: float
    mdm: float
    mgas: float
    tau: float
    z: float
    n_masked: int
    halo_id: int
    halo_source: str


def need_pynbody() -> Any:
    """Return the module pynbody.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import pynbody
    except ImportError as error:
        msg = f"reading snapshots needs pynbody: pip install 'sbi-casbi[snapshots]' ({error})"
        raise ConfigError(msg) from None
    return pynbody


def read_snapshot(
    path: str | Path,
    *,
    halo_source: HaloSource = "auto",
    halo_id: int | None = None,
    solar: str = "pynbody",
    stem_regex: str = STEM_PATTERN,
    fields: str | None = None,
    alpha: Element = "o",
) -> Snapshot:
    """Read the main halo of one snapshot.

    Parameters
    ----------
    path
        The tipsy file, the (first) HDF5 file, or the folder of RAMSES.
    halo_source
        Halo catalogue: ``ahf``, ``grp``, ``auto`` (AHF if present, otherwise grp; for other codes
        any that pynbody finds), or ``whole``: all particles.
    halo_id
        Number of the halo: 1 is the one with most particles (AHF), or the number in the group file.
        Default: the main halo.
    solar
        Solar scale.
    stem_regex
        Pattern of the file name, see :func:`sbi_casbi.stems.stem_and_step`.
    fields
        Arrays of abundances, see :mod:`sbi_casbi.snapshots.fields`; default: found.
    alpha
        Element beside iron.

    Raises
    ------
    DataFileError
        If a file is missing or unreadable, no halo is found or the main one is ambiguous, or
        fewer than 50 stars are usable.
    """
    pynbody = need_pynbody()
    path = Path(path)
    stem, step = stem_and_step(path, stem_regex)
    form = _form(path)
    if form == "tipsy":
        _check_files(path, alpha)
    scale = solar_scale(solar)
    with _quiet(), _reading(path):
        f = _load(pynbody, path, form, gas=halo_source != "whole")
        halo, number, source = main_halo(f, path, halo_source, halo_id, tipsy=form == "tipsy")
        if not len(halo.star):
            where = "the snapshot" if source == "whole" else f"halo {number}"
            msg = f"{path.name}: {where} has no stars"
            raise DataFileError(msg)
        columns = fields_of(fields) if fields else guessed(f, path.name)
        fe, other, hydrogen = mass_fractions(f, halo.star, columns, alpha, path.name)
        formed = _formed(f, halo.star, form)
        mass = np.asarray(halo.star["mass"].in_units("Msol"), float)
        sums = {k: _total(getattr(halo, k)) for k in ("dm", "gas")}
        z = float(1.0 / f.properties["a"] - 1.0)
        tau = _age(f.properties, z)
    _check_masses(path, float(mass.sum()), sums["dm"])
    finite = np.isfinite(fe) & np.isfinite(other) & np.isfinite(hydrogen) & np.isfinite(mass)
    usable = finite & (fe > SMALLEST) & (other > SMALLEST) & (hydrogen > 0) & formed
    if len(mass) and not usable.any():
        msg = f"{path.name}: no enriched stars: none of {len(mass)} has both elements"
        raise DataFileError(msg)
    if usable.sum() < _FEWEST:
        msg = (
            f"{path.name}: {int(usable.sum())} usable stars in the main halo, fewer than {_FEWEST}"
        )
        raise DataFileError(msg)
    fe_h, alpha_fe = abundances(fe[usable], other[usable], hydrogen[usable], scale, alpha)
    return Snapshot(
        name=path.name if form == "tipsy" else f"{stem}.{step:05d}",
        stem=stem,
        step=step,
        fe_h=fe_h,
        alpha_fe=alpha_fe,
        mass=mass[usable],
        mstar=float(mass[finite & formed].sum()),
        mdm=sums["dm"],
        mgas=np.nan if form == "ramses" else sums["gas"],
        tau=tau,
        z=z,
        n_masked=int((~usable).sum()),
        halo_id=number,
        halo_source=source,
    )


def files_of(path: str | Path, halo_source: HaloSource = "auto") -> list[Path]:
    """Return the existing files that :func:`read_snapshot` reads for a snapshot."""
    path = Path(path)
    form = _form(path)
    if form == "ramses":
        return sorted(file for file in path.rglob("*") if file.is_file())
    if form == "hdf5":
        first = path.name.removesuffix(".0.hdf5")
        number = (re.findall(r"\d+", first) or [""])[-1]
        near = [path.parent.glob(f"{first}.*.hdf5"), path.parent.glob(f"*tab_{number}*")]
        far = path.parent.parent.glob(f"groups_{number}/*")
        return sorted({path, *near[0], *near[1], *far})
    arrays = [path.with_name(f"{path.name}.{name}") for name in _AUXILIARY]
    parameters = [*path.parent.glob("*.param"), *path.parent.glob("../*.param")]
    files = [path, *arrays, *sorted(parameters), *catalogue_files(path, halo_source)]
    return [file for file in files if file.is_file()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log messages about what is checked here."""
    log = logging.getLogger("pynbody")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of pynbody into a DataFileError: damaged files fail in many ways."""
    try:
        yield
    except SbiError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        msg = f"'{path.name}' cannot be read by pynbody ({what})"
        raise DataFileError(msg) from error


def _check_files(path: Path, alpha: Element) -> None:
    """Raise unless the snapshot and its abundance arrays are complete, in one byte order."""
    if not path.is_file():
        msg = f"snapshot '{path}' does not exist"
        raise DataFileError(msg)
    head = path.read_bytes()[:32] if path.stat().st_size < 64 else path.open("rb").read(32)
    if len(head) < 32:
        msg = f"'{path}' is too short to be a tipsy snapshot"
        raise DataFileError(msg)
    swapped = _byte_order(head)
    if swapped is None:
        msg = f"'{path}' is not a tipsy snapshot: its header is invalid in both byte orders"
        raise DataFileError(msg)
    total, _, *sizes = np.frombuffer(head[8:28], swapped + "i4").tolist()
    expected = 32 + sum(n * size for n, size in zip(sizes, _PARTICLE_BYTES, strict=True))
    if path.stat().st_size < expected:
        msg = (
            f"'{path.name}' has {path.stat().st_size} bytes, its {total} particles take at least "
            f"{expected}: the file is truncated"
        )
        raise DataFileError(msg)
    for name in _AUXILIARY if alpha == "mg" else _AUXILIARY[:2]:
        file = path.with_name(f"{path.name}.{name}")
        if not file.is_file():
            msg = f"'{path.name}' has no auxiliary array '{file.name}' beside it"
            raise DataFileError(msg)
        with file.open("rb") as raw:
            first = raw.read(4)
        count = int(np.frombuffer(first, swapped + "i4")[0]) if len(first) == 4 else -1
        other = int(np.frombuffer(first, _other(swapped) + "i4")[0]) if len(first) == 4 else -1
        if count != total and other == total:
            order = "big" if _other(swapped) == ">" else "little"
            msg = f"'{file.name}' is {order}-endian, the snapshot is not: write it again"
            raise DataFileError(msg)
        if count == total and file.stat().st_size != 4 + 4 * total:
            msg = (
                f"'{file.name}' has {file.stat().st_size} bytes, expected {4 + 4 * total} "
                f"for {total} particles: it is truncated or of another type"
            )
            raise DataFileError(msg)
        if count != total and not _is_text(file, total):
            msg = f"'{file.name}' is for {count} particles, the snapshot has {total}"
            raise DataFileError(msg)


def _is_text(file: Path, total: int) -> bool:
    """Return True if an auxiliary array is text with the right number in its first line."""
    with file.open("rb") as raw:
        line = raw.readline(32)
    return line.strip().isdigit() and int(line) == total


def _byte_order(head: bytes) -> str | None:
    for order in (">", "<"):
        n, dims, gas, dark, star = np.frombuffer(head[8:28], order + "i4")
        if dims in (1, 2, 3) and n == gas + dark + star and n >= 0:
            return order
    return None


def _other(order: str) -> str:
    return "<" if order == ">" else ">"


def _form(path: Path) -> Literal["tipsy", "hdf5", "ramses"]:
    if path.is_dir():
        return "ramses"
    return "hdf5" if path.suffix in (".hdf5", ".h5") else "tipsy"


def _load(pynbody: Any, path: Path, form: str, *, gas: bool) -> Any:
    """Return the snapshot with its cosmology, or raise."""
    if form == "tipsy":
        f = _load_tipsy(pynbody, path)
    elif form == "ramses":  # gas cells are only read where a halo catalogue counts them
        f = pynbody.load(str(path), with_gas=gas)
    else:
        f = pynbody.load(str(path).removesuffix(".0.hdf5"))
    lost = [k for k in ("a", "h", "omegaM0") if k not in f.properties]
    if lost:
        msg = f"{path.name}: no {', '.join(lost)} in its header: masses and times are unknown"
        raise DataFileError(msg)
    return f


def _formed(snapshot: Any, stars: Any, form: str) -> NDArray[np.bool_]:
    """Return False for sink particles of Gasoline, and for wind particles of AREPO."""
    if form == "tipsy":
        return np.asarray(stars["tform"] >= 0)
    if form == "hdf5" and "aform" in snapshot.star.loadable_keys():
        return np.asarray(stars["aform"] > 0)
    return np.ones(len(stars), bool)


def _total(family: Any) -> float:
    return float(family["mass"].in_units("Msol").sum()) if len(family) else 0.0


def _load_tipsy(pynbody: Any, path: Path) -> Any:
    """Return the snapshot with its parameter file, or raise."""
    f = pynbody.load(str(path))
    parameters = getattr(f, "_paramfile", {})
    for word in ("bDoublePos", "bDoubleVel"):
        if str(parameters.get(word, "")).strip() in ("0", "0.0"):
            msg = (
                f"{path.name}: pynbody misreads the line '{word} = 0' of the .param file (it takes "
                "any value for true): remove the line"
            )
            raise DataFileError(msg)
    if abs(f.properties.get("omegaM0", 1.0) + f.properties.get("omegaL0", 0.0) - 1.0) > 1e-3:
        msg = f"{path.name}: the cosmology of the .param file (dOmega0, dLambda) is not flat"
        raise DataFileError(msg)
    missing = [k for k in ("dKpcUnit", "dMsolUnit") if k not in parameters]
    if missing or "h" not in f.properties:
        msg = (
            f"{path.name}: no usable .param file beside it or one level up "
            f"({', '.join(missing or ['dHubble0'])} missing): masses and times would be wrong"
        )
        raise DataFileError(msg)
    return f


def _age(properties: Any, z: float) -> float:
    """Return the age [Gyr] at z in the cosmology of the file.

    ``properties["time"]`` is not used: its code units are rounded to five digits.
    """
    return float(age_gyr(z, 100.0 * float(properties["h"]), float(properties["omegaM0"])))


def _check_masses(path: Path, mstar: float, mdm: float) -> None:
    for what, mass in (("stellar", mstar), ("dark", mdm)):
        low, high = _MASS_RANGE
        if mass > 0 and not low < np.log10(mass) < high:
            msg = (
                f"{path.name}: a {what} mass of {mass:.3g} Msun is impossible: look at the "
                "units of the file (tipsy: dMsolUnit in the .param file)"
            )
            raise DataFileError(msg)
    if mdm > 0 and mstar > mdm:
        msg = (
            f"{path.name}: {mstar:.3g} Msun of stars in {mdm:.3g} Msun of dark matter: units of "
            "masses disagree, or the halo is wrong"
        )
        raise DataFileError(msg)
