r"""Ages and birth times of a table of stars, as the context of the network.

:math:`t = 13.797617\,\mathrm{Gyr} - \mathrm{age}`. The unit is that of the column, else that of
its name (``age_myr``, ``log_age``: log10 of years), else Gyr; both must agree. An error of log age
becomes :math:`\sigma = \ln 10 \; \mathrm{age} \; \sigma_{\log}`.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.columns import all_nines, error_of
from sbi_chempy.constants import T_END_GYR
from sbi_core import ColumnReader, ObservationError, counted

__all__ = ["age_context", "age_notes"]

F64 = NDArray[np.float64]
_BIRTH = ("t_birth", "obs_time", "birth_time", "t_obs")
_AGES = {  # names, and Gyr of their unit; None: log10 of years
    "age": 1.0, "age_gyr": 1.0, "ages": 1.0, "age_myr": 1e-3, "age_yr": 1e-9, "log_age": None,
    "logage": None, "log10_age": None, "lg_age": None, "lgage": None, "log_age_yr": None,
    "log_age_gyr": None, "logage_gyr": None, "lookback_time": 1.0,
}  # fmt: skip
_NAMED_UNIT = re.compile(r"(?:age|[^a-z])(gyr|myr|yr)(?=[^a-z]|err|$)")
_LOG_UNIT = re.compile(r"(?:log|log10|dex)?[\[(] *(Gyr|Myr|yr|a) *[\])]")  # log(yr), [yr]
_GYR = {"Gyr": 1.0, "Myr": 1e-3, "yr": 1e-9, "a": 1e-9, "gyr": 1.0, "myr": 1e-3}
_LARGEST_GYR = 30.0  # beyond that a unit was mistaken, noise is not the reason
_DEFAULT_ERROR = 0.2  # relative, where ages come without errors
_EARLIEST = 1.0  # Gyr; the prior of birth times begins here, and so do errors in per cent of them
_LOG_YEARS = (7.5, 10.3)  # log10 of most ages in years, errors included
_LOG_ERROR = 0.2  # and of their errors, which in Gyr would be 2 % of such ages


def age_context(reader: ColumnReader) -> tuple[F64, str]:
    """Return birth time, error [Gyr] and 1, (n, 3), zeros for stars without, and the column.

    Raises
    ------
    ObservationError
        If the unit of a column cannot be, or is probably not, an age.
    """
    n = len(reader.table)
    name = _chosen(reader)
    column = reader.find((name,))
    if column is None:
        return np.zeros((n, 3)), ""
    birth = name in _BIRTH
    value, error = _gyr(reader, column, name)
    there = reader.find(("t_observed",))  # of tables that Observations wrote
    seen = ~np.isnan(value) if there is None else reader.values(there) > 0
    wrong = seen & ~(np.abs(value) <= _LARGEST_GYR)
    if wrong.sum() > seen.sum() / 2:
        row = np.flatnonzero(wrong)[0]
        msg = (
            f"{reader.source}: '{column}' is {value[row]:g} Gyr in row {row} "
            f"({counted(int(wrong.sum()), 'row')}); expected Gyr, or a column with a unit: "
            f"--column age_myr={reader.written(column)}, or age_yr or log_age"
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
            f"{counted(int(useless.sum()), 'value')} of '{column}' without an error below "
            f"{T_END_GYR:.1f} Gyr: treated as unobserved"
        )
    return np.where(seen[:, None], np.stack([time, error, np.ones(n)], 1), 0.0), column


def age_notes(context: F64, column: str) -> list[str]:
    """Return notes on the birth times of the stars that are used, (n, 3)."""
    time = context[context[:, 2] > 0, 0]
    notes = [f"{counted(len(time), 'value')} of '{column}' used as birth times"] if column else []
    beyond = int(((time < 0) | (time > T_END_GYR)).sum())
    if beyond:
        notes.append(
            f"{counted(beyond, 'star')} with a birth time outside 0-{T_END_GYR:.2f} Gyr (an age "
            "above that of the Universe, or in the future): flagged, and used as measured, with "
            "their errors"
        )
    return notes


def _chosen(reader: ColumnReader) -> str:
    """Return the name of the one column with ages; the user's choice comes first."""
    names = [n for n in (*_BIRTH, *_AGES) if reader.find((n,)) is not None]
    given = [n for n in names if n in reader.chosen]
    names = given or names
    if len(names) > 1:
        one, two = (str(reader.find((n,))) for n in names[:2])
        msg = (
            f"{reader.source}: columns '{one}' and '{two}' are both ages; choose one: --column "
            f"{names[0]}={one} or --column {names[1]}={two}"
        )
        raise ObservationError(msg)
    return names[0] if names else ""


def _unit_of(reader: ColumnReader, column: str, name: str) -> tuple[str, str]:
    """Return the unit of a column, and the one of its name; they must not differ."""
    given = str(reader.table[column].unit or "").strip()
    named = _NAMED_UNIT.search(name.lower())
    if named and given and _GYR.get(given, 0) != _GYR[named[1]] and not _LOG_UNIT.fullmatch(given):
        msg = (
            f"{reader.source}: column '{column}' has unit '{given}', but {named[1]} in its name; "
            f"--column age={reader.written(column)} reads it by its unit"
        )
        raise ObservationError(msg)
    return given, named[1] if named else ""


def _gyr(reader: ColumnReader, column: str, name: str) -> tuple[F64, F64 | None]:
    """Return values and errors in Gyr; NaN where missing."""
    birth = name in _BIRTH
    given, named = _unit_of(reader, column, name)
    match = _LOG_UNIT.fullmatch(given)
    log = match[1] if match else ""
    scale = 1.0 if birth else _AGES[name]
    if scale is None and not log:
        log = given if given in _GYR else named or "yr"
        if given not in _GYR:
            reader.values(column, "dex")  # or the unit is refused
    unit = "" if log or not given else "Gyr"
    if given and not log:
        scale = 1.0
    value = reader.values(column, unit) if not log else reader.numbers(column)
    marks = all_nines(value) & ((value < 0) | (value > _LARGEST_GYR))
    if marks.any():
        note = f"{counted(int(marks.sum()), 'value')} of '{column}' at a mark of missing values"
        reader.notes.append(f"{note}: treated as unobserved")
    value = np.where(marks, np.nan, value)
    error = _error(reader, column, name, given, None if log else scale)
    if log:
        if np.nanmax(np.abs(value), initial=0) > 12:
            msg = f"{reader.source}: '{column}' is read as log10 of an age, but has values above 12"
            raise ObservationError(msg)
        value = 10**value * _GYR[log]
        return value, None if error is None else np.log(10) * value * error
    assert scale is not None
    if not (given or named or birth):
        _refuse_log(reader, column, value, error)
    return scale * value, error


def _error(
    reader: ColumnReader, column: str, name: str, given: str, scale: float | None
) -> F64 | None:
    """Return errors in Gyr, those of logarithms (``scale`` None) in dex.

    The unit is that of the column, else of its name; else Gyr, or that of the name of the ages.
    """
    stem = re.sub("_(gyr|myr|yr)$", "", name)
    others = () if scale is None else (stem, *(f"{stem}_{u}" for u in ("gyr", "myr", "yr")))
    error_column = error_of(reader, (column, *others), "Gyr" if given and scale else "")
    if error_column is None:
        return None
    own, named = _unit_of(reader, error_column, error_column)
    if scale is None:
        if own in _GYR and own != given:
            msg = (
                f"{reader.source}: error column '{error_column}' has unit '{own}', but '{column}' "
                "is a logarithm, with errors in dex"
            )
            raise ObservationError(msg)
        return reader.numbers(error_column)
    if own:
        return reader.values(error_column, "Gyr")
    if given and not named and _GYR.get(given) != 1:
        reader.notes.append(f"error column '{error_column}' has no unit: read as Gyr")
    return reader.numbers(error_column) * (_GYR[named] if named else scale)


def _refuse_log(reader: ColumnReader, column: str, value: F64, error: F64 | None) -> None:
    """Raise where ages without a unit are probably logarithms of years."""
    if reader.start or not np.isfinite(value).any():  # the first part of a file decides
        return
    low, high = _LOG_YEARS
    largest = 0.0 if error is None else np.nanmax(error)
    if np.nanmin(value) >= low and np.nanmax(value) <= high and largest <= _LOG_ERROR:
        errors = "no errors" if error is None else f"errors up to {largest:g}"
        msg = (
            f"{reader.source}: '{column}' has no unit, values of {np.nanmin(value):g} to "
            f"{np.nanmax(value):g} and {errors}: log10 of years? "
            f"--column log_age={reader.written(column)} reads it so, --column "
            f"age_gyr={reader.written(column)} as Gyr"
        )
        raise ObservationError(msg)
