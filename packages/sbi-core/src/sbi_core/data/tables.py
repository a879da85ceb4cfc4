"""Reading tables of objects: any format astropy reads, with errors that name row and column.

Column names are compared after normalisation: lower case, brackets dropped, ``/`` and blanks
become ``_``; ``[Mg/Fe]``, ``mg_fe`` and ``MG_FE`` are the same column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.gate import checked_file
from sbi_core.data.limits import check_names
from sbi_core.data.observations import FORMATS, Excluded, Observable, Observations, holds_arrays
from sbi_core.errors import (
    DataFileError,
    NothingObservedError,
    ObservationError,
    near_matches,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "ColumnReader",
    "normalise",
    "observations_from_columns",
    "read_observations",
    "read_table",
    "as_table",
    "renamed",
]

F64 = NDArray[np.float64]
# units that FITS does not know (dex) are read as they are written; we check units by ourselves
FITS_OPTIONS = {"unit_parse_strict": "silent"}
ID_NAMES = (
    "id", "object_id", "star_id", "source_id", "name", "apogee_id", "sobject_id", "objid",
    "specobjid", "targetid", "nsaid",
)  # fmt: skip
GROUP_NAMES = ("group", "galaxy", "cluster")


def normalise(name: str) -> str:
    """Return a column name in the form used for comparison."""
    # a byte order mark (Excel), or "#" (numpy.savetxt), stands before the first name of a header
    plain = name.strip().lstrip("\ufeff#").strip().lower()
    return re.sub(r"[\s/\-]+", "_", re.sub(r"[\[\]()]", "", plain))


def read_table(path: str | Path) -> Table:
    """Read a table; the format follows from the suffix.

    Raises
    ------
    DataFileError
        If the file is missing, empty, of an unknown format or unreadable, or has no rows.
    """
    from astropy.table import Table

    path = Path(path)
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        msg = f"observations file '{path}' does not exist{near_matches(path.name, siblings)}"
        raise DataFileError(msg)
    if path.is_dir():
        msg = f"'{path}' is a directory; pass one table file"
        raise DataFileError(msg)
    if not path.is_file():  # a pipe, such as <(...), or a device
        msg = f"'{path}' is not a regular file; write the table to a file first"
        raise DataFileError(msg)
    if path.stat().st_size == 0:
        msg = f"observations file '{path}' is empty"
        raise DataFileError(msg)
    suffix = ".fits.gz" if path.name.endswith(".fits.gz") else path.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join([*FORMATS, ".npz"])
        msg = f"unknown format '{path.suffix}' of '{path}'; known suffixes: {known}"
        raise DataFileError(msg)
    try:
        _check_bounds(path, suffix)
        options = FITS_OPTIONS if FORMATS[suffix] == "fits" else {}
        table = Table.read(path, format=FORMATS[suffix], **options)
    except DataFileError:
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        first = str(error).strip().split("\n")[0]
        msg = f"'{path}' cannot be read as {FORMATS[suffix]}: {first}"
        raise DataFileError(msg) from None
    if len(table) == 0:
        msg = f"observations file '{path}' has no rows"
        raise DataFileError(msg)
    return table


def as_table(source: Any) -> Table | None:
    """Return a table in memory as an astropy table, or None if ``source`` is not a table.

    Taken are astropy ``Table`` and ``QTable``, pandas ``DataFrame``, mappings of columns, and
    structured arrays.
    """
    from astropy.table import Table

    if isinstance(source, Table):
        return source
    if hasattr(source, "columns") and hasattr(source, "iloc"):  # pandas is not imported for this
        return Table.from_pandas(source.reset_index(drop=True))
    if isinstance(source, Mapping) or (isinstance(source, np.ndarray) and source.dtype.names):
        return Table(source)
    return None


def renamed(table: Table, columns: Mapping[str, str], source: str) -> Table:
    """Return the table with columns under the names that are looked for.

    Parameters
    ----------
    table
        The table.
    columns
        ``{name: column}``: the table's ``column`` is read as ``name``.
    source
        File name for messages.

    Raises
    ------
    ObservationError
        If the table has no such column.
    """
    if not columns:
        return table
    out = table.copy(copy_data=False)
    for name, column in columns.items():
        if column not in table.colnames:
            msg = f"{source}: no column '{column}'{near_matches(column, table.colnames)}"
            raise ObservationError(msg)
        wanted = normalise(name)
        for other in [c for c in out.colnames if normalise(c) == wanted and c != column]:
            out.remove_column(other)
        out.rename_column(column, name)
    return out


def _check_bounds(path: Path, suffix: str) -> None:
    """Raise DataFileError where the headers of a file promise what cannot be."""
    checked_file(path)
    if suffix in (".csv", ".tsv"):
        check_names(path, "," if suffix == ".csv" else "\t")


def _word(value: Any) -> str:
    """Return a cell as a word; HDF5 gives strings of variable length as bytes."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


class ColumnReader:
    """Columns of one table by normalised name, as float64 with NaN where masked.

    Parameters
    ----------
    table
        The table.
    source
        File name for messages.
    """

    def __init__(self, table: Table, source: str) -> None:
        self.table = table
        self.source = source
        self.names = {normalise(c): c for c in table.colnames}
        self._first = {normalise(c): c for c in reversed(table.colnames)}

    def find(self, names: Iterable[str]) -> str | None:
        """Return the table's column that matches one of ``names``, or None.

        Raises
        ------
        ObservationError
            If two columns have that name after normalisation.
        """
        for name in names:
            key = normalise(name)
            column: str | None = self.names.get(key)
            if column is None:
                continue
            other = self._first.get(key, column)
            if other != column:
                msg = f"{self.source}: columns '{other}' and '{column}' are the same; keep one"
                raise ObservationError(msg)
            return column
        return None

    def find_error(self, names: Iterable[str]) -> str | None:
        """Return the column with the standard deviation of the first match of ``names``."""
        forms = ("e_{}", "{}_err", "{}_error", "{}_sigma", "err_{}", "sigma_{}")
        return self.find(form.format(normalise(n)) for n in names for form in forms)

    def values(self, column: str, unit: str = "") -> F64:
        """Return a column as float64, converted to ``unit``; NaN where masked.

        Raises
        ------
        ObservationError
            If the column is not numeric, has more than one value per row, or has a unit that
            cannot be converted.
        """
        data = self.table[column]
        if getattr(data, "ndim", 1) != 1:
            msg = f"{self.source}: column '{column}' has {data.shape[1:]} values per row, needs one"
            raise ObservationError(msg)
        if data.dtype.kind not in "fiub":
            row = next((k for k, v in enumerate(data) if not _is_number(v)), 0)
            msg = f"{self.source}: column '{column}' is not numeric ('{data[row]}' in row {row})"
            raise ObservationError(msg)
        filled = np.ma.filled(np.ma.asarray(data).astype(np.float64), np.nan)
        return np.asarray(filled) * self._factor(column, unit)

    def _factor(self, column: str, unit: str) -> float:
        from astropy import units

        given = self.table[column].unit
        if given is None or str(given) in ("", unit):
            return 1.0
        try:
            with units.add_enabled_units([units.dex]):
                factor = float(units.Unit(str(given)).to(units.Unit(unit)))
        except (units.UnitsError, ValueError, TypeError):
            factor = 0.0
        if factor <= 0:  # magnitudes count backwards: -0.4 dex
            wanted = f"'{unit}'" if unit else "no unit"
            msg = f"{self.source}: column '{column}' has unit '{given}', expected {wanted}"
            raise ObservationError(msg)
        return factor

    def ids(self) -> tuple[list[str], str]:
        """Return an identifier per row, and the column it came from ("" for row numbers)."""
        column = self.find(ID_NAMES)
        if column is None:
            return [str(k) for k in range(len(self.table))], ""
        return [_word(v) for v in self.table[column]], column

    def groups(self) -> list[str]:
        """Return the group of each row; ``all`` when the table has no such column."""
        column = self.find(GROUP_NAMES)
        if column is None:
            return ["all"] * len(self.table)
        return [_word(v) for v in self.table[column]]


def read_observations(
    path: str | Path,
    observables: Sequence[Observable],
    *,
    default_error: float | None = None,
) -> Observations:
    """Read a table with one column per observable into observations.

    Parameters
    ----------
    path
        ECSV, FITS, CSV or any table that astropy reads, or what :meth:`Observations.write`
        wrote as npz or HDF5.
    observables
        What to look for; aliases count.
    default_error
        One standard deviation where the table has no error column.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    ObservationError
        If columns are missing or values cannot be used; the message names rows and columns.
    """
    if holds_arrays(path):
        return Observations.read(path)
    reader = ColumnReader(read_table(path), str(path))
    return some(observations_from_columns(reader, observables, default_error=default_error))


def some(observations: Observations) -> Observations:
    """Return the observations, or raise NothingObservedError when they hold no object."""
    if len(observations) == 0:
        why = "; ".join(observations.reasons) or "it holds no object"
        msg = f"{observations.source}: nothing to infer: {why}"
        raise NothingObservedError(msg)
    return observations


def observations_from_columns(
    reader: ColumnReader,
    observables: Sequence[Observable],
    *,
    default_error: float | None = None,
    context: NDArray[Any] | None = None,
    context_names: Sequence[str] = (),
) -> Observations:
    """Build observations from the columns of a table (see :func:`read_observations`)."""
    x, err, missing, notes = _observable_columns(reader, observables, default_error)
    if len(missing) == len(observables):
        wanted = ", ".join(o.name for o in observables)
        have = ", ".join(reader.table.colnames)
        msg = f"{reader.source}: none of the columns {wanted} found; the file has {have}"
        raise ObservationError(msg)
    mask = np.isfinite(x)
    keep = mask.any(1)
    if missing:
        notes.append(f"not in the table, treated as unobserved: {', '.join(missing)}")
    ids, _ = reader.ids()
    excluded = [Excluded(int(k), ids[k], "nothing_observed") for k in np.flatnonzero(~keep)]
    batch = Batch.of_arrays(
        x=np.where(mask, x, np.nan)[keep].astype(np.float32),
        x_err=None if err is None else np.where(mask, err, np.nan)[keep].astype(np.float32),
        mask=mask[keep],
        context=None if context is None else np.asarray(context)[keep].astype(np.float32),
    )
    return Observations.from_batch(
        batch,
        id=np.asarray(ids, np.str_)[keep].tolist(),
        group=np.asarray(reader.groups(), np.str_)[keep].tolist(),
        observables=tuple(observables),
        context_names=tuple(context_names),
        source=reader.source,
        notes=tuple(notes),
        excluded=tuple(excluded),
        rows=np.flatnonzero(keep),
    )


def _observable_columns(
    reader: ColumnReader, observables: Sequence[Observable], default_error: float | None
) -> tuple[F64, F64 | None, list[str], list[str]]:
    n = len(reader.table)
    x = np.full((n, len(observables)), np.nan)
    err = np.full_like(x, np.nan)
    missing: list[str] = []
    assumed: list[str] = []
    for k, o in enumerate(observables):
        names = (o.name, *o.aliases)
        column = reader.find(names)
        if column is None:
            missing.append(o.name)
            continue
        x[:, k] = reader.values(column, o.unit)
        _check_finite(reader.source, column, x[:, k])
        error_column = reader.find_error((column, *names))
        if error_column is None:
            assumed.append(o.name)
            err[:, k] = np.nan if default_error is None else default_error
        else:
            err[:, k] = reader.values(error_column, o.unit)
            _check_errors(reader.source, error_column, err[:, k], np.isfinite(x[:, k]))
    notes = []
    if assumed and default_error is not None:
        notes.append(f"no errors given, {default_error:g} assumed: {', '.join(assumed)}")
    if assumed and default_error is None and len(assumed) + len(missing) < len(observables):
        msg = f"{reader.source}: {', '.join(assumed)} have no error column, but others have one"
        raise ObservationError(msg)
    return x, None if default_error is None and assumed else err, missing, notes


def _check_finite(source: str, column: str, x: F64) -> None:
    bad = np.flatnonzero(np.isinf(x))
    if bad.size:
        msg = (
            f"{source}: '{column}' is {x[bad[0]]:g} in row {bad[0]} ({bad.size} row(s); rows "
            "count from 0); leave a value empty or NaN if it was not observed"
        )
        raise ObservationError(msg)


def _check_errors(source: str, column: str, err: F64, observed: NDArray[np.bool_]) -> None:
    bad = np.flatnonzero(observed & ~(np.isfinite(err) & (err > 0)))
    if bad.size:
        listed = ", ".join(str(r) for r in bad[:5]) + (", ..." if bad.size > 5 else "")
        msg = (
            f"{source}: error column '{column}' must be positive, but is {err[bad[0]]:g} in row "
            f"{bad[0]} ({bad.size} row(s): {listed}; rows count from 0)"
        )
        raise ObservationError(msg)
