"""Catalogues of posterior draws in the layout of the SEDflow catalogue of NSA galaxies (HDF5).

One data set per quantity, (galaxies, draws): ``log_mstar``, ``log_sfr_1gyr``, ``log_Z_MW``,
``beta1`` ..., ``fburst``, ``tburst``, ``log_gamma1``, ``log_gamma2``, ``tau_bc``, ``tau_ism``,
``n_dust``; one value per galaxy: ``NSAID``, ``mag_b`` and ``sigma_b`` of every band, and
``sedflow``, False where the draws are from MCMC. The published file has 10,000 draws of 33,884
galaxies.

References:
    | Hahn & Melchior 2022, ApJ 938, 11; data: doi:10.5281/zenodo.6337945
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from sbi_core import DataFileError, PosteriorSamples, open_hdf5, written

__all__ = ["Catalogue", "read_catalogue", "write_catalogue"]

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
_LOG = {"log_sfr_1gyr": "sfr_1gyr", "log_Z_MW": "z_mw"}
_NAMES = {"log_mstar": "logmstar"}
_LEAST = 1e-30  # of a rate or metallicity with a logarithm
_AB_NANOMAGGY = 22.5
_NEEDED = ("log_mstar", "NSAID")


@dataclass(frozen=True)
class Catalogue:
    """Draws of the galaxies of a catalogue.

    Parameters
    ----------
    id : (n,)
        Identifiers.
    draws
        Quantities by name, (n, S) each.
    magnitude, error
        AB magnitudes and their errors by band, (n,) each; NaN if not observed or negative.
    network : (n,)
        False where the draws are from MCMC.
    """

    id: NDArray[np.str_]
    draws: Mapping[str, NDArray[np.floating]]
    magnitude: Mapping[str, F64]
    error: Mapping[str, F64]
    network: NDArray[np.bool_]


def write_catalogue(parts: Iterable[PosteriorSamples], path: str | Path) -> int:
    """Write posteriors part by part, so that memory does not limit their number.

    Parameters
    ----------
    parts
        Results of ``run.infer``, with equal numbers of draws.
    path
        HDF5 file to write; it gets its name when it is complete.

    Returns
    -------
    int
        Number of galaxies.
    """
    total = 0
    with written(path) as temporary, h5py.File(temporary, "w") as file:
        for samples in parts:
            for name, values in _columns(samples).items():
                if name not in file:
                    kind = h5py.string_dtype() if values.dtype.kind == "U" else values.dtype
                    shape = (0, *values.shape[1:])
                    file.create_dataset(name, shape, kind, maxshape=(None, *values.shape[1:]))
                file[name].resize(total + len(values), axis=0)
                file[name][total:] = values.astype(object) if values.dtype.kind == "U" else values
            total += len(samples.id)
    return total


def read_catalogue(path: str | Path) -> Catalogue:
    """Read a catalogue with that layout, the published one or one of this package.

    Raises
    ------
    DataFileError
        If it is not such a file.
    """
    try:
        with open_hdf5(path) as file:
            missing, names = [n for n in _NEEDED if n not in file], sorted(file)
            arrays = {} if missing else {name: file[name][...] for name in file}
    except OSError as error:
        msg = f"'{path}' cannot be read as HDF5: {error}"
        raise DataFileError(msg) from None
    if missing:
        listed = ", ".join(names[:8]) or "nothing"
        msg = (
            f"'{path}' is not a catalogue of SEDflow: it lacks {' and '.join(missing)} "
            f"(it holds {listed})"
        )
        raise DataFileError(msg)
    number = arrays.pop("NSAID")
    name = [v.decode() if isinstance(v, bytes) else str(v) for v in number.tolist()]
    network = arrays.pop("sedflow", np.ones(len(name), bool))
    bands = {
        kind: {
            n.removeprefix(kind): np.asarray(v, np.float64)
            for n, v in arrays.items()
            if n.startswith(kind)
        }
        for kind in ("mag_", "sigma_")
    }
    draws = {n: v for n, v in arrays.items() if v.ndim == 2}
    return Catalogue(
        np.asarray(name, np.str_), draws, bands["mag_"], bands["sigma_"], network.astype(bool)
    )


def _columns(samples: PosteriorSamples) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {
        "NSAID": np.asarray(samples.id, np.str_),
        "sedflow": np.asarray(samples.columns["method"]) != "emcee",
    }
    for name in ("log_mstar", *_LOG, *samples.space.names[1:]):
        if name.startswith("gamma"):
            columns[f"log_{name}"] = _log(samples[name])
        elif name in _LOG:
            columns[name] = _log(samples[_LOG[name]])
        else:
            columns[name] = np.asarray(samples[_NAMES.get(name, name)].T, np.float32)
    for label, flux in samples.labels.items():
        band = label.removeprefix("nmgy_")
        if label.startswith("nmgy_") and f"nmgy_err_{band}" in samples.labels:
            error = np.asarray(samples.labels[f"nmgy_err_{band}"], np.float64)
            value = np.where(np.asarray(flux) > 0, np.asarray(flux, np.float64), np.nan)
            columns[f"mag_{band}"] = _AB_NANOMAGGY - 2.5 * np.log10(value)
            columns[f"sigma_{band}"] = 2.5 / np.log(10) * error / value
    return columns


def _log(values: F64) -> F32:
    return np.log10(np.maximum(values, _LEAST)).T.astype(np.float32)
