"""posterior.nc: draws of every object in the layout that ArviZ and xarray read.

netCDF4 groups ``posterior``, ``derived``, ``prior``, ``observed_data`` and ``sample_stats``; each
parameter and derived quantity is a variable with dims (chain, draw, object), the chain axis of
length 1. The file is written in parts: nothing but the current part is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sbi_core.data.gate import checked_file
from sbi_core.data.observations import Observations
from sbi_core.data.writing import harmless, written
from sbi_core.errors import ConfigError, DataFileError, RunDirectoryError
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors.space import ParameterSpace

__all__ = ["Part", "read_posterior", "read_samples", "write_posterior"]

F64 = NDArray[np.float64]
_ENGINE: Literal["h5netcdf"] = "h5netcdf"
_OBSERVED = (("x", np.float32), ("x_err", np.float32), ("mask", np.int8))


@dataclass(frozen=True)
class Part:
    """Some objects of the file: their draws and the data these are conditioned on."""

    samples: PosteriorSamples
    observed: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, samples: PosteriorSamples, objects: Observations) -> Part:
        """Return the part that holds the draws of these objects."""
        arrays = objects.batch.numpy()
        return cls(samples, {name: arrays[name] for name, _ in _OBSERVED if name in arrays})


def write_posterior(
    path: Path,
    parts: Callable[[], Iterator[Part]],
    n: int,
    *,
    prior: F64,
    observables: tuple[str, ...] = (),
    source: str = "",
) -> None:
    """Write the file, atomically.

    Parameters
    ----------
    path
        File name.
    parts
        Yields the objects, some at a time; all parts have the same quantities.
    n
        Objects of all parts.
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
    try:
        with written(path) as temporary, h5netcdf.File(temporary, "w") as f:
            start = 0
            for part in parts():
                if start == 0:
                    _lay_out(f, part, n, prior, observables, source)
                stop = start + len(part.samples.id)
                _fill(f, part, slice(start, stop))
                start = stop
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None


def read_posterior(path: str | Path, group: str = "posterior") -> xr.Dataset:
    """Return one group of the file."""
    return xr.load_dataset(checked_file(path), group=group, engine=_ENGINE)


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
    except (OSError, KeyError, ValueError, IndexError, DataFileError) as error:
        msg = f"'{path}' is missing, damaged, or holds other parameters ({error})"
        raise RunDirectoryError(msg) from None
    return PosteriorSamples(values, space, np.asarray(found["object"].values, np.str_))


def _drawn(samples: PosteriorSamples) -> dict[str, tuple[str, F64, str]]:
    """Return group, draws (draw, object, ...) and unit of every quantity."""
    names = zip(samples.names, samples.space.units, strict=True)
    parameters = {
        name: ("posterior", samples.values[:, :, k], unit) for k, (name, unit) in enumerate(names)
    }
    derived = {
        name: ("derived", draws, samples.units.get(name, ""))
        for name, draws in samples.derived.items()
    }
    return parameters | derived


def _statistics(samples: PosteriorSamples) -> dict[str, NDArray[Any]]:
    """Return the numbers per object that are not draws."""
    outside = np.array(["outside_training" in f.split(",") for f in samples.flags], np.int8)
    numbers = {k: np.asarray(v) for k, v in samples.columns.items()}
    words = {"flags": np.asarray(samples.flags, dtype=object)}
    return {**numbers, **words, "outside_training": outside}


def _lay_out(
    f: Any, part: Part, n: int, prior: F64, observables: tuple[str, ...], source: str
) -> None:
    """Create groups, dimensions and variables; write the prior."""
    samples = part.samples
    words = h5py.string_dtype()
    draws, rows = samples.values.shape[:2]
    kinds = ["posterior", *(["derived"] if samples.derived else [])]
    for kind in kinds:
        group = f.create_group(kind)
        group.dimensions = {"chain": 1, "draw": draws, "object": n}
        _coordinates(group, draws)
        group.create_variable("object", ("object",), words)
    f["posterior"].attrs["prior_hash"] = samples.space.hash
    for name, (kind, values, unit) in _drawn(samples).items():
        dims, shape = ("chain", "draw", "object"), (1, draws, rows)
        if values.ndim == 3:
            f[kind].dimensions.setdefault("member", values.shape[2])
            dims, shape = (*dims, "member"), (*shape, values.shape[2])  # type: ignore[assignment]
        f[kind].create_variable(name, dims, np.float32, chunks=shape).attrs["units"] = unit
    priors = f.create_group("prior")
    priors.dimensions = {"chain": 1, "draw": len(prior)}
    _coordinates(priors, len(prior))
    for k, name in enumerate(samples.names):
        values = prior[None, :, k].astype(np.float32)
        priors.create_variable(name, ("chain", "draw"), np.float32, data=values)
    stats = f.create_group("sample_stats")
    stats.dimensions = {"object": n}
    for name, column in _statistics(samples).items():
        kinds_of = {"O": words, "U": words, "f": np.float32}
        stats.create_variable(name, ("object",), kinds_of.get(column.dtype.kind, column.dtype))
    observed = f.create_group("observed_data")
    shape_x = part.observed["x"].shape[1:]
    flat = len(shape_x) == 1 and len(observables) == shape_x[0]
    axes = ("observable",) if flat else tuple(f"x{k + 1}" for k in range(len(shape_x)))
    observed.dimensions = {"object": n, **dict(zip(axes, shape_x, strict=True))}
    observed.attrs["source"] = source
    if flat:
        labels = np.asarray(observables, dtype=object)
        observed.create_variable("observable", ("observable",), words, data=labels)
    for name, number in _OBSERVED:
        if name in part.observed:
            observed.create_variable(name, ("object", *axes), number, chunks=(rows, *shape_x))
    for group in (observed, stats):
        group.create_variable("object", ("object",), words)


def _coordinates(group: Any, draws: int) -> None:
    group.create_variable("chain", ("chain",), np.int64, data=np.zeros(1, np.int64))
    group.create_variable("draw", ("draw",), np.int64, data=np.arange(draws))


def _fill(f: Any, part: Part, rows: slice) -> None:
    """Write the objects of one part."""
    for name, (kind, values, _) in _drawn(part.samples).items():
        f[kind].variables[name][0, :, rows] = values.astype(np.float32)
    for name, column in _statistics(part.samples).items():
        value = harmless(column, ".nc").astype(object) if column.dtype.kind == "U" else column
        f["sample_stats"].variables[name][rows] = value
    for name, number in _OBSERVED:
        if name in part.observed:
            f["observed_data"].variables[name][rows] = part.observed[name].astype(number)
    ids = harmless(part.samples.id, ".nc").astype(object)
    for kind in ("posterior", "derived", "observed_data", "sample_stats"):
        if kind in f:
            f[kind].variables["object"][rows] = ids
