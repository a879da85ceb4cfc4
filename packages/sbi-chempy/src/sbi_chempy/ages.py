r"""Ages and birth times of a table of stars, as the context of the network.

:math:`t = 13.797617\,\mathrm{Gyr} - \mathrm{age}`. The unit is that of the column, else that of
its name (``age_myr``, ``log_age``: log10 of years), else Gyr. An error of log age becomes
:math:`\sigma = \ln 10 \; \mathrm{age} \; \sigma_{\log}`.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.columns import all_nines, error_of
from sbi_chempy.constants import T_END_GYR
from sbi_core import ColumnReader, ObservationError

__all__ = ["age_context", "age_notes"]

F64 = NDArray[np.float64]
_BIRTH = ("t_birth", "obs_time", "birth_time", "t_obs")
_AGES = {  # names, and Gyr of their unit; None: log10 of years
    "age": 1.0, "age_gyr": 1.0, "ages": 1.0, "age_myr": 1e-3, "age_yr": 1e-9, "log_age": None,
    "logage": None, "log10_age": None, "lg_age": None, "lgage": None, "log_age_yr": None,
}  # fmt: skip
_LOG_UNIT = re.compile(r"(?:log|log10|dex)?[\[(] *(Gyr|Myr|yr|a) *[\])]")  # log(yr), [yr]
_GYR = {"Gyr": 1.0, "Myr": 1e-3, "yr": 1e-9, "a": 1e-9}
_LARGEST_GYR = 30.0  # beyond that a unit was mistaken, noise is not the reason
_DEFAULT_ERROR = 0.2  # relative, where ages come without errors
_EARLIEST = 1.0  # Gyr; the prior of birth times begins here, and so do errors in per cent of them
_LOG_YEARS = (7.5, 10.15)  # log10 of most ages in years
_LOG_ERROR = 0.2  # and of their errors, which in Gyr would be 2 % of such ages


def age_context(reader: ColumnReader) -> tuple[F64, str]:
    """Return birth time, error [Gyr] and 1, (n, 3), zeros for stars without, and the column.

    Raises
    ------
    ObservationError
        If the unit of a column cannot be, or is probably not, an age.
    """
    n = len(reader.table)
    column = reader.find((*_BIRTH, *_AGES))
    if column is None:
        return np.zeros((n, 3)), ""
    birth = reader.find(_BIRTH) is not None
    value, error = _gyr(reader, column, birth)
    there = reader.find(("t_observed",))  # of tables that Observations wrote
    seen = ~np.isnan(value) if there is None else reader.values(there) > 0
    wrong = seen & ~(np.abs(value) <= _LARGEST_GYR)
    if wrong.sum() > seen.sum() / 2:
        row = np.flatnonzero(wrong)[0]
        msg = (
            f"{reader.source}: '{column}' is {value[row]:g} Gyr in row {row} ({int(wrong.sum())} "
            f"row(s)); expected Gyr, or a column with a unit: --column age_myr={column}, or "
            "age_yr or log_age"
        )
        raise ObservationError(msg)
    reader.leave_out(wrong, f"impossible:{column}", f"'{column}' is {{value}} Gyr", list(value))
    seen &= ~wrong
    time = value if birth else T_END_GYR - value
    if error is None:
        error = _DEFAULT_ERROR * np.maximum(time, _EARLIEST)
        reader.notes.append(f"'{column}' has no errors; 20 % of the birth time assumed")
    bad = seen & (error <= 0)
    message = f"error of '{column}' must be positive, but is {{value}}"
    reader.leave_out(bad, f"not_positive:e_{column}", message, list(error))
    useless = seen & ~(error < T_END_GYR)  # NaN, too
    seen &= ~bad & ~useless
    if useless.any():
        reader.notes.append(
            f"{int(useless.sum())} value(s) of '{column}' without an error below {T_END_GYR:.1f} "
            "Gyr: treated as unobserved"
        )
    return np.where(seen[:, None], np.stack([time, error, np.ones(n)], 1), 0.0), column


def age_notes(context: F64, column: str) -> list[str]:
    """Return notes on the birth times of the stars that are used, (n, 3)."""
    time = context[context[:, 2] > 0, 0]
    notes = [f"{len(time)} birth time(s) used, from '{column}'"] if column else []
    beyond = int(((time < 0) | (time > T_END_GYR)).sum())
    if beyond:
        notes.append(
            f"{beyond} star(s) have a birth time outside 0-{T_END_GYR:.2f} Gyr (an age above that "
            "of the Universe, or in the future): flagged, and used as measured, with their errors"
        )
    return notes


def _gyr(reader: ColumnReader, column: str, birth: bool) -> tuple[F64, F64 | None]:
    """Return values and errors in Gyr; NaN where missing."""
    given = str(reader.table[column].unit or "").strip()
    log = _LOG_UNIT.fullmatch(given)
    scale = 1.0 if birth else _AGES[next(a for a in _AGES if reader.find((a,)) == column)]
    unit = "" if log or not given else "Gyr"
    if given and not log:
        scale = 1.0
    value = reader.values(column, unit) if not log else reader.numbers(column)
    marks = all_nines(value) & ((value < 0) | (value > _LARGEST_GYR))
    if marks.any():
        note = f"{int(marks.sum())} value(s) of '{column}' are at a mark of missing values"
        reader.notes.append(f"{note}: treated as unobserved")
    value = np.where(marks, np.nan, value)
    error_column = error_of(reader, (column,), unit)
    error = None
    if error_column is not None:
        log_error = log or scale is None
        error = reader.numbers(error_column) if log_error else reader.values(error_column, unit)
    if log or scale is None:
        if np.nanmax(np.abs(value), initial=0) > 12:
            msg = f"{reader.source}: '{column}' is read as log10 of an age, but has values above 12"
            raise ObservationError(msg)
        value = 10**value * (_GYR[log[1]] if log else 1e-9)
        return value, None if error is None else np.log(10) * value * error
    if not given and not birth and scale == 1.0 and column.lower() != "age_gyr":
        _refuse_log(reader, column, value, error)
    return scale * value, None if error is None else scale * error


def _refuse_log(reader: ColumnReader, column: str, value: F64, error: F64 | None) -> None:
    """Raise where ages without a unit are probably logarithms of years."""
    if error is None or not np.isfinite(value).any():
        return
    low, high = _LOG_YEARS
    if np.nanmin(value) >= low and np.nanmax(value) <= high and np.nanmax(error) <= _LOG_ERROR:
        msg = (
            f"{reader.source}: '{column}' has no unit, values of {np.nanmin(value):g} to "
            f"{np.nanmax(value):g} and errors up to {np.nanmax(error):g}: log10 of years? "
            f"--column log_age={column} reads it so, --column age_gyr={column} as Gyr"
        )
        raise ObservationError(msg)
