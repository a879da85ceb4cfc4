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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sbi_casbi.abundances import LABELS, Element
from sbi_casbi.cosmology import redshift
from sbi_casbi.library import FINE, Library, split_stems
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
_TABLES = ("*.npz", "*.fits", "*.ecsv", "*.csv")


def library_of_stars(
    path: str | Path,
    *,
    solar: str = "pynbody",
    alpha: Element = "o",
    stem_regex: str = STEM_PATTERN,
    plane: Plane | None = None,
    seed: int = 1,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
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
    plane
        Pixels; default [-4.5, 0.6] x [-0.4, 0.8].
    seed, fractions
        Seed and fractions of the split by stem.

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
    mass = np.asarray(arrays["star_mass"], float)[first]
    if (mass <= 0).any() or not 2 < np.median(np.log10(np.maximum(mass, 1e-9))) < 13:
        msg = f"{path}: star_mass has a median of {np.median(mass):.3g}, expected Msun"
        raise DataFileError(msg)
    dark = _dark_mass(arrays, first, notes)
    if "simulation" in arrays:
        stem = np.asarray(arrays["simulation"])[first].astype(np.str_)
    else:
        stem = np.array([_simulation(str(name), stem_regex) for name in galaxies])
    plane = plane or Plane()
    index = np.where(good, plane.fine_index(np.nan_to_num(feh), np.nan_to_num(alpha_fe)), -1)
    count = np.bincount(row[good], minlength=len(galaxies))
    inside = index >= 0
    data = (1.0 / count[row[inside]]).astype(np.float32)
    templates = sparse.csr_matrix(
        (data, (row[inside], index[inside])), shape=(len(galaxies), FINE * FINE)
    )
    templates.sum_duplicates()
    tau = np.asarray(arrays["infall_time"], float)[first]
    return (
        Library(
            plane=plane,
            templates=templates,
            galaxy_name=galaxies,
            stem=stem,
            log_mstar=np.log10(mass),
            log_mdm=dark,
            log_mgas=np.full(len(galaxies), np.nan),
            tau=tau,
            z=redshift(tau),
            n_star=count,
            n_masked=np.bincount(row[~good], minlength=len(galaxies)),
            split=split_stems(stem, np.log10(mass), seed, fractions),
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
    parts = [_load(file, alpha) for file in files]
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
            arrays[name] = np.asarray(reader.ids((column,))[0], np.str_)
        elif column is not None:
            arrays[name] = reader.values(column, units.get(name, "Msun"))
    return arrays


def _dark_mass(arrays: dict[str, NDArray[Any]], first: NDArray[np.int64], notes: list[str]) -> F64:
    if "dm_mass" not in arrays:
        notes.append("WARNING: no dm_mass: the dark mass is not inferred with this library")
        return np.full(len(first), np.nan)
    dark = np.asarray(arrays["dm_mass"], float)[first]
    return np.asarray(np.log10(np.where(dark > 0, dark, np.nan)))
