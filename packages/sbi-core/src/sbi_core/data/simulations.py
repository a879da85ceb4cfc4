"""A fixed set of simulations: arrays in memory, or a file that is read in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from sbi_core.data.arrays import in_units, labels_of, numbers_of
from sbi_core.data.chunks import read_table
from sbi_core.data.gate import open_hdf5, read_npz
from sbi_core.data.observations import decoded
from sbi_core.data.reading import GROUP_NAMES, ID_NAMES, normalise
from sbi_core.errors import DataFileError, ObservationError, counted, first_line, near_matches

__all__ = ["FEWEST", "Simulations", "open_simulations"]

FEWEST = 100  # simulations from which something can be learned and tested
_ARRAYS = ("theta", "x", "x_err", "group")
_ROWS = 1 << 14
_NO_GROUP = ("", "nan", "NaN", "None", "<NA>", "NaT")
_NO_NAME = ("col0", "col1", "Unnamed: 0")  # of a first column without header
_PANDAS = "__index_level_0__"  # row numbers in a parquet file of pandas


@dataclass(frozen=True)
class _Stored:
    """One data set of an HDF5 file, read by slices."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        with open_hdf5(self.path, rows=_ROWS) as f:
            return np.asarray(f[self.name][rows])


Rows = NDArray[Any] | _Stored


@dataclass(frozen=True)
class Simulations:
    """Parameters and data of n simulations.

    Parameters
    ----------
    theta, x
        Parameters (n, d) and data (n, ...).
    x_err
        One standard deviation of the data, like ``x``.
    group
        Simulations of one group never sit on both sides of a split, (n,) words or numbers.
    names
        Names of the columns of theta; empty: those of the prior, in its order.
    observables, units
        Names and units of the columns of ``x``; empty for images.
    source
        Their name for messages.
    theta_units
        Units of the columns of theta; empty: none are given.
    columns
        How the columns of a table were used, in one sentence; empty where they say it themselves.

    Raises
    ------
    ObservationError
        If shapes disagree, or there are fewer than 100 rows.
    """

    theta: Rows
    x: Rows
    x_err: Rows | None = None
    group: Rows | None = None
    names: tuple[str, ...] = ()
    observables: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    source: str = "simulations in memory"
    theta_units: tuple[str, ...] = ()
    columns: str = ""

    def __post_init__(self) -> None:
        n, theta, x = len(self), self.theta.shape, self.x.shape
        of = f"{self.source}: "
        if len(theta) != 2 or 0 in theta[1:]:
            msg = f"{of}theta has shape {theta}; give (simulations, parameters)"
            raise ObservationError(msg)
        if len(x) < 2 or 0 in x[1:]:
            msg = f"{of}x has shape {x}; give (simulations, columns)"
            raise ObservationError(msg)
        for name, rows in (("theta", theta[0]), ("group", n if self.group is None else
                            self.group.shape[0])):  # fmt: skip
            if rows != n:
                msg = f"{of}{name} has {rows} rows, x has {n}; row k of both is one simulation"
                raise ObservationError(msg)
        if self.x_err is not None and self.x_err.shape != x:
            msg = f"{of}x_err has shape {self.x_err.shape}, x has {x}"
            raise ObservationError(msg)
        for what, names, columns in (("theta", self.names, theta[1:]), ("x", self.observables,
                                     x[1:])):  # fmt: skip
            if names and (len(columns) != 1 or len(names) != columns[0]):
                msg = f"{of}{len(names)} names for {what} of shape {(n, *columns)}"
                raise ObservationError(msg)
        for name, values in (("theta", self.theta), ("x", self.x), ("x_err", self.x_err)):
            if values is not None and values.dtype.kind not in "fiub":
                msg = f"{of}{name} does not consist of numbers (its type is {values.dtype})"
                raise ObservationError(msg)
        if self.group is not None:
            _check_groups(self.group, self.source)
        if n < FEWEST:
            msg = (
                f"{of}{n} simulations are too few to train a network and to test it; give at least "
                f"{FEWEST}, better 5000"
            )
            raise ObservationError(msg)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def sha256(self) -> str:
        """SHA-256 of all arrays and names, hex."""
        total = hashlib.sha256(repr((self.names, self.observables, len(self))).encode())
        for start in range(0, len(self), _ROWS):
            for name, rows in self.read(start, start + _ROWS).items():
                plain = rows.astype(str) if rows.dtype.kind == "O" else rows
                total.update(f"{name} {plain.shape} {plain.dtype.kind}".encode())
                total.update(np.ascontiguousarray(plain).tobytes())
        return total.hexdigest()

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return rows start .. stop of theta, x, x_err and group, those that there are."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return {k: np.asarray(v[start:stop]) for k, v in arrays.items() if v is not None}

    @classmethod
    def of(
        cls, theta: Any, x: Any, x_err: Any = None, group: Any = None, source: str = ""
    ) -> Simulations:
        """Return simulations in memory from arrays or tables of any library."""
        for name, other in (("theta", theta), ("x_err", x_err), ("group", group)):
            _check_labels(name, labels_of(other), labels_of(x), source or "simulations in memory")
        parameters, names, theta_units = numbers_of(theta, "theta")
        data, observables, units = numbers_of(x, "x")
        errors = None
        if x_err is not None:
            errors, _, theirs = numbers_of(x_err, "x_err")
            errors = _errors_in(errors, theirs, units, observables)
        if group is not None:
            group = _column_of(group)
        more = {"source": source} if source else {}
        return cls(
            parameters, data, errors, group, names, observables, units,
            theta_units=theta_units, **more,
        )  # fmt: skip

    def in_units_of(self, names: Sequence[str], units: Sequence[str]) -> Simulations:
        """Return the simulations with theta in these units, where both units are known.

        Raises
        ------
        ObservationError
            If a unit cannot be converted.
        """
        if not any(self.theta_units):
            return self
        theta = in_units(self.theta[:], self.theta_units, units, names, self.source)
        return replace(self, theta=theta, theta_units=tuple(units))


def _errors_in(
    errors: NDArray[Any], theirs: tuple[str, ...], units: tuple[str, ...], names: tuple[str, ...]
) -> NDArray[Any]:
    """Return errors in the units of the data."""
    if not any(theirs) or len(theirs) != len(units):
        return errors
    return in_units(
        errors, theirs, units, names or [f"x{k + 1}" for k in range(len(units))], "x_err"
    )


def _check_labels(name: str, labels: Any, of_x: Any, source: str) -> None:
    """Refuse rows with the labels of x in another order: they would be paired with wrong data.

    Raises
    ------
    ObservationError
        With the first row whose labels differ.
    """
    if labels is None or of_x is None or len(labels) != len(of_x):
        return
    differ = np.flatnonzero(labels != of_x)
    if len(differ) and len(set(labels.tolist()) & set(of_x.tolist())):
        k = int(differ[0])
        msg = (
            f"{source}: row {k} of {name} has the label '{labels[k]}', row {k} of x '{of_x[k]}'; "
            "row k of both must be one simulation: sort them alike, or drop the labels "
            "(reset_index(drop=True)) if they are"
        )
        raise ObservationError(msg)


def open_simulations(
    path: str | Path,
    names: Sequence[str],
    group_column: str = "",
    observables: Sequence[str] = (),
) -> Simulations:
    """Return the simulations of a file.

    npz and HDF5 hold ``theta`` (n, d) and ``x`` (n, ...), optionally ``x_err`` and ``group``. Any
    other file is a table with a column per parameter; all other columns of numbers are the data,
    but for ``e_NAME``, the error of NAME, identifiers and the group.

    Parameters
    ----------
    names
        Names of the parameters.
    group_column
        Column (array) of the group.
    observables
        Columns that are the data, where these are not all others.

    Raises
    ------
    DataFileError
        If it cannot be read.
    ObservationError
        If it lacks a parameter, or shapes disagree.
    """
    path = Path(path).expanduser()
    if path.suffix == ".npz":
        return _of_arrays(path, read_npz(path), names, group_column)
    if path.suffix in (".h5", ".hdf5"):
        try:
            with open_hdf5(path, rows=_ROWS) as f:
                if "theta" in f and "x" in f:
                    words = {k: decoded(f[k][()]) for k in f if _few(f[k])}
                    sets = {
                        k: _Stored(path, k, f[k].shape, f[k].dtype)
                        for k in f
                        if hasattr(f[k], "shape")
                    }
                    return _of_arrays(path, {**sets, **words}, names, group_column)
        except FileNotFoundError:
            msg = f"'{path}' cannot be read: it does not exist"
            raise DataFileError(msg) from None
        except OSError as error:
            msg = f"'{path}' cannot be read: {first_line(error)}"
            raise DataFileError(msg) from None
    return _of_table(path, read_table(path), names, group_column, observables)


def _column_of(group: Any) -> NDArray[Any]:
    """Return groups as an array, without an axis of length one; masked if some are missing.

    Raises
    ------
    ObservationError
        If it is a single word or number.
    """
    if hasattr(group, "colnames"):  # an astropy table
        group = np.stack([np.asarray(group[name]) for name in group.colnames], 1)
    values = np.ma.asarray(group) if np.ma.is_masked(group) else np.asarray(group)
    if values.ndim == 0:
        msg = f"group is {group!r}; give an array with the group of every simulation"
        raise ObservationError(msg)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _check_groups(group: Rows, source: str) -> None:
    """Check that every simulation has one group.

    Raises
    ------
    ObservationError
        If there are several columns, or groups are missing.
    """
    if len(group.shape) != 1:
        msg = (
            f"{source}: group has shape {group.shape}; give one group for each simulation. Of "
            "several columns, name the one whose groups are largest, such as the cosmology"
        )
        raise ObservationError(msg)
    values = group[:]
    missing = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else _unknown(values)
    if missing.any():
        msg = (
            f"{source}: group is missing in {counted(int(missing.sum()), 'row')} (first: row "
            f"{int(np.flatnonzero(missing)[0])}); name the group of every simulation"
        )
        raise ObservationError(msg)


def _unknown(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return True where a group is not known."""
    if values.dtype.kind in "iub":
        return np.zeros(len(values), bool)
    words = values.astype(str)
    return np.isin(np.char.strip(words), _NO_GROUP)


def _few(data: Any) -> bool:
    """Return True for data sets that are names, or one number per row."""
    return len(getattr(data, "shape", (0, 0))) == 1


def _of_arrays(
    path: Path, arrays: Mapping[str, Any], names: Sequence[str], group_column: str
) -> Simulations:
    missing = [name for name in ("theta", "x") if name not in arrays]
    if missing:
        have = ", ".join(arrays) or "nothing"
        msg = f"'{path}' lacks the array {missing[0]} (it has {have}); it needs theta and x"
        raise DataFileError(msg)
    group = group_column or ("group" if "group" in arrays else "")
    if group and group not in arrays:
        msg = f"'{path}' has no array '{group}' of groups{near_matches(group, arrays)}"
        raise ObservationError(msg)
    stored = (arrays[k] for k in ("names", "truth_names") if k in arrays)
    own = tuple(map(str, next(stored, ())))
    seen = tuple(map(str, arrays.get("observables", ())))
    made = Simulations(
        arrays["theta"], arrays["x"], arrays.get("x_err"), arrays[group] if group else None,
        own, seen, source=f"'{path}'",
    )  # fmt: skip
    if made.theta.shape[1] != len(names):
        msg = (
            f"'{path}': theta has {made.theta.shape[1]} columns, the prior {len(names)} "
            f"parameters ({', '.join(names)})"
        )
        raise ObservationError(msg)
    if own and list(own) != list(names):
        msg = (
            f"'{path}': theta has the columns {', '.join(own)}, the prior the parameters "
            f"{', '.join(names)}; give both the same names in the same order"
        )
        raise ObservationError(msg)
    return made


def _refuse_mixed(columns: Mapping[str, Any], path: str) -> None:
    """Refuse a column of numbers in which some cells are words: it would be left out silently.

    Raises
    ------
    ObservationError
        With the first such cell.
    """
    for name, column in columns.items():
        words = [k for k, cell in enumerate(column) if not _is_number(cell)]
        if words and len(words) < 0.5 * len(column):
            msg = (
                f"'{path}': column '{name}' has {counted(len(words), 'word')} among its numbers "
                f"(first: row {words[0]}, {str(column[words[0]])!r}); mend it, or name the columns "
                "to use in simulator.observables"
            )
            raise ObservationError(msg)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _row_numbers(table: Table) -> list[str]:
    """Return the columns with numbers of rows, as data frames write them."""
    name = table.colnames[0]
    rows = np.asarray(table[name])
    first = name in _NO_NAME and rows.dtype.kind in "iu" and len(np.unique(rows)) == len(rows)
    return [c for c in table.colnames if c == _PANDAS or (c == name and first)]


def _of_table(
    path: Path, table: Table, names: Sequence[str], group_column: str, observables: Sequence[str]
) -> Simulations:
    plain: dict[str, str] = {normalise(c): c for c in table.colnames}

    def column(name: str, what: str) -> str:
        if name in table.colnames:
            return name
        if normalise(name) not in plain:
            msg = (
                f"'{path}' has no column '{name}', {what}{near_matches(name, table.colnames)} "
                f"(columns: {', '.join(table.colnames[:20])})"
            )
            raise ObservationError(msg)
        return plain[normalise(name)]

    parameters = [column(name, "a parameter of the prior") for name in names]
    group = column(group_column, "the group") if group_column else ""
    group = group or next((plain[g] for g in GROUP_NAMES if g in plain), "")
    data = [column(name, "an observable") for name in observables]
    if not data:
        errors = {f"e_{c}" for c in table.colnames}
        ids = [plain[i] for i in ID_NAMES if i in plain] + _row_numbers(table)
        other = {*parameters, group, *errors, *ids}
        rest = [c for c in table.colnames if c not in other]
        data = [c for c in rest if table[c].dtype.kind in "fiub"]
        _refuse_mixed({c: table[c] for c in rest if c not in data}, str(path))
    if not data:
        msg = f"'{path}': all columns are parameters; the data need columns, too"
        raise ObservationError(msg)
    with_errors = [c for c in data if f"e_{c}" in table.colnames]
    if with_errors and len(with_errors) < len(data):
        lost = next(c for c in data if c not in with_errors)
        msg = f"'{path}': '{lost}' has no error column 'e_{lost}', but others have one"
        raise ObservationError(msg)
    x, seen, units = numbers_of({c: table[c] for c in data}, f"'{path}'")
    theta, _, theta_units = numbers_of({c: table[c] for c in parameters}, f"'{path}'")
    err = None
    if with_errors:
        err, _, theirs = numbers_of({c: table[f"e_{c}"] for c in with_errors}, f"'{path}'")
        err = _errors_in(err, theirs, units, seen)
    return Simulations(
        theta,
        x,
        err,
        _column_of(table[group]) if group else None,
        tuple(names),
        seen,
        units,
        f"'{path}'",
        theta_units,
        _used(path, table, parameters, data, with_errors, group),
    )


def _used(
    path: Path,
    table: Table,
    parameters: Sequence[str],
    data: Sequence[str],
    with_errors: Sequence[str],
    group: str,
) -> str:
    """Say which columns of a table are parameters, data, errors and groups, or not used."""
    errors = [f"e_{c}" for c in with_errors]
    used = {*parameters, *data, *errors, group}
    unused = [c for c in table.colnames if c not in used]
    parts = [
        f"{counted(len(parameters), 'parameter')} named by the prior ({_some(parameters)})",
        f"{counted(len(data), 'column')} of data ({_some(data)})",
    ]
    if errors:
        parts.append(f"their errors ({_some(errors)})")
    if group:
        parts.append(f"groups ({group})")
    if unused:
        parts.append(f"not used ({_some(unused)})")
    return f"'{path.name}' has {', '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:7])}, ..., {names[-1]}"
