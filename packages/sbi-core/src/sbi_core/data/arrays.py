"""Arrays of any library as numbers with the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.tables import as_table
from sbi_core.errors import ObservationError

__all__ = ["numbers_of"]

F64 = NDArray[np.float64]


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
    names: tuple[str, ...] = ()
    if hasattr(data, "dims") and hasattr(data, "coords"):  # an xarray DataArray
        last = data.dims[-1] if data.ndim == 2 else None
        if last in data.coords and data.coords[last].dtype.kind in "OU":
            names = tuple(map(str, data.coords[last].values))
    elif hasattr(data, "columns") and hasattr(data, "to_numpy"):  # another data frame
        names = tuple(map(str, data.columns))
        data = data.to_numpy()
    values = _numbers(data, what)
    if values.ndim == 0:
        msg = f"{what} is a single number; give an array with one row per simulation"
        raise ObservationError(msg)
    return values[:, None] if values.ndim == 1 else values, names, ()


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
