r"""Reader of SSP templates in the HDF5 format of DSPS.

Keys: ``ssp_lgmet`` (log10 Z), ``ssp_lg_age_gyr``, ``ssp_wave`` [Angstrom], ``ssp_flux``
(Z, ages, wavelengths) in Lsun/Hz per Msun formed; :math:`L_\lambda = L_\\nu c / \lambda^2`. The
format has no surviving mass: the living fraction and quantities derived from it are NaN.

References:
    | Hearin et al. 2023, MNRAS 521, 1741 (DSPS)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sbi_core import DataFileError, open_hdf5
from sbi_sedflow.constants import C_ANGSTROM
from sbi_sedflow.ssp.bc03 import sha256_of
from sbi_sedflow.ssp.grid import SSPGrid

__all__ = ["read_dsps"]

_KEYS = ("ssp_lgmet", "ssp_lg_age_gyr", "ssp_wave", "ssp_flux")


def read_dsps(path: str | Path) -> SSPGrid:
    """Read a DSPS file.

    Raises
    ------
    DataFileError
        If it is missing, not an HDF5 file, or lacks a key.
    """
    path = Path(path)
    try:
        with open_hdf5(path) as f:
            missing = [k for k in _KEYS if k not in f]
            if missing:
                listed = ", ".join(f)
                msg = (
                    f"'{path}' is not a DSPS file: it lacks {', '.join(missing)} (it has {listed})"
                )
                raise DataFileError(msg)
            lgmet, lgage, wave, flux = (np.asarray(f[k][()], np.float64) for k in _KEYS)
    except OSError as error:
        msg = f"DSPS file '{path}' cannot be read: {error}"
        raise DataFileError(msg) from None
    lum = np.moveaxis(flux, 0, 1) * C_ANGSTROM / wave**2
    living = np.full(lum.shape[:2], np.nan)
    meta = {"library": "DSPS", "sha256": sha256_of(path), "file": path.name}
    return SSPGrid(10.0**lgage, 10.0**lgmet, wave, lum, living, meta)
