"""Libraries from tables of stars: ``feh, ofe, star_mass, infall_time, Galaxy_name`` (npz).

The format of CASBI: one file with one entry per star in all arrays, or a folder of files with one
galaxy each (written by its ``gen_files``), where the last three may be single values. Its files of
failed snapshots (``*_error.npz``) are skipped. Without ``dm_mass`` the dark mass is not inferred.

References:
    | Viterbo & Buck 2024, arXiv:2411.17269, section 2.1
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sbi_casbi.cosmology import redshift
from sbi_casbi.library import FINE, Library, split_stems
from sbi_casbi.plane import Plane
from sbi_casbi.stems import STEM_PATTERN, stem_and_step
from sbi_core import DataFileError, counted, read_npz

__all__ = ["library_of_stars"]

F64 = NDArray[np.float64]
_NEEDED = ("feh", "ofe", "star_mass", "infall_time", "Galaxy_name")


def library_of_stars(
    path: str | Path,
    *,
    solar: str = "pynbody",
    stem_regex: str = STEM_PATTERN,
    plane: Plane | None = None,
    seed: int = 1,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[Library, list[str]]:
    """Return a library, and notes about excluded stars.

    Parameters
    ----------
    path
        npz file, or folder of npz files; pickled objects are refused.
    solar
        Solar scale of its abundances.
    stem_regex
        Pattern of ``Galaxy_name``.
    plane
        Pixels; default [-4.5, 0.6] x [-0.4, 0.8].
    seed, fractions
        Seed and fractions of the split by stem.

    Raises
    ------
    DataFileError
        If a file cannot be read, lacks an array, or masses are not in Msun.
    """
    arrays = _load_all(Path(path))
    notes: list[str] = []
    feh, ofe = (np.asarray(arrays[k], float) for k in ("feh", "ofe"))
    good = np.isfinite(feh) & np.isfinite(ofe)
    if not good.all():
        notes.append(f"{counted(int((~good).sum()), 'star')} without finite abundances excluded")
    names = arrays["Galaxy_name"].astype(str)
    galaxies, first, row = np.unique(names, return_index=True, return_inverse=True)
    mass = np.asarray(arrays["star_mass"], float)[first]
    if (mass <= 0).any() or not 2 < np.median(np.log10(np.maximum(mass, 1e-9))) < 13:
        msg = f"{path}: star_mass has a median of {np.median(mass):.3g}, expected Msun"
        raise DataFileError(msg)
    dark = _dark_mass(arrays, first, notes)
    pairs = [stem_and_step(name, stem_regex) for name in galaxies]
    stem = np.array([p[0] for p in pairs])
    plane = plane or Plane()
    index = np.where(good, plane.fine_index(np.nan_to_num(feh), np.nan_to_num(ofe)), -1)
    count = np.bincount(row[good], minlength=len(galaxies))
    if (count == 0).any():
        msg = f"{path}: galaxy '{galaxies[int(np.argmin(count))]}' has no usable star"
        raise DataFileError(msg)
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
            tau_width=0.2158,
            source=f"stars in {Path(path).name}",
        ),
        notes,
    )


def _load_all(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, or of all files of a folder."""
    if not path.is_dir():
        return _load(path)
    files = [file for file in sorted(path.glob("*.npz")) if not file.stem.endswith("_error")]
    if not files:
        msg = f"folder '{path}' has no npz file of a galaxy"
        raise DataFileError(msg)
    parts = [_load(file) for file in files]
    names = set(_NEEDED) | ({"dm_mass"} if all("dm_mass" in p for p in parts) else set())
    return {name: np.concatenate([p[name] for p in parts]) for name in names}


def _load(path: Path) -> dict[str, NDArray[Any]]:
    arrays = read_npz(path)
    missing = [k for k in _NEEDED if k not in arrays]
    if missing:
        msg = f"'{path}' lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays))}"
        raise DataFileError(msg)
    stars = np.size(arrays["feh"])
    for name, value in arrays.items():
        if value.ndim == 0:
            arrays[name] = np.full(stars, value)
    lengths = {k: len(arrays[k]) for k in _NEEDED}
    if len(set(lengths.values())) != 1:
        msg = f"'{path}': arrays differ in length: {lengths}"
        raise DataFileError(msg)
    return arrays


def _dark_mass(arrays: dict[str, NDArray[Any]], first: NDArray[np.int64], notes: list[str]) -> F64:
    if "dm_mass" not in arrays:
        notes.append("WARNING: no dm_mass: the dark mass is not inferred with this library")
        return np.full(len(first), np.nan)
    dark = np.asarray(arrays["dm_mass"], float)[first]
    return np.asarray(np.log10(np.where(dark > 0, dark, np.nan)))
