"""Spectra as a survey delivers them, for the tests of the readers."""

import numpy as np
from astropy.io import fits
from astropy.table import Table

from sbi_core import as_generator
from sbi_sfh.config import SfhConfig
from sbi_sfh.populations import Synthesis
from sbi_sfh.resample import air_to_vacuum

GRID = 3540.5 + 0.9 * np.arange(4300)
OBSERVED = SfhConfig(mode="observed")
FWHM = 2.51


def galaxy(simulator, seed=1, z=0.03, snr=50.0, **changes):
    """Columns and facts of a spectrum as a survey delivers it: vacuum, log-spaced, redshifted."""
    one_family = simulator.config.model_copy(update={"family": "gp"})
    drawn = Synthesis(simulator.library, one_family).draw(1, as_generator(seed))
    flux = drawn.coefficients[0] @ simulator.library.basis
    wave = 10 ** np.arange(np.log10(3500.0 * (1 + z)), np.log10(7500.0 * (1 + z)), 1e-4)
    rest = wave / (1 + z)
    values = 17.0 * np.interp(rest, air_to_vacuum(GRID * (1 + z)) / (1 + z), flux)
    err = values / snr
    columns = {"WAVE": wave, "FLUX": values, "IVAR": 1 / err**2, "MASK": np.zeros(len(wave), int)}
    facts = {"REDSHIFT": z, "VACUUM": True, "PLATEIFU": "1-1"}
    for key, value in changes.items():
        (columns if key in columns else facts)[key] = value
    return columns, {k: v for k, v in facts.items() if v is not None}, flux


def write(path, columns, facts, *, unit="Angstrom"):
    table = Table(columns)
    table["WAVE"].unit = unit
    hdu = fits.table_to_hdu(table)
    hdu.header.update(facts)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path
