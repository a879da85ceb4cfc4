"""Arrays of any library as numbers with the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.tables import as_table, unit_factor
from sbi_core.errors import ObservationError, near_matches

__all__ = ["in_units", "labels_of", "names_of", "numbers_of", "parameters_of"]

F64 = NDArray[np.float64]


def names_of(data: Any) -> tuple[str, ...]:
    """Return the names of the last axis of an xarray ``DataArray`` or of a pandas row, or none."""
    if hasattr(data, "dims") and hasattr(data, "coords") and data.ndim:
        names = data.coords.get(data.dims[-1])
        return _words(None if names is None else names.values)
    if hasattr(data, "iloc") and not hasattr(data, "columns"):
        return _words(np.asarray(data.index))
    return ()


def _words(labels: Any) -> tuple[str, ...]:
    if labels is None or not all(isinstance(label, str) for label in labels):
        return ()
    return tuple(map(str, labels))


def labels_of(data: Any) -> NDArray[Any] | None:
    """Return the labels of the rows of a pandas or xarray object, None where there are none."""
    if hasattr(data, "iloc") and hasattr(data, "index"):
        return np.asarray(data.index)
    if hasattr(data, "dims") and hasattr(data, "coords") and data.dims:
        name = next(iter(data.dims)) if not hasattr(data, "data_vars") else _rows_of(data)
        return np.asarray(data.coords[name].values) if name in data.coords else None
    return None


def _rows_of(data: Any) -> Any:
    """Return the first dimension of the variables of an xarray ``Dataset``."""
    return next((v.dims[0] for v in data.data_vars.values() if v.dims), None)


def in_units(
    values: F64, units: Sequence[str], wanted: Sequence[str], what: Sequence[str], source: str
) -> F64:
    """Return columns (n, d) converted from ``units`` to those wanted; an empty one is any.

    Raises
    ------
    ObservationError
        If a unit cannot be converted; ``what`` are the names of the columns.
    """
    factors = [
        1.0 if not unit or not aim else unit_factor(unit, aim, f"{source}: '{name}'")
        for unit, aim, name in zip(units, wanted, what, strict=True)
    ]
    return values if set(factors) <= {1.0} else values * np.asarray(factors)


def numbers_of(data: Any, what: str) -> tuple[F64, tuple[str, ...], tuple[str, ...]]:
    """Return an array (n, ...) with the names and units of its columns, empty if they have none.

    Parameters
    ----------
    data
        A numpy array, a torch tensor, nested lists, a table (pandas, astropy, columns by name), or
        an xarray ``DataArray`` or ``Dataset``. Missing cells of tables become NaN.
    what
        Its name for messages.

    Raises
    ------
    ObservationError
        If it does not consist of numbers.
    """
    if hasattr(data, "data_vars"):  # an xarray Dataset: a column per variable
        data = {str(name): np.asarray(data[name].values) for name in data.data_vars}
    elif hasattr(data, "iloc") and hasattr(
        data, "reset_index"
    ):  # the index of a pandas frame is no column
        data = data.reset_index(drop=True)
    table = None if isinstance(data, (list, tuple)) else as_table(data)
    if table is not None:
        return _of_columns({n: table[n] for n in table.colnames}, what)
    names = names_of(data) if getattr(data, "ndim", 0) == 2 else ()
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):  # another data frame
        names = tuple(map(str, data.columns))
        data = data.to_numpy()
    values = _numbers(data, what)
    if values.ndim == 0:
        msg = f"{what} is a single number; give an array with one row per simulation"
        raise ObservationError(msg)
    unit = str(getattr(data, "unit", None) or "")
    if unit and values.ndim > 2:
        msg = f"{what} has the unit '{unit}'; of images give plain numbers, all in one unit"
        raise ObservationError(msg)
    values = values[:, None] if values.ndim == 1 else values
    return values, names, (unit,) * values.shape[1] if unit else ()


def parameters_of(theta: Any, names: Sequence[str], units: Sequence[str]) -> F64:
    """Return theta (..., d) with its columns in the order of ``names`` and in these units.

    Parameters
    ----------
    theta
        An array, or columns by name in any order: a table, a row, or an xarray object. Further
        columns are ignored.

    Raises
    ------
    ObservationError
        If a column is missing, or a unit cannot be converted.
    """
    found = names_of(theta)
    given: tuple[str, ...] = ()
    if found or hasattr(theta, "columns") or hasattr(theta, "data_vars") or as_table(theta):
        values, also, given = (
            (_numbers(theta, "theta"), found, ()) if found else numbers_of(theta, "theta")
        )
        found = tuple(also)
    else:
        values = _numbers(theta, "theta")
    if found:
        lost = next((n for n in names if n not in found), "")
        if lost:
            near = near_matches(lost, found)
            msg = f"theta has no column '{lost}'{near} (columns: {', '.join(found)})"
            raise ObservationError(msg)
        order = [found.index(n) for n in names]
        values, given = values[..., order], tuple(given[k] for k in order) if given else ()
    elif unit := str(getattr(theta, "unit", None) or ""):
        given = (unit,) * len(names)
    if not any(given) or values.shape[-1:] != (len(names),):
        return values
    return in_units(values, given, units, names, "theta")


def _of_columns(
    columns: Mapping[str, Any], what: str
) -> tuple[F64, tuple[str, ...], tuple[str, ...]]:
    parts, names, units = [], list[str](), list[str]()
    for name, column in columns.items():
        values = _numbers(column, f"column '{name}' of {what}")
        flat = values.reshape(len(values), -1)
        width = flat.shape[1]
        parts.append(flat)
        names += [name] if values.ndim == 1 else [f"{name}{k + 1}" for k in range(width)]
        units += [str(getattr(column, "unit", None) or "")] * width
    return np.concatenate(parts, 1), tuple(names), tuple(units)


def _numbers(data: Any, what: str) -> F64:
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    values: Any = getattr(data, "value", data)  # of a quantity
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind in "mM" and kind:
        msg = f"{what} has dates or times; give numbers, e.g. days since a date"
        raise ObservationError(msg)
    if kind == "c":
        msg = f"{what} has complex numbers; give real and imaginary parts as columns"
        raise ObservationError(msg)
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        msg = f"{what} does not consist of numbers, or its rows differ in length"
        raise ObservationError(msg) from None
