"""One Gasoline snapshot: its main halo, and the abundances of its stars.

Layout: ``<root>/g8.26e11/g8.26e11.01024`` (big-endian tipsy) with auxiliary arrays
``.FeMassFrac``, ``.OxMassFrac`` (int32 N, then N values over gas, dark matter and stars), the
``.param`` file beside it or one level up, and optionally ``.z0.000.AHF_halos/_particles`` or
``.grp``. pynbody reads positions, masses, cosmology and halos; abundances follow from our own
formula, because pynbody's derived arrays replace zeros in place by the smallest positive value.

References:
    | Pontzen et al. 2013, pynbody, ascl:1305.002
    | Wang et al. 2015, MNRAS 454, 83 (NIHAO)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import SMALLEST, abundances, metals_of, solar_scale
from sbi_casbi.cosmology import age_gyr
from sbi_casbi.snapshots.names import STEM_PATTERN, stem_and_step
from sbi_core import ConfigError, DataFileError

__all__ = ["HaloSource", "Snapshot", "need_pynbody", "read_snapshot"]

F64 = NDArray[np.float64]
HaloSource = Literal["auto", "ahf", "grp", "whole"]
_FEWEST = 50  # usable stars
_CANDIDATES = 10
_HEAVY, _HEAVY_SHARE = 1.5, 0.01  # dark particles from outside the high-resolution region
_AUXILIARY = ("FeMassFrac", "OxMassFrac")
_MASS_RANGE = (1.0, 16.0)  # log10 of any plausible halo mass [Msun]


@dataclass(frozen=True)
class Snapshot:
    """The main halo of one snapshot.

    Parameters
    ----------
    name, stem, step
        File name, simulation, step.
    fe_h, o_fe
        Abundances of the usable stars [dex], (n,).
    mass
        Their masses [Msun], (n,).
    mstar, mdm, mgas
        Masses of the halo [Msun].
    tau, z
        Age of the universe [Gyr] and redshift.
    n_masked
        Stars left out: without iron or oxygen, sinks, or not finite.
    halo_id
        Number of the halo in its catalogue; -1 for the whole snapshot.
    halo_source
        ahf, grp or whole.
    """

    name: str
    stem: str
    step: int
    fe_h: F64
    o_fe: F64
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
) -> Snapshot:
    """Read the main halo of one snapshot.

    Parameters
    ----------
    path
        The tipsy file.
    halo_source
        Catalogue: AHF, ``.grp``, the whole snapshot, or the first of the two that is there.
    halo_id
        Halo to take; default: the one with most particles, if it is the main one beyond doubt.
    solar
        Solar scale.
    stem_regex
        Pattern of the file name.

    Raises
    ------
    DataFileError
        If a file is missing or unreadable, no halo is found or the main one is ambiguous, or
        fewer than 50 stars are usable. One sentence: what, where, what to do.
    """
    pynbody = need_pynbody()
    path = Path(path)
    stem, step = stem_and_step(path, stem_regex)
    _check_auxiliaries(path)
    scale = solar_scale(solar)
    with _quiet():
        f = _load(pynbody, path)
        halo, number, source = _main_halo(pynbody, f, path, halo_source, halo_id)
        fe, o = (np.asarray(halo.star[a], float) for a in _AUXILIARY)
        tform = np.asarray(halo.star["tform"], float)
        mass = np.asarray(halo.star["mass"].in_units("Msol"), float)
        sums = {k: float(getattr(halo, k)["mass"].in_units("Msol").sum()) for k in ("dm", "gas")}
        z = float(1.0 / f.properties["a"] - 1.0)
        tau = _age(f.properties, z)
    _check_masses(path, float(mass.sum()), sums["dm"])
    finite = np.isfinite(fe) & np.isfinite(o) & np.isfinite(mass)
    usable = finite & (fe > SMALLEST) & (o > SMALLEST) & (tform >= 0)
    if len(mass) and not usable.any():
        msg = f"{path.name}: no enriched stars: none of {len(mass)} has iron and oxygen"
        raise DataFileError(msg)
    if usable.sum() < _FEWEST:
        msg = (
            f"{path.name}: {int(usable.sum())} usable stars in the main halo, fewer than {_FEWEST}"
        )
        raise DataFileError(msg)
    fe, o = fe[usable], o[usable]
    fe_h, o_fe = abundances(fe, o, metals_of(fe, o), scale)
    return Snapshot(
        name=path.name,
        stem=stem,
        step=step,
        fe_h=fe_h,
        o_fe=o_fe,
        mass=mass[usable],
        mstar=float(mass[finite & (tform >= 0)].sum()),
        mdm=sums["dm"],
        mgas=sums["gas"],
        tau=tau,
        z=z,
        n_masked=int((~usable).sum()),
        halo_id=number,
        halo_source=source,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings that are turned into errors or checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_auxiliaries(path: Path) -> None:
    """Raise unless both abundance arrays are there, whole, and of the same byte order."""
    if not path.is_file():
        msg = f"snapshot '{path}' does not exist"
        raise DataFileError(msg)
    head = path.read_bytes()[:32] if path.stat().st_size < 64 else path.open("rb").read(32)
    if len(head) < 32:
        msg = f"'{path}' is too short to be a tipsy snapshot"
        raise DataFileError(msg)
    swapped = _byte_order(head)
    if swapped is None:
        msg = f"'{path}' is not a tipsy snapshot: its header makes no sense in either byte order"
        raise DataFileError(msg)
    total = int(np.frombuffer(head[8:12], swapped + "i4")[0])
    for name in _AUXILIARY:
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
    """Whether an auxiliary array is text with the right number of particles in its first line."""
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


def _load(pynbody: Any, path: Path) -> Any:
    """Return the snapshot with its parameter file, or raise."""
    try:
        f = pynbody.load(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        hint = ""
        if "multiple of element size" in str(error):
            hint = ": remove the line bDoublePos from the .param file"
        msg = f"'{path}' cannot be read by pynbody ({error}){hint}"
        raise DataFileError(msg) from None
    parameters = getattr(f, "_paramfile", {})
    if "bDoublePos" in parameters and str(parameters["bDoublePos"]).strip() in ("0", "0.0"):
        msg = (
            f"{path.name}: the .param file says bDoublePos = 0, which pynbody takes for true: "
            "remove the line"
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

    Not ``properties["time"]``: it is in units of the code, which are rounded to five digits.
    """
    return float(age_gyr(z, 100.0 * float(properties["h"]), float(properties["omegaM0"])))


def _check_masses(path: Path, mstar: float, mdm: float) -> None:
    for what, mass in (("stellar", mstar), ("dark", mdm)):
        low, high = _MASS_RANGE
        if mass > 0 and not low < np.log10(mass) < high:
            msg = (
                f"{path.name}: a {what} mass of {mass:.3g} Msun is impossible: look at dMsolUnit "
                "in the .param file"
            )
            raise DataFileError(msg)
    if mdm > 0 and mstar > mdm:
        msg = (
            f"{path.name}: {mstar:.3g} Msun of stars in {mdm:.3g} Msun of dark matter: units of "
            "masses disagree, or the halo is wrong"
        )
        raise DataFileError(msg)


# -- halos -----------------------------------------------------------------------------------


def _main_halo(
    pynbody: Any, f: Any, path: Path, source: HaloSource, halo_id: int | None
) -> tuple[Any, int, str]:
    """Return the main halo, its number, and the catalogue it comes from."""
    if source == "whole":
        return f, -1, "whole"
    ahf = list(path.parent.glob(f"{path.name}*AHF_particles*"))
    grp = path.with_name(f"{path.name}.grp")
    if source == "ahf" or (source != "grp" and ahf):
        if not ahf:
            msg = f"{path.name}: no AHF catalogue ({path.name}.z*.AHF_particles) beside it"
            raise DataFileError(msg)
        return _of_ahf(pynbody, f, path, halo_id)
    if source == "grp" or grp.is_file():
        if not grp.is_file():
            msg = f"{path.name}: no group file '{grp.name}' beside it"
            raise DataFileError(msg)
        return _of_grp(f, path, halo_id)
    msg = f"{path.name}: no halos: neither AHF files nor .grp; halo_source = 'whole' takes all"
    raise DataFileError(msg)


def _of_ahf(pynbody: Any, f: Any, path: Path, halo_id: int | None) -> tuple[Any, int, str]:
    from pynbody.halo.ahf import AHFCatalogue

    try:
        # numbers by length: those in the file are 0-based, 1-based or hashed
        catalogue = AHFCatalogue(f, halo_numbers="length-order-v1", write_fpos=False)
        count = len(catalogue)
        halos = [(k, catalogue[k]) for k in range(1, min(count, _CANDIDATES) + 1)]
    except (OSError, KeyError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        msg = f"{path.name}: the AHF catalogue cannot be read ({type(error).__name__}: {error})"
        raise DataFileError(msg) from None
    number = _choose(path, halos, halo_id, count)
    return catalogue[number], number, "ahf"


def _of_grp(f: Any, path: Path, halo_id: int | None) -> tuple[Any, int, str]:
    try:
        group = np.asarray(f["grp"])
    except (OSError, KeyError, ValueError) as error:
        msg = f"{path.name}: the group file cannot be read ({error})"
        raise DataFileError(msg) from None
    numbers, counts = np.unique(group[group >= 1], return_counts=True)  # 0: no group
    if len(numbers) == 0:
        msg = f"{path.name}: no particle is in a group"
        raise DataFileError(msg)
    order = np.argsort(-counts, kind="stable")[:_CANDIDATES]
    halos = [(int(numbers[k]), f[np.flatnonzero(group == numbers[k])]) for k in order]
    number = _choose(path, halos, halo_id, len(numbers))
    return f[np.flatnonzero(group == number)], number, "grp"


def _choose(path: Path, halos: list[tuple[int, Any]], asked: int | None, count: int) -> int:
    """Return the number of the main halo; raise when it is none beyond doubt."""
    if not halos:
        msg = f"{path.name}: the halo catalogue is empty"
        raise DataFileError(msg)
    if asked is not None:
        known = [n for n, _ in halos]
        if asked not in known and asked > count:
            msg = f"{path.name}: no halo {asked}; the largest are {known}"
            raise DataFileError(msg)
        return asked
    number, first = halos[0]
    stars = [len(h.star) for _, h in halos]
    mass = [float(h["mass"].sum()) for _, h in halos]
    reasons = []
    if stars[0] < max(stars):
        reasons.append("it has not the most stars")
    if mass[0] < max(mass) * (1 - 1e-6):
        reasons.append("it is not the most massive")
    if len(first.dm):
        dark = np.asarray(first.dm["mass"], float)
        heavy = dark[dark > _HEAVY * dark.min()].sum() / dark.sum()
        if heavy > _HEAVY_SHARE:
            reasons.append(f"{100 * heavy:.2g} % of its dark mass is in heavy particles")
    if reasons:
        listed = "; ".join(
            f"{n}: {s} stars, {m:.3g} code mass"
            for (n, _), s, m in list(zip(halos, stars, mass, strict=True))[:4]
        )
        msg = (
            f"{path.name}: ambiguous main halo: {number} has most particles, but "
            f"{' and '.join(reasons)} (candidates: {listed}); choose with --halo-id"
        )
        raise DataFileError(msg)
    return number
