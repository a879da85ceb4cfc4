"""Tables of objects in memory: their columns by name, and errors that name row and column.

Files are read in :mod:`sbi_core.data.chunks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from astropy import units
from astropy.table import Row, Table
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.observations import (
    Excluded,
    Observable,
    Observations,
    repeated,
)
from sbi_core.data.reading import GROUP_NAMES, ID_NAMES, Reading, current, normalise
from sbi_core.errors import NothingObservedError, ObservationError, counted, near_matches

__all__ = [
    "MISSING",
    "ColumnReader",
    "as_table",
    "checked",
    "observations_from_columns",
    "prepared",
    "unit_factor",
]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
#: Numbers that mark missing values in most surveys.
MISSING = (
    -999.0, -9999.0, -999.99, -9999.99, -99999.0, -32768.0, 1e20, -1e20, 1e30, -1e30,
)  # fmt: skip
NO_NUMBER = {
    "", "n/a", "na", "<na>", "nan", "null", "none", "-", "--", "---", "...", "\\n", "?", "–", "—",
    ".", "indef", "masked", "missing", "nodata", "no data", "#n/a", "#value!", "#div/0!",
    *("*" * n for n in range(1, 13)),  # a number too long for its Fortran format
}  # fmt: skip
UNGROUPED = "ungrouped"
_ALIKE = 4  # values that hardly agree by chance
_SMALLEST, _LARGEST = 1e-37, 3e38  # in single precision
_READING = "sbi_core_reading"  # keys of table.meta
_NOTES = "sbi_core_notes"
_ERRORS = (
    "e_{}", "{}_err", "{}_error", "{}_sigma", "err_{}", "sigma_{}", "{}err", "{}_std", "sig_{}",
    "err{}", "sigma{}", "sig{}", "{}_unc", "{}_uncertainty", "{}_sd", "{}_e", "unc_{}", "delta_{}",
    "e{}",
)  # fmt: skip
_SIGNED = tuple((f"+{form}", form) for form in ("e_{}", "err_{}")) + (("{}_err+", "{}_err"),)
_SIDES = (
    ("up", "low"), ("up", "lo"), ("upper", "lower"), ("hi", "lo"), ("high", "low"), ("1", "2"),
    ("plus", "minus"), ("pos", "neg"), ("p", "m"), ("u", "l"),
)  # fmt: skip
_TWO_ERRORS = tuple(  # upper and lower error
    (f"{form}{sep}{upper}", f"{form}{sep}{lower}")
    for form in ("{}_err", "e_{}", "{}_error", "err_{}", "sigma_{}")
    for upper, lower in _SIDES
    for sep in ("_", "")
) + (("{}_plus", "{}_minus"), ("e_up_{}", "e_lo_{}"), ("e_up_{}", "e_low_{}"))
_LIMITS = (  # which values are limits
    "l_{}", "ul_{}", "lim_{}", "limit_{}", "uplim_{}", "upper_limit_{}", "{}_lim", "{}_limit",
    "{}_ul", "{}_uplim", "{}_upper_limit", "{}_upperlimit",
)  # fmt: skip
_SIGNS = ("<", ">", "≤", "≥")  # of limits
_IS_LIMIT = {"u", "l", "ul", "ll", "1", "-1", "t", "true", "y", "yes", "lim", "limit", "upper",
             "lower", "upper limit", "lower limit"}  # fmt: skip
_NO_LIMIT = {"", "0", "f", "false", "n", "no", "none", "-", "=", "d", "det", "detection"}
_ROUNDED = re.compile(r"\d\.\d+[eE]\+?(1[6-9]|2\d)")  # a large identifier as a float
_EXPONENT = re.compile(r"(?<=[\d.])[dD](?=[+-]?\d+$)")  # of Fortran
_DEX = re.compile(r"(dex\(|\[)?(-*|sun|solar)(\)|\])?|dex", re.IGNORECASE)


# -- tables in memory -----------------------------------------------------------------------


def as_table(source: Any) -> Table | None:
    """Return a table in memory as a new astropy table, or None if ``source`` is not a table.

    Taken are astropy ``Table``, ``QTable`` and ``Row``, pandas ``DataFrame``, mappings of columns
    or single values, and structured arrays.

    Raises
    ------
    ObservationError
        If columns differ in length, or there are no rows.
    """
    if isinstance(source, (Table, Row)):
        table = Table(source, copy=False)
    elif hasattr(source, "columns") and hasattr(source, "iloc"):  # pandas is not imported for this
        table = _from_pandas(source)
    elif isinstance(source, Mapping):
        table = _from_mapping(source)
    elif isinstance(source, np.ndarray) and source.dtype.names:
        table = Table(np.atleast_1d(source))
    else:
        return None
    if len(table) == 0:
        msg = "table in memory has no rows"
        raise ObservationError(msg)
    return table


def _from_pandas(frame: Any) -> Table:
    table = Table()
    index = frame.index
    levels = [index.get_level_values(k) for k in range(index.nlevels)]
    named = {str(v.name): v.to_series() for v in levels if v.name is not None}
    names = {normalise(str(name)) for name in (*named, *frame.columns)}
    if index.nlevels == 1 and index.dtype.kind == "O" and not named and not names & {*ID_NAMES}:
        named = {"id": index.to_series()}
    columns = named | {str(name): frame.iloc[:, k] for k, name in enumerate(frame.columns)}
    if len(set(map(str, frame.columns))) < len(frame.columns):
        twice = next(c for c in frame.columns if list(frame.columns).count(c) > 1)
        msg = f"table in memory: column '{twice}' appears more than once; keep one"
        raise ObservationError(msg)
    for name, series in columns.items():
        null = series.isna().to_numpy(dtype=bool)
        if series.dtype.kind in "fiub":  # of nullable types, too
            kind = {"f": float, "b": bool}.get(series.dtype.kind, np.int64)
            values = np.zeros(len(series), kind)
            values[~null] = series[~null].to_numpy(kind)
            table[name] = np.ma.MaskedArray(values, null) if null.any() else values
        else:
            table[name] = _objects([None if m else v for v, m in zip(series, null, strict=True)])
    return table


def _from_mapping(source: Mapping[Any, Any]) -> Table:
    columns = {}
    for name, value in source.items():
        if hasattr(value, "detach"):  # a tensor
            value = value.detach().cpu().numpy()
        if not hasattr(value, "dtype"):
            single = isinstance(value, (str, bytes)) or np.ndim(value) == 0
            cells = [value] if single else value
            mixed = any(v is None or isinstance(v, str) for v in cells)
            value = _objects(cells) if mixed else np.ma.asarray(cells)
            value = value.reshape(()) if single else value
        columns[str(name)] = value
    lengths: dict[str, int] = {name: len(v) for name, v in columns.items() if v.ndim}
    n = max(lengths.values(), default=min(len(columns), 1))
    if set(lengths.values()) - {n}:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        msg = f"table in memory: columns differ in length: {listed}"
        raise ObservationError(msg)
    return Table({k: v if v.ndim else v.repeat(n) for k, v in columns.items()}, copy=False)


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    """Return objects of any kind as words, masked where there is none."""
    values = list(values)
    null = np.asarray([v is None or v is np.ma.masked or v != v for v in values], bool)  # noqa: PLR0124
    words = ["" if m else word(v) for v, m in zip(values, null, strict=True)]
    return np.ma.MaskedArray(np.asarray(words, np.str_), null)


def prepared(table: Table, reading: Reading, source: str) -> Table:
    """Return the table with columns under the names that are looked for, and the options.

    Errors and limit flags of a column (``e_x``, ``x_err``, ``l_x``) are renamed with it.

    Raises
    ------
    ObservationError
        If the table has no column of ``reading.columns``, or one is read under two names.
    """
    by_column: dict[str, str] = {}
    for name, column in reading.columns.items():
        if column not in table.colnames:
            msg = f"{source}: no column '{column}'{near_matches(column, table.colnames)}"
            raise ObservationError(msg)
        if column in by_column:
            msg = f"{source}: column '{column}' is read as both '{by_column[column]}' and '{name}'"
            raise ObservationError(msg)
        by_column[column] = name
    wanted = [normalise(name) for name in by_column.values()]
    twice = next((name for name in wanted if wanted.count(name) > 1), None)
    if twice is not None:
        same = " and ".join(f"'{c}'" for c, name in by_column.items() if normalise(name) == twice)
        msg = f"{source}: {same} are both read as '{twice}'; keep one"
        raise ObservationError(msg)
    by_column |= _beside(table.colnames, by_column)
    wanted = [normalise(name) for name in by_column.values()]
    kept = [c for c in table.colnames if c in by_column or normalise(c) not in wanted]
    out = Table([table[c] for c in kept], names=[by_column.get(c, c) for c in kept], copy=False)
    out.meta = {**table.meta, _READING: reading}
    return out


def _beside(columns: Sequence[str], by_column: Mapping[str, str]) -> dict[str, str]:
    """Return new names of the errors and limit flags of columns that get another name."""
    forms = (*_ERRORS, *(form for pair in (*_SIGNED, *_TWO_ERRORS) for form in pair), *_LIMITS)
    wanted = {normalise(name) for name in by_column.values()}
    names = {}
    for column, name in by_column.items():
        of_form = {normalise(form.format(column)): form.format(name) for form in forms}
        for other in columns:
            new = of_form.get(normalise(other))
            if new is not None and other not in by_column and normalise(new) not in wanted:
                names[other] = f"E{new[1:]}" if other.startswith("E_") else new
    return names


def noted(table: Table, note: str) -> None:
    """Record a note about how a table was read; :class:`ColumnReader` passes it on."""
    table.meta[_NOTES] = (*table.meta.get(_NOTES, ()), note)


def word(value: Any) -> str:
    """Return a cell as a word; HDF5 gives strings as bytes, pandas gives integers as floats."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def words(column: Any) -> list[str]:
    """Return the cells of a column as words; "" where masked or missing."""
    null = np.ma.getmaskarray(np.ma.asarray(column)).reshape(len(column))
    cells = [
        "" if m else word(v) for v, m in zip(np.asarray(column).reshape(-1), null, strict=True)
    ]
    return ["" if c.lower() in NO_NUMBER else c for c in cells]


def is_unit(text: str) -> bool:
    """Return whether a word is a unit, as catalogues write them."""
    if _DEX.fullmatch(text) or re.fullmatch(r'"?[hd]:m:s"?', text):
        return True
    try:
        return isinstance(units.Unit(text), units.UnitBase)
    except (ValueError, TypeError):
        return False


def unit_factor(given: str, wanted: str, what: str) -> float:
    """Return the factor from one unit to another; 1 where none is given.

    Raises
    ------
    ObservationError
        If it cannot be converted; the message begins with ``what``.
    """
    if given in ("", wanted) or (wanted in ("", "dex") and _DEX.fullmatch(given)):
        return 1.0  # CDS and VizieR write [-], [Sun] or --- for dex
    try:
        with units.add_enabled_units([units.dex]):
            factor = float(units.Unit(given).to(units.Unit(wanted)))
    except (units.UnitsError, ValueError, TypeError):
        factor = 0.0
    if factor <= 0:  # magnitudes count backwards: -0.4 dex
        expected = f"'{wanted}'" if wanted else "no unit"
        msg = f"{what} has unit '{given}', expected {expected}"
        raise ObservationError(msg)
    return factor


# -- columns ----------------------------------------------------------------------------------


class ColumnReader:
    """Columns of one table by normalised name, as float64 with NaN where missing.

    Missing are masked and empty cells, words such as ``N/A``, the numbers ``missing``, and limits:
    ``<`` or ``>`` in the cell itself or in a column such as ``l_NAME``. They are counted in
    ``notes``.

    Parameters
    ----------
    table
        The table; it is not changed.
    source
        File name for messages.
    missing
        Numbers that mark missing values, unless the user names others.

    Attributes
    ----------
    notes
        Sentences on what was read otherwise than it is written.
    excluded
        Rows that cannot be used: row to reason and explanation (see :meth:`leave_out`).
    chosen
        ``{name: column}`` that the user gave, names normalised.
    used
        Columns that were read.
    default_unit
        Unit of columns without one, or "".
    start
        Number of the first row, where the table is a part of a file.
    """

    def __init__(self, table: Table, source: str, missing: Sequence[float] = MISSING) -> None:
        self.table = table.copy(copy_data=False)
        self.source = source
        reading: Reading = table.meta.get(_READING) or current()
        self.strict = reading.strict
        self.missing = tuple(missing if reading.missing is None else reading.missing)
        self.notes: list[str] = list(table.meta.get(_NOTES, ()))
        self.excluded: dict[int, tuple[str, str]] = {}
        self.chosen = {normalise(name): column for name, column in reading.columns.items()}
        self.used: set[str] = set()
        self.names = {normalise(c): c for c in table.colnames}
        self._first = {normalise(c): c for c in reversed(table.colnames)}
        self.start = reading.start
        self._numbers: dict[str, tuple[Any, F64]] = {}
        self.default_unit = reading.units.get("", "")
        for name, unit in reading.units.items():
            if name:
                self._set_unit(name, unit)

    def _set_unit(self, name: str, unit: str) -> None:
        """Give a column, by its name or the one it is read as, the unit that the user names."""
        read_as = {column: key for key, column in self.chosen.items()}
        column = self.names.get(read_as.get(name, normalise(name)))
        if column is None:
            near = near_matches(name, self.table.colnames)
            msg = f"{self.source}: no column '{name}', whose unit is given{near}"
            raise ObservationError(msg)
        with catch_warnings():
            simplefilter("ignore", units.UnitsWarning)  # of several slashes
            self.table[column].unit = units.Unit(unit, parse_strict="silent")

    def unit_of(self, column: str) -> str:
        """Return the unit of a column: the one it has, or that of columns without one; or ""."""
        given = self.table[column].unit
        return ("" if given is None else str(given).strip()) or self.default_unit

    def find(self, names: Iterable[str]) -> str | None:
        """Return the table's column that matches one of ``names``, or None.

        ``E_x`` and ``e_x`` are upper and lower error of x: a column with their mean.

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
            if other == column:
                return column
            upper, lower = sorted((other, column))
            if upper.startswith("E_") and lower.startswith("e_"):
                return self._mean(upper, lower)
            msg = f"{self.source}: columns '{other}' and '{column}' are the same; keep one"
            raise ObservationError(msg)
        return None

    def find_error(self, names: Iterable[str]) -> str | None:
        """Return the column with the standard deviation of the first match of ``names``.

        Upper and lower error are replaced by their mean, with a note.
        """
        names = [normalise(n) for n in names]
        two = self._two_errors(names, _SIGNED)
        one = two or self.find(form.format(n) for n in names for form in _ERRORS)
        return one or self._two_errors(names, _TWO_ERRORS)

    def _two_errors(self, names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> str | None:
        for forms in pairs:
            for n in names:
                upper, lower = (self.find([form.format(n)]) for form in forms)
                if upper is not None and lower is not None and upper != lower:
                    return self._mean(upper, lower)
        return None

    def _mean(self, upper: str, lower: str) -> str:
        """Add a column with the mean of upper and lower error; return its name."""
        name = f"mean of {upper} and {lower}"
        if name not in self.table.colnames:
            unit = self.table[lower].unit
            wanted = "" if unit is None else str(unit)
            sizes = [np.abs(self.values(c, wanted)) for c in (upper, lower)]
            one = np.isnan(sizes).any(0)
            self.add(name, np.where(one, np.fmax(*sizes), np.mean(sizes, 0)))
            self.table[name].unit = unit
            note = f"asymmetric errors '{upper}' and '{lower}': their mean is used"
            self.notes.append(note)
            one &= ~np.isnan(sizes).all(0)
            self._count(int(one.sum()), f"with one of '{upper}' and '{lower}', which is used")
        return name

    def written(self, column: str) -> str:
        """Return the name that a column has in the file, before ``--column`` renamed it."""
        return self.chosen.get(normalise(column), column)

    def add(self, name: str, values: Any) -> None:
        """Add a column, or replace one."""
        self.table[name] = values
        self.names[normalise(name)] = self._first[normalise(name)] = name

    def values(self, column: str, unit: str = "") -> F64:
        """Return a column as float64, converted to ``unit``; NaN where missing.

        Rows with a word instead of a number are left out (see :meth:`leave_out`).

        Raises
        ------
        ObservationError
            If the column has more than one value per row, or a unit that cannot be converted.
        """
        return self.numbers(column) * self._factor(column, unit)

    def numbers(self, column: str) -> F64:
        """Return a column as float64 in the unit of the table (see :meth:`values`)."""
        data = self.table[column]
        self.used.add(column)
        known = self._numbers.get(column)
        if known is None or known[0] is not data:
            self._numbers[column] = known = (data, self._read_numbers(column, data))
        return known[1].copy()

    def _read_numbers(self, column: str, data: Any) -> F64:
        n = len(data)
        if getattr(data, "ndim", 1) != 1 and np.size(data) != n:
            msg = f"{self.source}: column '{column}' has {data.shape[1:]} values per row, needs one"
            raise ObservationError(msg)
        limits = np.zeros(n, bool)
        if data.dtype.kind in "fiub":
            x = np.ma.filled(np.ma.asarray(data).astype(np.float64), np.nan).reshape(n)
        else:
            cells = words(data)
            limits = np.asarray([c[:1] in _SIGNS for c in cells])
            x, bad = _parsed(cells, limits)
            self.leave_out(
                bad,
                f"not_a_number:{column}",
                f"column '{column}' is not numeric ('{{value}}')",
                cells,
            )
        limits |= self._limits(column)
        limits &= np.isfinite(x) | (data.dtype.kind not in "fiub")
        # a survey may store its marks in single precision
        marked = np.isclose(x[:, None], self.missing, rtol=1e-6, atol=0).any(1) & ~limits
        for rows, noun, what in (
            (limits, "limit", ""),
            (marked, "value", " at a mark of missing values"),
        ):
            if n := int(rows.sum()):
                note = f"{counted(n, noun)} of '{column}'{what}: treated as unobserved"
                self.notes.append(note)
        return np.asarray(np.where(limits | marked, np.nan, x), np.float64)

    def _limits(self, column: str) -> Bool:
        """Return which values another column, such as ``l_NAME``, marks as limits."""
        limits = np.zeros(len(self.table), bool)
        keys = [normalise(form.format(column)) for form in _LIMITS]
        for name in sorted({self.names[key] for key in keys if key in self.names} - {column}):
            cells = [w.lower() for w in words(self.table[name])]
            mine = [w in _IS_LIMIT or any(sign in w for sign in _SIGNS) for w in cells]
            limits |= np.asarray(mine)
            odd = [w for w, m in zip(cells, mine, strict=True) if not m and w not in _NO_LIMIT]
            note = f"of '{name}' not understood ('{odd[0]}')" if odd else ""
            note = f"{note}: the values of '{column}' are used as measured"
            note = f"{counted(len(odd), 'cell')} {note}"
            if odd and note not in self.notes:
                self.notes.append(note)
            self.used.add(name)
        return limits

    def leave_out(self, rows: Bool, reason: str, message: str, values: Sequence[Any]) -> None:
        """Leave rows out of the observations, counted and with a reason.

        Parameters
        ----------
        rows
            Which, (n,).
        reason
            Flag of these rows in the tables of results, e.g. ``"not_positive:e_fe_h"``.
        message
            Explanation; ``{value}`` stands for the value of the row.
        values
            Value of every row, (n,).

        Raises
        ------
        ObservationError
            If the user asked for strict reading.
        """
        index = np.flatnonzero(rows)
        reason = reason.replace(",", " ")  # which separates flags
        for k in map(int, index):
            value = values[k] if isinstance(values[k], str) else f"{values[k]:g}"
            text = message.replace("{value}", value[:40])
            if self.strict:
                listed = ", ".join(str(r) for r in index[:5]) + (", ..." if index.size > 5 else "")
                msg = (
                    f"{self.source}: {text} in row {k} ({counted(index.size, 'row')}: {listed}; "
                    "rows count from 0)"
                )
                raise ObservationError(msg)
            self.excluded.setdefault(k, (reason, text))

    def _factor(self, column: str, unit: str) -> float:
        return unit_factor(self.unit_of(column), unit, f"{self.source}: column '{column}'")

    def ids(self, names: Iterable[str] = ID_NAMES) -> tuple[list[str], str]:
        """Return an identifier per row, and the column it came from ("" for row numbers).

        A row without identifier in a table that has some is called ``row-N-without-id``; ``row-N``
        could be the identifier of a row in another part of the file.
        """
        column = self.find(names)
        start = self.start
        if column is None:
            return [str(k) for k in range(start, start + len(self.table))], ""
        cells = words(self.table[column])
        self._count(cells.count(""), "without identifier, called row-N-without-id")
        _refuse_rounded(f"{self.source}: column '{column}'", self.table[column], cells)
        named = [cell or f"row-{k}-without-id" for k, cell in enumerate(cells, start)]
        return named, column

    def groups(self) -> list[str]:
        """Return the group of each row; ``all`` when the table has no such column."""
        column = self.find(GROUP_NAMES)
        if column is None:
            return ["all"] * len(self.table)
        others = {self.names[n] for n in GROUP_NAMES if n in self.names} - {column}
        if others:
            listed = "', '".join(sorted(others))
            self.notes.append(f"groups are those of '{column}'; '{listed}' is not used")
        names = words(self.table[column])
        self._count(names.count(""), f"without '{column}', combined as group '{UNGROUPED}'")
        return [name or UNGROUPED for name in names]

    def _count(self, n: int, what: str) -> None:
        note = f"{counted(n, 'row')} {what}"
        if n and note not in self.notes:
            self.notes.append(note)


def _refuse_rounded(what: str, column: Any, cells: Sequence[str]) -> None:
    """Raise where identifiers are numbers that lost digits: different objects look the same."""
    if column.dtype.kind == "f":
        large = np.abs(np.ma.filled(np.ma.asarray(column), 0).reshape(-1)) > 2.0**53
        rounded = [c for c, lost in zip(cells, large, strict=True) if lost]
    else:
        rounded = [c for c in cells if _ROUNDED.fullmatch(c)]
    if rounded:
        msg = (
            f"{what} holds identifiers that lost digits as floating-point numbers "
            f"('{rounded[0]}'); write them as integers or text, or --column id=NAME reads another"
        )
        raise ObservationError(msg)


def _parsed(cells: list[str], limits: Bool) -> tuple[F64, Bool]:
    """Return numbers, NaN where a cell has none, and which cells are words."""
    x, bad = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
    for k, cell in enumerate(cells):
        if limits[k] or cell.lower() in NO_NUMBER:
            continue
        try:
            x[k] = float(_EXPONENT.sub("e", cell.replace("\N{MINUS SIGN}", "-")))
            bad[k] = "_" in cell  # Python reads 1_000
        except ValueError:
            bad[k] = True
    return np.where(bad, np.nan, x), bad


# -- observations -----------------------------------------------------------------------------


def checked(observations: Observations, strict: bool = False) -> Observations:
    """Return the observations, unless they hold no object or strict reading refuses a row.

    Raises
    ------
    NothingObservedError
        If they hold no object.
    ObservationError
        If ``strict`` and rows are left out.
    """
    reasons = observations.reasons
    why = "; ".join(reasons) or "it holds no object"
    if len(observations) == 0:
        msg = f"{observations.source}: nothing to infer: {why}"
        raise NothingObservedError(msg)
    if strict and reasons:
        msg = f"{observations.source}: {why}; strict reading accepts no such row"
        raise ObservationError(msg)
    return observations


def observations_from_columns(
    reader: ColumnReader,
    observables: Sequence[Observable],
    *,
    default_error: float | None = None,
    context: NDArray[Any] | None = None,
    context_names: Sequence[str] = (),
) -> Observations:
    """Build observations from the columns of a table (see :func:`read_observations`).

    Rows that cannot be used are left out and counted, those of ``reader.excluded`` among them. Of
    rows with one identifier, the first of those with the most values is kept.
    """
    x, err, missing, notes = _observable_columns(reader, observables, default_error)
    if len(missing) == len(observables):
        wanted = ", ".join(o.name for o in observables)
        have = ", ".join(reader.table.colnames)
        msg = (
            f"{reader.source}: none of the columns {wanted} found; the file has {have}: rename "
            f"them, or say which is which: --column {observables[0].name}=NAME"
        )
        raise ObservationError(msg)
    mask = np.isfinite(x)
    if missing:
        notes.append(f"not in the table, treated as unobserved: {', '.join(missing)}")
    ids, groups = np.asarray(reader.ids()[0], np.str_), np.asarray(reader.groups(), np.str_)
    reasons = {int(k): ("nothing_observed", "") for k in np.flatnonzero(~mask.any(1))}
    reasons |= reader.excluded
    good = np.setdiff1d(np.arange(len(ids)), list(reasons))
    twice = good[repeated(ids[good], mask[good].sum(1))]
    first = good[np.unique(ids[good], return_index=True)[1]]
    for k in map(int, twice):
        more = ", with more values, after the one" if k in first else ""
        reasons[k] = "repeated_id", f"'{ids[k]}' appears again{more}"
    keep = np.setdiff1d(good, twice)
    _note_alike(x[keep], x[keep] if err is None else err[keep], notes)
    batch = Batch.of_arrays(
        x=np.where(mask, x, np.nan)[keep].astype(np.float32),
        x_err=None if err is None else np.where(mask, err, np.nan)[keep].astype(np.float32),
        mask=mask[keep],
        context=None if context is None else np.asarray(context)[keep].astype(np.float32),
    )
    return Observations.from_batch(
        batch,
        id=ids[keep].tolist(),
        group=groups[keep].tolist(),
        observables=tuple(observables),
        context_names=tuple(context_names),
        source=reader.source,
        notes=(*notes, *reader.notes),
        excluded=tuple(Excluded(k, str(ids[k]), *reasons[k]) for k in sorted(reasons)),
        rows=keep,
    )


def _note_alike(x: F64, err: F64, notes: list[str]) -> None:
    """Note rows with several values which, with their errors, are those of another row."""
    full = np.hstack([x, np.where(np.isfinite(x), err, np.nan)])[np.isfinite(x).sum(1) >= _ALIKE]
    alike = len(full) - len(np.unique(np.nan_to_num(full, nan=np.inf), axis=0))
    if alike:
        notes.append(
            f"{counted(alike, 'row')} with all values of another row: are they the same objects?"
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
        x[:, k] = value = reader.values(column, o.unit)
        infinite = ~np.isnan(value) & ~(np.abs(value) <= _LARGEST)
        reader.leave_out(infinite, f"not_finite:{column}", f"'{column}' is {{value}}", list(value))
        error_column = reader.find_error((column, *names))
        if error_column is None:
            assumed.append(o.name)
            err[:, k] = np.nan if default_error is None else default_error
            continue
        err[:, k] = error = reader.values(error_column, o.unit)
        reader.leave_out(
            np.isfinite(value) & ~((error > _SMALLEST) & (error <= _LARGEST)),
            f"not_positive:{error_column}",
            f"error column '{error_column}' must be positive, but is {{value}}",
            list(error),
        )
    notes = []
    if assumed and default_error is not None:
        notes.append(f"no errors given, {default_error:g} assumed: {', '.join(assumed)}")
    if assumed and default_error is None and len(assumed) + len(missing) < len(observables):
        msg = f"{reader.source}: {', '.join(assumed)} have no error column, but others have one"
        raise ObservationError(msg)
    return x, None if default_error is None and assumed else err, missing, notes
