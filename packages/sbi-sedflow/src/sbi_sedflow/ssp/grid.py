"""A grid of simple stellar populations: spectra and living mass over age and metallicity.

The npz file holds the arrays of :class:`SSPGrid` and its ``meta`` as JSON text, and no pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import DataFileError, read_npz, written

__all__ = ["SSPGrid", "read_grid", "write_arrays", "write_grid"]

F64 = NDArray[np.float64]
_ARRAYS = ("age_gyr", "metallicity", "wave", "lum", "living")


@dataclass(frozen=True)
class SSPGrid:
    """Spectra of simple stellar populations.

    Parameters
    ----------
    age_gyr : (A,) Gyr, increasing, positive
        Ages.
    metallicity : (Z,) mass fraction, increasing
        Absolute metallicities.
    wave : (W,) Angstrom, increasing
        Wavelengths.
    lum : (A, Z, W) Lsun / Angstrom per Msun formed
        Luminosity densities.
    living : (A, Z)
        Surviving mass per mass formed, with or without remnants as the library defines it.
    meta
        ``library, version, imf, z_sun, sha256, licence`` as far as known.

    Raises
    ------
    DataFileError
        If shapes disagree, an axis does not increase, or a value is negative or not finite.
    """

    age_gyr: F64
    metallicity: F64
    wave: F64
    lum: NDArray[np.floating[Any]]
    living: F64
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.meta.get("library", "SSP grid")
        shape = (len(self.age_gyr), len(self.metallicity), len(self.wave))
        if self.lum.shape != shape or self.living.shape != shape[:2]:
            msg = (
                f"{name}: spectra have shape {self.lum.shape} and living fractions "
                f"{self.living.shape}, expected {shape} and {shape[:2]} from the axes"
            )
            raise DataFileError(msg)
        for axis, values in (
            ("age", self.age_gyr),
            ("metallicity", self.metallicity),
            ("wavelength", self.wave),
        ):
            if not ((np.diff(values) > 0).all() and values[0] > 0 and np.isfinite(values).all()):
                msg = f"{name}: the {axis} axis must be positive and increase"
                raise DataFileError(msg)
        if min(shape[:2]) < 2:
            msg = f"{name}: needs at least two ages and two metallicities, has {shape[:2]}"
            raise DataFileError(msg)
        bad = ~np.isfinite(self.lum).all(-1) | (self.lum < 0).any(-1)
        if bad.any():
            a, z = (int(v) for v in np.argwhere(bad)[0])
            msg = (
                f"{name}: the spectrum at age {self.age_gyr[a]:.3g} Gyr, Z = "
                f"{self.metallicity[z]:.3g} has negative values or values that are not finite "
                f"({int(bad.sum())} such spectra)"
            )
            raise DataFileError(msg)

    def __repr__(self) -> str:
        a, z, w = self.lum.shape
        library = self.meta.get("library", "unknown")
        return f"SSPGrid({library}: {a} ages, {z} metallicities, {w} wavelengths)"


def write_arrays(path: str | Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
    """Write arrays and ``meta`` as npz under a temporary name, then rename it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as temporary, temporary.open("wb") as f:
            np.savez(f, meta=np.array(json.dumps(dict(meta))), **arrays)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise DataFileError(msg) from None
    return path


def write_grid(grid: SSPGrid, path: str | Path) -> Path:
    """Write a grid as npz; return the path."""
    return write_arrays(path, {name: getattr(grid, name) for name in _ARRAYS}, grid.meta)


def read_grid(path: str | Path) -> SSPGrid:
    """Read what :func:`write_grid` wrote.

    Raises
    ------
    DataFileError
        If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    stored = read_npz(path)
    missing = [n for n in (*_ARRAYS, "meta") if n not in stored]
    if missing:
        have = ", ".join(stored)
        msg = f"'{path}' is not an SSP grid: it lacks {', '.join(missing)} (it has {have})"
        raise DataFileError(msg)
    arrays = {name: stored[name] for name in _ARRAYS}
    try:
        meta = json.loads(str(stored["meta"]))
    except ValueError as error:
        msg = f"SSP grid '{path}' cannot be read: {error}"
        raise DataFileError(msg) from None
    return SSPGrid(**arrays, meta=meta)
