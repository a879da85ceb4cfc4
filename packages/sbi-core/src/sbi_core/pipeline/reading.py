"""Objects from files and tables in memory: the one way for runs, catalogues and Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Column, Table

from sbi_core.components import Simulator
from sbi_core.data.arrays import names_of, numbers_of
from sbi_core.data.batch import Batch
from sbi_core.data.chunks import Slices, WholeObservations, is_table, open_slices, read_table
from sbi_core.data.gate import unchanged
from sbi_core.data.observations import Observations, holds_arrays
from sbi_core.data.reading import Reading, using
from sbi_core.data.tables import as_table, checked, prepared
from sbi_core.errors import ConfigError, DataFileError, ObservationError
from sbi_core.files.directory import RunDirectory

__all__ = ["objects_of", "open_objects", "read_objects", "written_beside"]


def read_objects(simulator: Simulator, source: Any, reading: Reading | None = None) -> Observations:
    """Return the objects of a file or of a table in memory, all at once.

    Parameters
    ----------
    simulator
        Knows what tables and files of its domain mean.
    source
        A file name, observations, a table (astropy, pandas, columns by name), or an array: a row
        per object, or images.

    Raises
    ------
    ConfigError
        If ``source`` is none of these.
    DataFileError, ObservationError
        If it cannot be read, or holds no object that can be inferred.
    """
    if isinstance(source, Observations):
        return source
    reading = reading or Reading()
    table = as_table(source)
    name = "table in memory"
    if table is None and not isinstance(source, (str, Path)):
        if np.ndim(source) > 2 and not simulator.columns_by_itself:  # images, sets
            batch = Batch(x=torch.as_tensor(np.asarray(numbers_of(source, "x")[0], np.float32)))
            return checked(Observations.from_batch(batch), reading.strict)
        table = _array(simulator, source)
    if table is None:
        if not isinstance(source, (str, Path)):
            msg = (
                f"observations must be a file name, a table (astropy, pandas, dict of columns), "
                f"an array or Observations, not {type(source).__name__}"
            )
            raise ConfigError(msg)
        source = Path(source).expanduser()
        name = str(source)
        with unchanged(source):
            if holds_arrays(source):
                return checked(Observations.read(source), reading.strict)
            if not reading.columns or simulator.columns_by_itself:
                with using(reading):
                    return checked(simulator.read_observations(source), reading.strict)
            ours = is_table(source)
            table = read_table(source, reading) if ours else simulator.read_table(source)
    if simulator.columns_by_itself:
        with using(reading):
            return checked(simulator.observations_of(table, name), reading.strict)
    return checked(simulator.observations_of(prepared(table, reading, name), name), reading.strict)


def _array(simulator: Simulator, source: Any) -> Table | None:
    """Return an array as a table: a column per observable, or one column x; None for others.

    Raises
    ------
    ObservationError
        If it has another number of columns than the simulator has observables.
    """
    ours = [o.name for o in simulator.observables]
    kinds = (list, tuple, int, float) if len(ours) == 1 else (list, tuple)
    if not hasattr(source, "__array__") and not isinstance(source, kinds):
        return None
    unit = getattr(source, "unit", None)
    if np.ndim(source) == 0 and len(ours) == 1:
        source = np.reshape(np.asarray(source), 1)
    one = np.ndim(source) == 1 and len(ours) != 1  # else every number is an object
    named = names_of(source) if np.ndim(source) == 1 else ()
    if named and (one or ours[0] in named):  # a row of a pandas frame, a DataArray of columns
        return as_table(dict(zip(named, np.asarray(source).tolist(), strict=True)))
    values, names, _ = numbers_of(source, "x")
    columns = list(names) or ours
    if not columns:
        x = np.squeeze(values, 1) if np.ndim(source) == 1 else values
        return Table({"x": Column(x, unit=unit)})
    values = values.T if one else values
    if values.shape[1:] != (len(columns),):
        msg = (
            f"x has shape {np.shape(source)}, but '{simulator.name}' reads {len(columns)} columns "
            f"({', '.join(columns[:20])})"
        )
        raise ObservationError(msg)
    return Table(values, names=columns, units=None if unit is None else [unit] * len(columns))


def written_beside(observations: Observations, directory: RunDirectory) -> str:
    """Write observations in memory beside the run directory; return the name of the file."""
    out = directory.given if directory.given.name else directory.root.resolve()
    given = out.with_name(f"{out.name}-observations.npz")  # everything: context and truth, too
    path = directory.path(given)
    path.parent.mkdir(parents=True, exist_ok=True)
    observations.write(path, overwrite=True)
    return str(given)


def open_objects(
    simulator: Simulator, source: Any, rows: int, reading: Reading | None = None
) -> Slices:
    """Return the chunks of a source; files are read in parts where rows are objects."""
    if isinstance(source, (str, Path)):
        source = Path(source).expanduser()
        if holds_arrays(source) or (simulator.rows_are_objects and source.suffix.lower() != ".npz"):
            with unchanged(source):
                return open_slices(source, rows, reading)
    return WholeObservations.of(read_objects(simulator, source, reading), rows)


def objects_of(simulator: Simulator, source: Slices, chunk: int) -> Observations:
    """Return the objects of a chunk, with rows and excluded rows counted from its first row."""
    part = source.read(chunk)
    if isinstance(part, Observations):
        return part
    start = source.bounds(chunk)[0]
    name = str(source.path)
    reading = replace(source.reading, start=start)
    try:
        objects = simulator.observations_of(prepared(part, reading, name), name)
        return checked(objects, strict=True) if reading.strict and len(objects) else objects
    except (ObservationError, DataFileError) as error:
        if not start:
            raise
        msg = f"{error} (rows of this message count from row {start} of the file)"
        raise type(error)(msg) from None
