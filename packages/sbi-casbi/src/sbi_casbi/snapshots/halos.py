"""Halo catalogues of a snapshot (AHF or ``.grp``), and the choice of the main halo.

Halos are numbered by decreasing number of particles, from 1 (AHF), or as in the group file, or, for
snapshots other than tipsy, as in the catalogue that pynbody finds beside them (Subfind, HOP, ...).
The main halo has the most particles among the halos in the high-resolution region of a zoom
simulation. If another of them has more stars or mass, the choice is left to the user.

References:
    | Knollmann & Knebe 2009, ApJS 182, 608 (AHF)
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_core import DataFileError, checked_file, counted

__all__ = ["HaloSource", "catalogue_files", "main_halo"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
HaloSource = Literal["auto", "ahf", "grp", "whole"]
_CANDIDATES = 10
_SEARCHED = 50  # halos of a catalogue, in its order
_HEAVY = 1.5  # dark particles above this multiple of the lightest are low-resolution particles
_CONTAMINATED = 0.01  # share of dark mass in heavy particles from which a halo is doubtful
_OUTSIDE = 0.5  # and from which it lies outside the high-resolution region


def catalogue_files(path: Path, source: HaloSource) -> list[Path]:
    """Return the halo files of a snapshot that the choice of a halo depends on."""
    if source == "whole":
        return []
    group = path.with_name(f"{path.name}.grp")
    ahf = [] if source == "grp" else sorted(path.parent.glob(f"{path.name}*AHF_particles*"))
    return [*ahf, *([group] if source != "ahf" and group.is_file() else [])]


def main_halo(
    snapshot: Any, path: Path, source: HaloSource, halo_id: int | None, *, tipsy: bool = True
) -> tuple[Any, int, str]:
    """Return the main halo, its number, and the type of its catalogue.

    Parameters
    ----------
    snapshot
        As loaded by pynbody.
    path
        Its file.
    source
        See :func:`sbi_casbi.snapshots.reader.read_snapshot`.
    halo_id
        Number of the halo to return; default: the main one.
    tipsy
        True: AHF and group files are read here; False: pynbody reads any catalogue it finds.

    Raises
    ------
    DataFileError
        If there is no catalogue, it cannot be read, or the main halo is ambiguous.
    """
    if source == "whole":
        return snapshot, -1, "whole"
    if not tipsy:
        return _of_catalogue(snapshot, path, source, halo_id)
    files = catalogue_files(path, source)
    if not files:
        wanted = {
            "ahf": f"no AHF catalogue ({path.name}.z*.AHF_particles) beside it",
            "grp": f"no group file '{path.name}.grp' beside it",
            "auto": "no halos: neither AHF files nor .grp; --halo-source whole takes all particles",
        }
        msg = f"{path.name}: {wanted[source]}"
        raise DataFileError(msg)
    kind = "grp" if files[0].suffix == ".grp" else "ahf"
    members = _read_grp(snapshot, files[0]) if kind == "grp" else _read_ahf(snapshot, files[0])
    if not members:
        msg = f"{path.name}: the halo catalogue '{files[0].name}' is empty"
        raise DataFileError(msg)
    number = halo_id if halo_id is not None else _choose(snapshot, path, members)
    if number not in members:
        msg = f"{path.name}: no halo {number} in '{files[0].name}'; the largest are "
        raise DataFileError(msg + ", ".join(map(str, list(members)[:_CANDIDATES])))
    return snapshot[members[number]], number, kind


def _of_catalogue(
    snapshot: Any, path: Path, source: HaloSource, halo_id: int | None
) -> tuple[Any, int, str]:
    """Return the main halo of the catalogue that pynbody finds."""
    if source != "auto":
        msg = f"{path.name}: --halo-source {source} is for tipsy snapshots; use auto or whole"
        raise DataFileError(msg)
    try:
        catalogue = snapshot.halos()
    except Exception:  # each catalogue fails in its own way where it does not exist
        msg = f"{path.name}: no halo catalogue beside it; --halo-source whole takes all particles"
        raise DataFileError(msg) from None
    numbers = [int(n) for n in list(catalogue.keys())[:_SEARCHED]]
    if halo_id is not None:
        numbers = [n for n in numbers if n == halo_id] or [halo_id]
    halos = {n: np.asarray(catalogue[n].get_index_list(snapshot)) for n in numbers}
    members = dict(sorted(halos.items(), key=lambda item: -len(item[1])))
    if not members:
        msg = f"{path.name}: the halo catalogue is empty"
        raise DataFileError(msg)
    number = halo_id if halo_id is not None else _choose(snapshot, path, members)
    return snapshot[members[number]], number, "catalogue"


def _read_grp(snapshot: Any, file: Path) -> dict[int, I64]:
    """Return the particles of every group, largest first."""
    try:
        group = np.asarray(snapshot["grp"])
    except (OSError, KeyError, ValueError):
        msg = (
            f"the group file '{file.name}' cannot be read: it must hold one number for each of "
            f"{len(snapshot)} particles"
        )
        raise DataFileError(msg) from None
    order = np.argsort(group, kind="stable")
    numbers, starts = np.unique(group[order], return_index=True)
    parts = zip(numbers, np.split(order, starts[1:]), strict=True)
    halos = {int(k): ids for k, ids in parts if k >= 1}  # 0: no group
    return dict(sorted(halos.items(), key=lambda item: -len(item[1])))


def _read_ahf(snapshot: Any, file: Path) -> dict[int, I64]:
    """Return the particles of every halo, largest first, numbered from 1.

    The file holds, once or (written by several processes) several times, a number of halos, and for
    each its number of particles, in newer versions the number that AHF gives to it (ignored: it may
    be a hash of 64 bits), and its particles, in newer versions followed by their type.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(checked_file(file), "rt") as f:
            text = f.read()
        head = text.split("\n", 2)
        columns = len(head[1].split()) if len(head) > 1 else 1
        values = np.fromstring(text, np.uint64, sep=" ").astype(np.int64)
        halos = _ahf_blocks(values, columns)
    except (OSError, EOFError, ValueError, OverflowError, IndexError) as error:
        msg = f"the AHF catalogue '{file.name}' is damaged ({type(error).__name__}: {error})"
        raise DataFileError(msg) from None
    dark, star, gas = len(snapshot.dm), len(snapshot.star), len(snapshot.gas)
    members = []
    for ids in halos:
        if ids.size and not 0 <= ids.min() <= ids.max() < dark + star + gas:
            msg = (
                f"the AHF catalogue '{file.name}' names particle {ids.max()}, the snapshot has "
                f"{dark + star + gas}: it belongs to another snapshot"
            )
            raise DataFileError(msg)
        # AHF counts dark matter, stars, gas; tipsy files hold gas, dark matter, stars
        members.append(np.sort(np.where(ids >= dark + star, ids - dark - star, ids + gas)))
    members.sort(key=len, reverse=True)
    return {k: ids for k, ids in enumerate(members, start=1)}


def _ahf_blocks(values: I64, columns: int) -> list[I64]:
    """Return AHF's particle numbers of every halo, in the order of the file."""
    halos, at = [], 0
    while at < len(values):
        count, at = int(values[at]), at + 1
        for _ in range(count):
            size, at = int(values[at]), at + columns
            end = at + columns * size
            if end > len(values):
                raise ValueError("it ends before the last particle")
            halos.append(values[at:end:columns])
            at = end
    return halos


def _choose(snapshot: Any, path: Path, members: dict[int, I64]) -> int:
    """Return the number of the main halo.

    Raises
    ------
    DataFileError
        If another halo has more stars or mass, or the halo is contaminated by heavy particles.
    """
    mass = np.asarray(snapshot["mass"].in_units("Msol"), float)
    is_dark, is_star = (np.zeros(len(snapshot), bool) for _ in range(2))
    for family in snapshot.families():
        place = snapshot._get_family_slice(family)
        is_dark[place], is_star[place] = family.name == "dm", family.name == "star"
    lightest = mass[is_dark].min(initial=np.inf)
    numbers = list(members)[:_CANDIDATES]
    stars, total, heavy = [], [], []
    for ids in (members[n] for n in numbers):
        of_dark = mass[ids[is_dark[ids]]]
        stars.append(int(is_star[ids].sum()))
        total.append(float(mass[ids].sum()))
        heavy.append(float(of_dark[of_dark > _HEAVY * lightest].sum() / max(of_dark.sum(), 1e-99)))
    inside = [k for k, share in enumerate(heavy) if share < _OUTSIDE]
    if not inside:
        msg = f"{path.name}: the {len(numbers)} largest halos consist of low-resolution particles"
        raise DataFileError(msg)
    main = inside[0]
    reasons = []
    if stars[main] < max(stars[k] for k in inside):
        reasons.append("it has not the most stars")
    if total[main] < max(total[k] for k in inside) * (1 - 1e-6):
        reasons.append("it is not the most massive")
    if heavy[main] > _CONTAMINATED:
        reasons.append(f"{100 * heavy[main]:.2g} % of its dark mass is in heavy particles")
    if reasons:
        listed = "; ".join(
            f"{numbers[k]}: {counted(int(stars[k]), 'star')}, {total[k]:.3g} Msun"
            for k in inside[:4]
        )
        msg = (
            f"{path.name}: ambiguous main halo: {numbers[main]} has most particles, but "
            f"{' and '.join(reasons)} (candidates: {listed}); choose with --halo-id"
        )
        raise DataFileError(msg)
    return numbers[main]
