"""Objects from files and tables in memory: the one way for runs, catalogues and Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbi_core.components import Simulator
from sbi_core.data.chunks import Slices, WholeObservations, open_slices
from sbi_core.data.observations import Observations, holds_arrays
from sbi_core.data.tables import as_table, renamed, some
from sbi_core.errors import ConfigError, DataFileError, ObservationError

__all__ = ["objects_of", "open_objects", "read_objects"]


def read_objects(
    simulator: Simulator, source: Any, columns: Mapping[str, str] | None = None
) -> Observations:
    """Return the objects of a file or of a table in memory, all at once.

    Parameters
    ----------
    simulator
        Knows what tables and files of its domain mean.
    source
        A file name, observations, or a table (astropy, pandas, columns by name).
    columns
        ``{name: column}``: the table's ``column`` is read as ``name``.

    Raises
    ------
    ConfigError
        If ``source`` is none of these.
    DataFileError, ObservationError
        If it cannot be read, or holds no object that can be inferred.
    """
    if isinstance(source, Observations):
        return source
    table = as_table(source)
    name = "table in memory"
    if table is None:
        if not isinstance(source, (str, Path)):
            msg = (
                f"observations must be a file name, a table (astropy, pandas, dict of columns) or "
                f"Observations, not {type(source).__name__}"
            )
            raise ConfigError(msg)
        source = Path(source).expanduser()
        name = str(source)
        if holds_arrays(source):
            return some(Observations.read(source))
        if not columns:
            return some(simulator.read_observations(source))
        table = simulator.read_table(source)
    return some(simulator.observations_of(renamed(table, columns or {}, name), name))


def open_objects(
    simulator: Simulator, source: Any, rows: int, columns: Mapping[str, str] | None = None
) -> Slices:
    """Return the chunks of a source; files are read in parts where rows are objects."""
    if isinstance(source, (str, Path)):
        source = Path(source).expanduser()
        if _is_cut(simulator, source):
            return open_slices(source, rows)
    return WholeObservations.of(read_objects(simulator, source, columns), rows)


def _is_cut(simulator: Simulator, path: Path) -> bool:
    """Return whether a file can be read in parts."""
    return holds_arrays(path) or (simulator.rows_are_objects and path.suffix.lower() != ".npz")


def objects_of(
    simulator: Simulator, source: Slices, chunk: int, columns: Mapping[str, str]
) -> Observations:
    """Return the objects of a chunk, with rows and excluded rows counted from its first row."""
    part = source.read(chunk)
    if isinstance(part, Observations):
        return part
    start = source.bounds(chunk)[0]
    name = str(source.path)
    try:
        return simulator.observations_of(renamed(part, columns, name), name)
    except (ObservationError, DataFileError) as error:
        if not start:
            raise
        msg = f"{error} (rows of this message count from row {start} of the file)"
        raise type(error)(msg) from None
