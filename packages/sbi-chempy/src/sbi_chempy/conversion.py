r"""From the abundance columns of a table to the ones a frame observes.

A missing column is made from those that are there with

.. math:: [X/R] = [X/H] - [R/H], \qquad [X/H] = [X/Fe] + [Fe/H] = [X/Mg] + [Mg/H],

by the shortest such sum. Errors of the columns that enter are taken as independent:
:math:`\sigma^2 = \sum \sigma_c^2` over the columns left after cancelling.

Columns are cleaned on the way: marks of missing values and values without a usable error are
not observed, impossible values are left out with their rows; all are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.columns import all_nines, error_of, listed
from sbi_core import ColumnReader, Observable, ObservationError, counted

__all__ = ["add_converted"]

F64 = NDArray[np.float64]
Sum = dict[str, int]  # column -> coefficient
_RANGE_H = (-10.0, 3.5)  # dex, of [X/H]; A(Fe) is larger in all but a handful of stars
_RANGE = (-6.0, 6.0)  # dex, of [X/Fe] and [X/Mg]
_LARGEST_ERROR = 1.0  # dex; such a value tells nothing


def add_converted(
    reader: ColumnReader, observables: Sequence[Observable], default_error: float
) -> set[str]:
    """Clean the columns of a table and add those that can be made from others.

    Parameters
    ----------
    reader
        The table; changed in place.
    observables
        The abundances looked for, e.g. ``mg_fe``, ``fe_h`` or ``o_mg``, ``mg_h``.
    default_error
        Standard deviation [dex] of a column without errors.

    Returns
    -------
    set
        The columns that enter.

    Raises
    ------
    ObservationError
        If most values of a column are impossible, or a column of an element is there but the one
        that would convert it is not.
    """
    ways: dict[str, Sum] = {}
    for o in observables:
        element, _, reference = o.name.partition("_")
        direct = {o.name: 1} if reader.find((o.name,)) else None
        way = direct or _shortest(reader, element, reference)
        if way is None:
            _refuse_dead_end(reader, o.name, element, reference)
        else:
            ways[o.name] = way
    terms = dict.fromkeys(term for way in ways.values() for term in way)
    used = {term: _clean(reader, term) for term in terms}
    converted: dict[tuple[str, str], list[str]] = {}
    for name, way in ways.items():
        relative_to_mg = name.endswith("_mg") or name == "mg_h"
        _count_others(reader, name, used)
        if name not in way:
            first, *others = _convert(reader, name, way, default_error, relative_to_mg)
            key = _form(name), "' and '".join(others)
            converted.setdefault(key, []).append(first)
        elif relative_to_mg and reader.find_error((name,)) is None:
            # an error of [X/Mg] is larger than one of [X/Fe]; noise that all share needs it
            error = (1 if name == "fe_mg" else 2) ** 0.5 * default_error
            reader.add(f"e_{name}", np.full(len(reader.table), error))
            reader.notes.append(f"'{used[name]}' has no errors, {error:.3g} assumed")
    _leave_out_without_reference(reader, ways)
    for (form, helpers), columns in converted.items():
        note = f"{listed(columns)} converted to {form}"
        reader.notes.append(f"{note} with '{helpers}'" if helpers else note)
    return set(used.values())


def _finite(reader: ColumnReader, column: str) -> NDArray[np.bool_]:
    """Return where a column that is not read holds a number of plausible size."""
    data = reader.table[column]
    if data.dtype.kind not in "fiu" or data.ndim > 1:
        return np.zeros(len(data), bool)
    x = np.ma.filled(np.ma.asarray(data).astype(float), np.nan)
    return np.asarray(np.abs(x) <= _RANGE[1])


def _count_others(reader: ColumnReader, name: str, used: dict[str, str]) -> None:
    """Note rows that have an abundance only in a column that is not read."""
    column = used.get(name)
    for reference in () if column is None else ("fe", "h", "mg"):
        other = reader.find((f"{name.partition('_')[0]}_{reference}",))
        if column is not None and other not in (None, column):
            rows = _finite(reader, other) & np.isnan(reader.values(column, "dex"))
            if rows.any():
                reader.notes.append(
                    f"{counted(int(rows.sum()), 'value')} of '{other}' not used, in rows where "
                    f"'{column}', which is read, has none"
                )


def _leave_out_without_reference(reader: ColumnReader, ways: dict[str, Sum]) -> None:
    """Say why rows have nothing observed, where only the column that converts is missing."""
    empty = np.ones(len(reader.table), bool)
    lost = np.zeros(len(reader.table), bool)
    missing: dict[str, None] = {}
    for name, way in ways.items():
        value = reader.values(str(reader.find((name,))), "dex")
        empty &= np.isnan(value)
        first, *others = (reader.values(str(reader.find((t,))), "dex") for t in way)
        if others:
            lost |= np.isfinite(first) & np.isnan(value)
            missing |= dict.fromkeys(str(reader.find((t,))) for t in list(way)[1:])
    needed = listed(missing)
    message = f"no value of {needed}, which converts the other abundances"
    rows = empty & lost
    reader.leave_out(rows, "nothing_observed", message, [""] * len(rows))
    rest = int((lost & ~empty).sum())
    if rest:
        reader.notes.append(
            f"{counted(rest, 'star')} without abundances whose conversion needs {needed}"
        )


def _clean(reader: ColumnReader, name: str) -> str:
    """Remove marks, impossible values and values without error from a column; return it."""
    column = reader.find((name,))
    assert column is not None
    x = reader.values(column, "dex")
    _count(reader, all_nines(x), column, "at a mark of missing values")
    x[all_nines(x)] = np.nan
    low, high = _RANGE_H if name.endswith("_h") else _RANGE
    wrong = np.isfinite(x) & ((x < low) | (x > high))
    if wrong.sum() > np.isfinite(x).sum() / 2:
        row = np.flatnonzero(wrong)[0]
        msg = (
            f"{reader.source}: '{column}' is {x[row]:g} in row {row} "
            f"({counted(int(wrong.sum()), 'row')}); abundances are expected in dex "
            "relative to the Sun (Asplund et al. 2009)"
        )
        if name.endswith("_h"):
            element = name.partition("_")[0].capitalize()
            msg += (
                f"; if it is A({element}), read it so: --column "
                f"A_{element}={reader.written(column)} --set simulator.absolute=true"
            )
        else:
            msg += "; convert ratios and percentages to dex"
        raise ObservationError(msg)
    reader.leave_out(wrong, f"impossible:{column}", f"'{column}' is {{value}} dex", list(x))
    error_column = error_of(reader, (column, name), "dex")
    if error_column is not None:
        x[_useless(reader, column, x, error_column)] = np.nan
    reader.add(column, x)
    return column


def _useless(reader: ColumnReader, column: str, x: F64, error_column: str) -> NDArray[np.bool_]:
    """Return which values have no usable error."""
    err = reader.values(error_column, "dex")
    err[all_nines(err) & (err < 0)] = np.nan
    wide = np.isfinite(x) & (err >= _LARGEST_ERROR)
    if wide.sum() > np.isfinite(x).sum() / 2:
        row = np.flatnonzero(wide)[0]
        msg = (
            f"{reader.source}: error column '{error_column}' is {err[row]:g} in row {row} "
            f"({counted(int(wide.sum()), 'row')}); standard deviations are expected in dex, not in "
            "percent"
        )
        raise ObservationError(msg)
    message = f"error column '{error_column}' is {{value}} dex"
    if reader.strict:
        reader.leave_out(wide, f"error_too_large:{error_column}", message, list(err))
        return wide
    without = np.isfinite(x) & np.isnan(err)
    _count(reader, wide, column, f"with an error of {_LARGEST_ERROR:g} dex or more")
    _count(reader, without, column, "without error")
    return wide | without


def _count(reader: ColumnReader, rows: NDArray[np.bool_], column: str, what: str) -> None:
    if rows.any():
        text = f" of '{column}' {what}: treated as unobserved"
        before = [note for note in reader.notes if note.endswith(text)]
        reader.notes = [note for note in reader.notes if note not in before]
        n = int(rows.sum()) + sum(int(note.split(" ")[0]) for note in before)
        reader.notes.append(f"{counted(n, 'value')}{text}")


def _ways(element: str) -> list[Sum]:
    """Sums of columns that make [X/H], those with [X/Fe] first."""
    pairs = [{f"{element}_{r}": 1, f"{r}_h": 1} for r in ("fe", "mg") if r != element]
    return [*pairs, {f"{element}_h": 1}]


def _shortest(reader: ColumnReader, element: str, reference: str) -> Sum | None:
    """Shortest sum of columns present that makes [X/R], or None."""
    sums: list[Sum] = []
    for plus, minus in product(_ways(element), [{}] if reference == "h" else _ways(reference)):
        names = dict.fromkeys((*plus, *minus))
        total = {n: plus.get(n, 0) - minus.get(n, 0) for n in names}
        total = {n: c for n, c in total.items() if c}
        if all(reader.find((n,)) is not None for n in total):
            sums.append(total)
    return min(sums, key=len, default=None)


def _convert(
    reader: ColumnReader, name: str, terms: Sum, default_error: float, always_errors: bool
) -> list[str]:
    """Add one abundance from its terms; return the columns that enter."""
    value = np.zeros(len(reader.table))
    variance = np.zeros(len(reader.table))
    columns = []
    has_errors = True
    for k, (term, coefficient) in enumerate(terms.items()):
        column = reader.find((term,))
        assert column is not None
        columns.append(column)
        x = reader.values(column, "dex")
        value = value + coefficient * x
        error_column = reader.find_error((column, term))
        if error_column is not None:
            error = reader.values(error_column, "dex")
            bad = np.isfinite(x) & (error <= 0)
            message = f"error column '{error_column}' must be positive, but is {{value}}"
            reader.leave_out(bad, f"not_positive:{error_column}", message, list(error))
            variance = variance + (coefficient * error) ** 2
        elif always_errors:
            variance = variance + (coefficient * default_error) ** 2
        elif k == 0:
            has_errors = False  # the default applies to the result
    reader.add(name, value)
    if has_errors and reader.find_error((name,)) is None:
        # an upper limit where the errors of the columns are positively correlated
        reader.add(f"e_{name}", np.sqrt(variance))
    return columns


def _form(name: str) -> str:
    """Return ``[X/Fe]``, ``[X/Mg]`` or e.g. ``[Fe/H]``."""
    element, _, reference = name.partition("_")
    return f"[{element.capitalize() if reference == 'h' else 'X'}/{reference.capitalize()}]"


def _refuse_dead_end(reader: ColumnReader, name: str, element: str, reference: str) -> None:
    """Raise where the element was measured in a form that nothing in the table converts."""
    column = reader.find((f"{element}_h",))
    if column is not None and reference != "h":
        msg = (
            f"{reader.source}: column '{column}' is [X/H], which needs a column '{reference}_h' to "
            f"become '{name}'"
        )
        raise ObservationError(msg)
    column = reader.find((f"{element}_fe",))
    if reference == "mg" and column is not None:
        msg = (
            f"{reader.source}: column '{column}' is [X/Fe], which needs a column 'mg_fe' to become "
            f"'{name}'"
        )
        raise ObservationError(msg)
