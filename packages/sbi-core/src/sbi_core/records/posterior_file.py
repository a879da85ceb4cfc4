"""posterior.nc: draws of every object in the layout that ArviZ and xarray read.

netCDF4 groups ``posterior``, ``prior``, ``observed_data``, ``sample_stats``; each parameter is a
variable with dims (chain, draw, object), the chain axis of length 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sbi_core.errors import RunDirectoryError
from sbi_core.observations import Observations
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors import ParameterSpace

__all__ = ["read_posterior", "read_samples", "write_posterior"]

F64 = NDArray[np.float64]
_ENGINE: Literal["h5netcdf"] = "h5netcdf"


def write_posterior(
    path: Path,
    samples: PosteriorSamples,
    observations: Observations,
    support: F64,
    *,
    prior: F64,
    more: Mapping[str, xr.Dataset] | None = None,
) -> None:
    """Write the file atomically.

    Parameters
    ----------
    path
        File name.
    samples
        Draws of n objects.
    observations
        The objects.
    support
        Support percentile, (n,).
    prior
        Draws of the prior, (m, d).
    more
        Further groups, by name.
    """
    groups = {
        "posterior": samples.to_dataset(),
        "prior": _prior(samples, prior),
        "observed_data": _observed(observations),
        "sample_stats": _stats(samples, support),
        **(more or {}),
    }
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        for k, (name, dataset) in enumerate(groups.items()):
            mode: Literal["a", "w"] = "a" if k else "w"
            dataset.to_netcdf(temporary, mode=mode, group=name, engine=_ENGINE)
        with temporary.open("rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_posterior(path: str | Path, group: str = "posterior") -> xr.Dataset:
    """Return one group of the file."""
    return xr.load_dataset(path, group=group, engine=_ENGINE)


def read_samples(path: str | Path, space: ParameterSpace) -> PosteriorSamples:
    """Return the draws of the file.

    Raises
    ------
    RunDirectoryError
        If the file is missing, damaged, or holds other parameters.
    """
    try:
        found = read_posterior(path)
        values = np.stack([found[n].values[0] for n in space.names], axis=-1).astype(np.float64)
    except (OSError, KeyError, ValueError, IndexError) as error:
        msg = f"'{path}' is missing, damaged, or holds other parameters ({error})"
        raise RunDirectoryError(msg) from None
    return PosteriorSamples(values, space, np.asarray(found["object"].values, np.str_))


def _ids(samples: PosteriorSamples) -> NDArray[np.object_]:
    return samples.id.astype(object)


def _prior(samples: PosteriorSamples, prior: F64) -> xr.Dataset:
    variables = {
        name: (("chain", "draw"), prior[None, :, k].astype(np.float32))
        for k, name in enumerate(samples.names)
    }
    return xr.Dataset(variables, coords={"chain": [0], "draw": np.arange(len(prior))})


def _observed(observations: Observations) -> xr.Dataset:
    x = observations.batch.x
    names = [o.name for o in observations.observables]
    flat = x.ndim == 2 and len(names) == x.shape[1]
    dims = ("object", "observable") if flat else ("object", *(f"x{k}" for k in range(1, x.ndim)))
    variables = {"x": (dims, x.float().cpu().numpy())}
    if observations.batch.x_err is not None:
        variables["x_err"] = (dims, observations.batch.x_err.float().cpu().numpy())
    if observations.batch.mask is not None:
        variables["mask"] = (dims, observations.batch.mask.cpu().numpy().astype(np.int8))
    coords = {"object": observations.id.astype(object)}
    if flat:
        coords["observable"] = np.asarray(names, dtype=object)
    return xr.Dataset(variables, coords=coords, attrs={"source": observations.source})


def _stats(samples: PosteriorSamples, support: F64) -> xr.Dataset:
    flagged = np.array([bool(f) for f in samples.flags] or [False] * len(samples.id))
    return xr.Dataset(
        {
            "support_percentile": ("object", np.asarray(support, np.float32)),
            "outside_training": ("object", flagged.astype(np.int8)),
        },
        coords={"object": _ids(samples)},
    )
