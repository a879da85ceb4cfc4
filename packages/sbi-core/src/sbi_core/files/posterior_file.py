"""posterior.nc: draws of every object in the layout that ArviZ and xarray read.

netCDF4 groups ``posterior``, ``prior``, ``observed_data``, ``sample_stats``; each parameter is a
variable with dims (chain, draw, object), the chain axis of length 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, RunDirectoryError
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors.space import ParameterSpace

__all__ = ["read_posterior", "read_samples", "stream_posterior", "write_posterior"]

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


def stream_posterior(
    path: Path,
    parts: Callable[[], Iterator[Mapping[str, NDArray[Any]]]],
    n: int,
    space: ParameterSpace,
    *,
    prior: F64,
    observables: Sequence[str],
    source: str,
) -> None:
    """Write the groups of :func:`write_posterior` object by object, in chunks of the parts.

    Parameters
    ----------
    path
        File name.
    parts
        Yields parts of the objects: ``id``, ``draws`` (parameter, draw, object),
        ``support_percentile``, ``outside_training``, ``x`` and, where there are some, ``x_err``
        and ``mask``.
    n
        Objects of all parts.
    space
        The parameters.
    prior
        Draws of the prior, (m, d).
    observables
        Names of the columns of x, where it is flat.
    source
        Where the objects come from.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    import h5netcdf

    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with h5netcdf.File(temporary, "w") as f:
            start = 0
            for part in parts():
                if start == 0:
                    _lay_out(f, part, n, space, prior, observables, source)
                _fill(f, part, slice(start, start + len(part["id"])), space)
                start += len(part["id"])
        with temporary.open("rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None
    finally:
        temporary.unlink(missing_ok=True)


def _lay_out(
    f: Any,
    part: Mapping[str, NDArray[Any]],
    n: int,
    space: ParameterSpace,
    prior: F64,
    observables: Sequence[str],
    source: str,
) -> None:
    """Create groups, dimensions and variables."""
    words = h5py.string_dtype()
    draws, rows = part["draws"].shape[1], part["draws"].shape[2]
    posterior, priors, observed, stats = (
        f.create_group(k) for k in ("posterior", "prior", "observed_data", "sample_stats")
    )
    posterior.dimensions = {"chain": 1, "draw": draws, "object": n}
    posterior.attrs["prior_hash"] = space.hash
    priors.dimensions = {"chain": 1, "draw": len(prior)}
    for group, length in ((posterior, draws), (priors, len(prior))):
        group.create_variable("chain", ("chain",), np.int64, data=np.zeros(1, np.int64))
        group.create_variable("draw", ("draw",), np.int64, data=np.arange(length))
    for k, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        variable = posterior.create_variable(
            name, ("chain", "draw", "object"), np.float32, chunks=(1, draws, rows)
        )
        variable.attrs["units"] = unit
        priors.create_variable(
            name, ("chain", "draw"), np.float32, data=prior[None, :, k].astype(np.float32)
        )
    stats.dimensions = {"object": n}
    stats.create_variable("support_percentile", ("object",), np.float32)
    stats.create_variable("outside_training", ("object",), np.int8)
    shape = part["x"].shape[1:]
    flat = len(shape) == 1 and len(observables) == shape[0]
    names = ("observable",) if flat else tuple(f"x{k + 1}" for k in range(len(shape)))
    observed.dimensions = {"object": n, **dict(zip(names, shape, strict=True))}
    observed.attrs["source"] = source
    if flat:
        labels = np.asarray(observables, dtype=object)
        observed.create_variable("observable", ("observable",), words, data=labels)
    for name, kind in (("x", np.float32), ("x_err", np.float32), ("mask", np.int8)):
        if name in part:
            observed.create_variable(name, ("object", *names), kind, chunks=(rows, *shape))
    for group in (posterior, observed, stats):
        group.create_variable("object", ("object",), words)


def _fill(f: Any, part: Mapping[str, NDArray[Any]], rows: slice, space: ParameterSpace) -> None:
    """Write the objects of one part."""
    for k, name in enumerate(space.names):
        f["posterior"].variables[name][0, :, rows] = part["draws"][k]
    for name in ("support_percentile", "outside_training"):
        variable = f["sample_stats"].variables[name]
        variable[rows] = part[name].astype(variable.dtype)
    for name in ("x", "x_err", "mask"):
        if name in part:
            variable = f["observed_data"].variables[name]
            variable[rows] = part[name].astype(variable.dtype)
    for group in ("posterior", "observed_data", "sample_stats"):
        f[group].variables["object"][rows] = part["id"].astype(object)
