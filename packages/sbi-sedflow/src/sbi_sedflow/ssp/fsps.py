"""Export of FSPS populations (python-fsps) to a grid; needs the FSPS data files.

``StellarPopulation(sfh=0, imf_type=1, zcontinuous=0)`` without dust or nebular emission (Chabrier
IMF, as in PROVABGS), for each metallicity of the isochrones. The libraries compiled into FSPS are
recorded, because the defaults have changed since 2021.

References:
    | Conroy, Gunn & White 2009, ApJ 699, 486; Conroy & Gunn 2010, ApJ 712, 833
"""

from __future__ import annotations

import hashlib
import importlib
import os
from typing import Any

import numpy as np

from sbi_core import DataFileError
from sbi_sedflow.ssp.grid import SSPGrid

__all__ = ["export_fsps"]


def export_fsps(module: Any = None) -> SSPGrid:
    """Return the grid of the installed FSPS; takes minutes.

    Parameters
    ----------
    module
        The module ``fsps``; imported when left out.

    Raises
    ------
    DataFileError
        If SPS_HOME is not set or python-fsps is not installed.
    """
    if not os.environ.get("SPS_HOME"):
        msg = (
            "SPS_HOME is not set: the PyPI package fsps has no data files. Get them with "
            "`git clone https://github.com/cconroy20/fsps`, set SPS_HOME to that folder, and "
            "`pip install 'sbi-sedflow[fsps]'`"
        )
        raise DataFileError(msg)
    if module is None:
        try:
            module = importlib.import_module("fsps")
        except (ImportError, OSError, RuntimeError) as error:
            msg = f"needs python-fsps: pip install 'sbi-sedflow[fsps]' ({error})"
            raise DataFileError(msg) from None
    population = module.StellarPopulation(
        sfh=0, imf_type=1, zcontinuous=0, add_neb_emission=False, dust1=0.0, dust2=0.0
    )
    metallicity = np.asarray(population.zlegend, np.float64)
    log_age = np.asarray(population.ssp_ages, np.float64)
    spectra, living = [], []
    for k in range(len(metallicity)):
        population.params["zmet"] = k + 1
        wave, lum = population.get_spectrum(peraa=True)
        spectra.append(np.asarray(lum, np.float64))
        living.append(np.asarray(population.stellar_mass, np.float64))
    libraries = [v.decode() if isinstance(v, bytes) else str(v) for v in population.libraries]
    lum = np.stack(spectra, axis=1)
    digest = hashlib.sha256(np.ascontiguousarray(lum, np.float32).tobytes()).hexdigest()
    meta = {
        "library": "FSPS",
        "version": str(getattr(module, "__version__", "unknown")),
        "libraries": libraries,
        "imf": "Chabrier",
        "sha256": digest,
        "remnants": True,
    }
    age_gyr = 10.0 ** (log_age - 9)
    return SSPGrid(age_gyr, metallicity, np.asarray(wave), lum, np.stack(living, 1), meta)
