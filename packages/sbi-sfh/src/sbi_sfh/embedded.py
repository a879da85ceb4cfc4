"""The SSP grid that comes with the package (made by :mod:`sbi_sfh.make_grid`).

It needs no download and serves for a first look. Formation times of real galaxies differ by
0.2-2.3 Gyr from those with MILES: use a folder of MILES files for results.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import as_file, files

import numpy as np

from sbi_core import DataFileError, read_npz
from sbi_sfh.ssp import SspLibrary

__all__ = ["embedded_library"]

_FILE = "ssp_fastar.npz"


def embedded_library() -> SspLibrary:
    """Return the embedded grid: 11 [M/H] from -2.27 to 0.26, 53 ages from 0.03 to 14 Gyr.

    Raises
    ------
    DataFileError
        If the file is damaged.
    """
    path = files("sbi_sfh").joinpath("data", _FILE)
    with as_file(path) as file:
        stored = read_npz(file)
    meta = json.loads(str(stored["meta"]))
    parts = {k: v for k, v in stored.items() if k != "meta"}
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(np.ascontiguousarray(parts[name]).tobytes())
    if digest.hexdigest() != meta["sha256"]:
        msg = f"the embedded SSP grid '{path}' is damaged: install sbi-sfh again"
        raise DataFileError(msg)
    median = parts["median"]
    ones = np.ones((*median.shape, 1))
    coeff = np.concatenate([ones, parts["coeff"].astype(np.float64)], axis=-1) * median[..., None]
    basis = np.concatenate([parts["mean"][None], parts["components"]]).astype(np.float64)
    return SspLibrary(
        wave=parts["wave"], mh=parts["mh"], age_gyr=parts["age_gyr"], afe=np.zeros(1), basis=basis,
        coeff=coeff[None], fwhm=float(meta["fwhm_angstrom"]), name=str(meta["name"]), meta=meta,
    )  # fmt: skip
