"""Libraries from tables of stars of your own simulations, and from the files of CASBI.

One file with one row per star, or a folder of files with one galaxy each (npz as CASBI's
``gen_files`` writes them, or FITS, ECSV, CSV). Columns, or arrays, in npz also single values:

=================  ===============================================================================
``feh``            [Fe/H] (``fe_h``)
``ofe``, ``mgfe``  [O/Fe] (``o_fe``) or [Mg/Fe] (``mg_fe``)
``star_mass``      stellar mass of the galaxy [Msun] (``mstar``)
``infall_time``    age of the universe [Gyr] of the snapshot (``tau``)
``Galaxy_name``    name of the snapshot, with simulation and step (``galaxy``)
``simulation``     name of the simulation; without it, it is read from the name of the snapshot
``dm_mass``        dark mass [Msun] (``mdm``); without it, the dark mass is not inferred
=================  ===============================================================================

Files of failed snapshots (``*_error.npz`` of CASBI), files of other types and galaxies without a
usable star are left out and named.

References:
    | Viterbo & Buck 2024, arXiv:2411.17269, section 2.1
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import LABELS, Element
from sbi_casbi.cosmology import age_gyr, redshift
from sbi_casbi.library import Library, split_stems, templates_of_stars
from sbi_casbi.plane import Plane
from sbi_casbi.stems import STEM_PATTERN, stem_and_step
from sbi_core import ColumnReader, DataFileError, counted, read_npz, read_table

__all__ = ["library_of_stars"]

F64 = NDArray[np.float64]
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "feh": ("feh", "fe_h"),
    "ofe": ("ofe", "o_fe"),
    "mgfe": ("mgfe", "mg_fe"),
    "star_mass": ("star_mass", "mstar"),
    "infall_time": ("infall_time", "tau"),
    "Galaxy_name": ("galaxy_name", "galaxy"),
    "simulation": ("simulation",),
    "dm_mass": ("dm_mass", "mdm"),
}
_WORDS = ("Galaxy_name", "simulation")
_OPTIONAL = ("simulation", "dm_mass")
_PER_GALAXY = ("star_mass", "infall_time", "dm_mass", "simulation")
_MOST_OUTSIDE = 0.5  # fraction of the stars outside the plane
_EMPTY = re.compile(r"row-\d+-without-id")
_OLDEST = 1.02 * float(age_gyr(0.0))  # age of the universe [Gyr], in any cosmology
_TABLES = ("*.npz", "*.fits", "*.ecsv", "*.csv")


def library_of_stars(
    path: str | Path,
    *,
    solar: str = "pynbody",
    alpha: Element = "o",
    stem_regex: str = STEM_PATTERN,
) -> tuple[Library, list[str]]:
    """Return a library, and notes about excluded stars, galaxies and files.

    Parameters
    ----------
    path
        File (npz, FITS, ECSV, CSV), or folder of files; pickled objects are refused.
    solar
        Solar scale of its abundances.
    alpha
        Element beside iron.
    stem_regex
        Pattern of ``Galaxy_name``, if there is no ``simulation``.

    Raises
    ------
    DataFileError
        If a file cannot be read, lacks an array, or masses are not in Msun.
    """
    notes: list[str] = []
    arrays = _load_all(Path(path), alpha, notes)
    feh, alpha_fe = (np.asarray(arrays[k], float) for k in ("feh", f"{alpha}fe"))
    good = np.isfinite(feh) & np.isfinite(alpha_fe)
    if not good.all():
        notes.append(f"{counted(int((~good).sum()), 'star')} without finite abundances excluded")
    names = arrays["Galaxy_name"].astype(str)
    if not good.any():
        msg = f"{path}: no star has finite feh and {alpha}fe"
        raise DataFileError(msg)
    empty = sorted(set(names) - set(names[good]))
    if empty:
        notes.append(f"{_some(empty, 'galaxy', 'galaxies')} without a usable star left out")
        with_stars = ~np.isin(names, empty)
        arrays = {k: v[with_stars] for k, v in arrays.items()}
        names, good = names[with_stars], good[with_stars]
        feh, alpha_fe = feh[with_stars], alpha_fe[with_stars]
    galaxies, first, row = np.unique(names, return_index=True, return_inverse=True)
    per_galaxy = {
        k: _one_each(k, arrays[k], galaxies, first, row, path) for k in _PER_GALAXY if k in arrays
    }
    mass, tau = (np.asarray(per_galaxy[k], float) for k in ("star_mass", "infall_time"))
    _check_values(galaxies, mass, tau, path)
    dark = _dark_mass(per_galaxy, galaxies, notes)
    if "simulation" in arrays:
        stem = np.asarray(per_galaxy["simulation"]).astype(np.str_)
    else:
        stem = np.array([_simulation(str(name), stem_regex) for name in galaxies])
    plane = Plane()
    stars = feh[good], alpha_fe[good]
    over = _outside(plane, *stars, row[good], LABELS[alpha], path, notes)
    return (
        Library(
            plane=plane,
            templates=templates_of_stars(plane, *stars, row[good], len(galaxies)),
            galaxy_name=galaxies,
            stem=stem,
            log_mstar=np.log10(mass),
            log_mdm=dark,
            log_mgas=np.full(len(galaxies), np.nan),
            tau=tau,
            z=redshift(tau),
            n_star=np.bincount(row[good], minlength=len(galaxies)),
            n_masked=np.bincount(row[~good], minlength=len(galaxies)),
            n_over=over,
            split=split_stems(stem, np.log10(mass), 1),
            solar=solar,
            alpha=alpha,
            tau_width=0.2158,
            source=f"stars in {Path(path).name}",
        ),
        notes,
    )


def _simulation(name: str, pattern: str) -> str:
    try:
        return stem_and_step(name, pattern)[0]
    except DataFileError as error:
        msg = f"{error}, or add a column 'simulation'"
        raise DataFileError(msg) from None


def _some(names: Sequence[str], noun: str, plural: str = "") -> str:
    """Return the number of names, and the first three of them."""
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{counted(len(names), noun, plural)} ({listed})"


def _load_all(path: Path, alpha: Element, notes: list[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, or of all files of a folder."""
    if not path.is_dir():
        return _load(path, alpha)
    files = [f for kind in _TABLES for f in sorted(path.glob(kind)) if f.stem[-6:] != "_error"]
    if not files:
        msg = f"folder '{path}' has no file of a galaxy ({', '.join(_TABLES)})"
        raise DataFileError(msg)
    others = sorted(p.name for p in path.iterdir() if p not in files and p.name[0] != ".")
    if others:
        notes.append(f"{_some(others, 'file')} not read: not {', '.join(_TABLES)}, or *_error")
    parts, broken = [], []
    for file in list(files):
        try:
            parts.append(_load(file, alpha))
        except DataFileError as error:
            files.remove(file)
            broken.append((file.name, str(error)))
    if broken:
        reason = f"{_some([name for name, _ in broken], 'file')} cannot be used: {broken[0][1]}"
        if not files:
            raise DataFileError(reason)
        notes.append(f"WARNING: {reason}")
    empty = [file.name for file, p in zip(files, parts, strict=True) if not len(p["feh"])]
    if empty:
        notes.append(f"{_some(empty, 'file')} without stars")
    names = [name for name in parts[0] if all(name in p for p in parts)]
    return {name: np.concatenate([p[name] for p in parts]) for name in names}


def _load(path: Path, alpha: Element) -> dict[str, NDArray[Any]]:
    arrays = _of_npz(path) if path.suffix == ".npz" else _of_table(path)
    wanted = [name for name in _COLUMNS if name not in ("ofe", "mgfe") or name == f"{alpha}fe"]
    missing = [name for name in wanted if name not in arrays and name not in _OPTIONAL]
    if missing:
        other = "mg" if alpha == "o" else "o"
        hint = f"; for {LABELS[other]} give --alpha {other}" if f"{other}fe" in arrays else ""
        msg = f"'{path}' lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays))}{hint}"
        raise DataFileError(msg)
    arrays = {name: arrays[name] for name in wanted if name in arrays}
    stars = np.size(arrays["feh"])
    for name, value in arrays.items():
        if value.ndim == 0:
            arrays[name] = np.full(stars, value)
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) != 1:
        msg = f"'{path}': arrays differ in length: {lengths}"
        raise DataFileError(msg)
    return arrays


def _of_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file under our names, and the others under their own."""
    own = {other: name for name, others in _COLUMNS.items() for other in others}
    return {own.get(name.lower(), name): value for name, value in read_npz(path).items()}


def _of_table(path: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a table under our names."""
    reader = ColumnReader(read_table(path), str(path))
    units = {"feh": "dex", "ofe": "dex", "mgfe": "dex", "infall_time": "Gyr"}
    arrays: dict[str, NDArray[Any]] = {}
    for name, others in _COLUMNS.items():
        column = reader.find(others)
        if column is not None and name in _WORDS:
            arrays[name] = _words(reader, column, path)
        elif column is not None:
            arrays[name] = reader.values(column, units.get(name, "Msun"))
    return arrays


def _words(reader: ColumnReader, column: str, path: Path) -> NDArray[np.str_]:
    """Return the words of a column that must not be empty, (n,)."""
    words = reader.ids((column,))[0]
    empty = sum(_EMPTY.fullmatch(word) is not None for word in words)
    if empty:
        msg = f"'{path}': column '{column}' is empty for {counted(empty, 'star')}"
        raise DataFileError(msg)
    return np.asarray(words, np.str_)


def _one_each(
    name: str,
    values: NDArray[Any],
    galaxies: NDArray[np.str_],
    first: NDArray[np.int64],
    row: NDArray[np.int64],
    path: Any,
) -> NDArray[Any]:
    """Return the value (g,) that all stars of a galaxy share.

    Parameters
    ----------
    name, values
        Column, and its values (n,).
    galaxies, first, row
        Names of the galaxies and their first stars, (g,); galaxy of every star, (n,).
    path
        File, for messages.

    Raises
    ------
    DataFileError
        If the stars of a galaxy have different values.
    """
    values = np.asarray(values)
    one = values[first]
    same = values == one[row]
    if values.dtype.kind == "f":
        same |= np.isclose(values, one[row], rtol=1e-3) | (np.isnan(values) & np.isnan(one[row]))
    if not same.all():
        k = int(np.flatnonzero(~same)[0])
        pair = [
            f"{v:.4g}" if values.dtype.kind == "f" else f"'{v}'" for v in (one[row[k]], values[k])
        ]
        hint = ", the mass of the whole galaxy" if name.endswith("mass") else ""
        msg = (
            f"{path}: {name} is {pair[0]} and {pair[1]} for stars of '{galaxies[row[k]]}': it must "
            f"be the same for all stars of a snapshot{hint}"
        )
        raise DataFileError(msg)
    return np.asarray(one)


def _check_values(galaxies: NDArray[np.str_], mass: F64, tau: F64, path: Any) -> None:
    """Refuse masses [Msun] and infall times [Gyr] of galaxies (g,) that cannot be such."""
    for name, values, good, expected in (
        ("star_mass", mass, mass > 0, "a positive mass in Msun"),
        ("infall_time", tau, (tau > 0) & (tau < _OLDEST), f"Gyr, 0 to {_OLDEST:.1f}"),
    ):
        if not good.all():
            k = int(np.flatnonzero(~good)[0])
            msg = (
                f"{path}: {name} of {counted(int((~good).sum()), 'galaxy', 'galaxies')} is not "
                f"usable, e.g. {values[k]:.4g} of '{galaxies[k]}': expected {expected}"
            )
            raise DataFileError(msg)
    if not 2 < np.median(np.log10(mass)) < 13:
        msg = f"{path}: star_mass has a median of {np.median(mass):.3g}, expected Msun"
        raise DataFileError(msg)
    if len(mass) > 1 and np.ptp(np.log10(mass)) == 0:
        msg = (
            f"{path}: star_mass is {mass[0]:.3g} for all {len(mass)} galaxies: it must be the mass "
            "of the whole galaxy, not that of a star"
        )
        raise DataFileError(msg)


def _outside(
    plane: Plane,
    feh: F64,
    alpha_fe: F64,
    row: NDArray[np.int64],
    label: str,
    path: Any,
    notes: list[str],
) -> NDArray[np.int64]:
    """Return the number of stars outside the plane, (g,), and note them.

    Parameters
    ----------
    plane, label
        The plane, and the name of its second axis.
    feh, alpha_fe, row
        Abundances of the stars and their galaxies, (m,).
    path
        File, for messages.
    notes
        List of notes.

    Raises
    ------
    DataFileError
        If these are more than half of the stars.
    """
    (low, high), (bottom, top) = plane.fe_h, plane.o_fe
    outside = (feh < low) | (feh > high) | (alpha_fe < bottom) | (alpha_fe > top)
    n = int(outside.sum())
    box = f"[Fe/H] {low:g}..{high:g}, {label} {bottom:g}..{top:g}"
    said = f"{n} of {counted(len(feh), 'star')} outside the plane ({box})"
    if n > _MOST_OUTSIDE * len(feh):
        msg = f"{path}: {said}: check columns, units and solar scale"
        raise DataFileError(msg)
    if n:
        notes.append(said)
    return np.bincount(row[outside], minlength=int(row.max()) + 1)


def _dark_mass(
    per_galaxy: Mapping[str, NDArray[Any]], galaxies: NDArray[np.str_], notes: list[str]
) -> F64:
    """Return log10 of the dark mass [Msun], (g,), NaN where it is unknown."""
    missing = "the dark mass is not inferred with this library"
    if "dm_mass" not in per_galaxy:
        notes.append(f"WARNING: no dm_mass: {missing}")
        return np.full(len(galaxies), np.nan)
    dark = np.asarray(per_galaxy["dm_mass"], float)
    known = dark > 0
    if not known.all():
        names = _some(galaxies[~known].tolist(), "galaxy", "galaxies")
        notes.append(f"WARNING: {names} without dm_mass: {missing}")
    return np.asarray(np.log10(np.where(known, dark, np.nan)))
