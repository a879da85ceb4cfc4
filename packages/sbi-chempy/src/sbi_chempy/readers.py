"""Reading stars: tables with one column per abundance, and the npz layout of the TNG mocks.

Tables (ECSV, FITS, CSV, VOTable, HDF5): ``c_fe fe_h he_fe mg_fe n_fe ne_fe o_fe si_fe`` in any
case or bracket form, errors ``e_<name>`` or ``<name>_err``, optional ``t_birth`` or ``age`` [Gyr]
with error. ``[X/H]`` columns are converted with ``[Fe/H]``, and [X/Fe] to [X/Mg] where the
simulator observes that (:mod:`sbi_chempy.conversion`); surveys have presets
(:mod:`sbi_chempy.surveys`). NaN or masked means not measured.
npz: ``abundances`` and ``abundance_errs`` (n, k), ``elements`` (k), optional ``obs_time`` and
``obs_time_err`` [Gyr].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import T_END_GYR
from sbi_chempy.conversion import add_converted
from sbi_chempy.noise import AGE_COLUMNS, ERROR_RANGE
from sbi_chempy.surveys import SurveyName, standard_columns
from sbi_core import (
    Batch,
    ColumnReader,
    DataFileError,
    Observable,
    ObservationError,
    Observations,
    observations_from_columns,
    read_npz,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["npz_table", "stars_of"]

F64 = NDArray[np.float64]
_LARGEST_DEX = 10.0
_MARKS_OF_MISSING = 900.0  # -999, -9999: surveys mark missing values with such numbers
_LARGEST_GYR = 30.0  # beyond that a unit was mistaken, noise is not the reason
_NPZ_NUMBERS = ("abundances", "abundance_errs", "obs_time", "obs_time_err")
_DEFAULT_AGE_ERROR = 0.2  # relative, where ages come without errors


def stars_of(
    table: Table,
    source: str,
    observables: Sequence[Observable],
    *,
    default_error: float,
    ages: bool,
    survey: SurveyName | None = None,
) -> Observations:
    """Return the stars of a table.

    Parameters
    ----------
    table
        One row per star.
    source
        File name for messages.
    observables
        The abundances, in the order of the simulator.
    default_error
        Standard deviation [dex] where the table has none.
    ages
        Whether to use birth times or ages that the table has.
    survey
        Columns, missing values and flags as a survey writes them (:mod:`sbi_chempy.surveys`).

    Raises
    ------
    ObservationError
        If columns, units or values cannot be used; the message names rows and columns.
    """
    survey_notes: list[str] = []
    if survey is not None:
        table, survey_notes = standard_columns(table, survey, source)
    reader = ColumnReader(table, source)
    notes = survey_notes + add_converted(reader, observables, default_error)
    context = _age_context(reader, notes) if ages else np.zeros((len(table), 3))
    observations = observations_from_columns(
        reader,
        observables,
        default_error=default_error,
        context=context,
        context_names=AGE_COLUMNS,
    )
    _check_scale(observations)
    notes += _extrapolated(observations)
    return replace(observations, notes=(*observations.notes, *notes))


def npz_table(path: str | Path) -> Table:
    """Return the stars of an npz file in the layout of the TNG mocks, as a table.

    Raises
    ------
    DataFileError
        If the file is missing, empty or damaged.
    ObservationError
        If arrays are missing or do not fit together.
    """
    from astropy.table import Table

    path = Path(path)
    if not path.exists():
        msg = f"observations file '{path}' does not exist"
        raise DataFileError(msg)
    if path.is_file() and path.stat().st_size == 0:
        msg = f"observations file '{path}' is empty"
        raise DataFileError(msg)
    arrays = read_npz(path)
    missing = [k for k in ("abundances", "abundance_errs", "elements") if k not in arrays]
    if missing:
        msg = f"'{path}' lacks the array(s) {', '.join(missing)}; it has {', '.join(arrays)}"
        raise ObservationError(msg)
    for name in _NPZ_NUMBERS:
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            msg = f"'{path}': the array '{name}' does not hold numbers"
            raise ObservationError(msg)
    x, err = (arrays[k].astype(float) for k in ("abundances", "abundance_errs"))
    names = [_column_of(str(e)) for e in arrays["elements"]]
    if x.ndim != 2 or x.shape != err.shape or x.shape[1] != len(names):
        msg = f"'{path}': abundances {x.shape}, errors {err.shape} and {len(names)} elements differ"
        raise ObservationError(msg)
    if len(x) == 0:
        msg = f"observations file '{path}' has no rows"
        raise DataFileError(msg)
    table = Table()
    for k, name in enumerate(names):
        table[name], table[f"e_{name}"] = x[:, k], err[:, k]
    if "obs_time" in arrays and "obs_time_err" in arrays:
        shapes = arrays["obs_time"].shape, arrays["obs_time_err"].shape
        if shapes != ((len(x),), (len(x),)):
            msg = f"'{path}': obs_time and its errors have shapes {shapes} for {len(x)} stars"
            raise ObservationError(msg)
        table["t_birth"], table["e_t_birth"] = arrays["obs_time"], arrays["obs_time_err"]
    return table


def _column_of(element: str) -> str:
    """Return the column of an element symbol: Fe means [Fe/H], X means [X/Fe]."""
    symbol = element.strip().lower()
    if "_" in symbol or "/" in symbol:
        return symbol.replace("/", "_").strip("[]")
    return "fe_h" if symbol == "fe" else f"{symbol}_fe"


def _age_context(reader: ColumnReader, notes: list[str]) -> F64:
    """Return the context columns of birth times or ages; zeros where there are none."""
    n = len(reader.table)
    birth = reader.find(("t_birth", "obs_time", "birth_time"))
    column = birth or reader.find(("age", "age_gyr"))
    if column is None:
        return np.zeros((n, 3))
    value = reader.values(column, "Gyr")
    time = value if birth else T_END_GYR - value
    error_column = reader.find_error((column,))
    if error_column is None:
        error = _DEFAULT_AGE_ERROR * np.abs(time)
        notes.append(f"'{column}' has no errors; 20 % of the birth time assumed")
    else:
        error = reader.values(error_column, "Gyr")
    observed = np.isfinite(value)
    wrong = np.flatnonzero(observed & (np.abs(value) > _LARGEST_GYR))
    if wrong.size:
        msg = (
            f"{reader.source}: '{column}' is {value[wrong[0]]:g} Gyr in row {wrong[0]} "
            f"({wrong.size} row(s)); expected Gyr, or a column with a unit"
        )
        raise ObservationError(msg)
    bad = np.flatnonzero(observed & ~(np.isfinite(error) & (error > 0)))
    if bad.size:
        msg = f"{reader.source}: error of '{column}' must be positive; row {bad[0]} is not"
        raise ObservationError(msg)
    notes.append(f"birth times of {int(observed.sum())} stars used, from '{column}'")
    beyond = int((observed & ((time < 0) | (time > T_END_GYR))).sum())
    if beyond:
        notes.append(
            f"{beyond} star(s) have a birth time outside 0-{T_END_GYR:.2f} Gyr (an age above that "
            "of the Universe, or in the future); used as measured, with their errors"
        )
    columns = np.stack([time, error, np.ones(n)], 1)
    return np.where(observed[:, None], columns, 0.0)


def _check_scale(observations: Observations) -> None:
    """Raise when numbers cannot be logarithmic abundances."""
    x = observations.batch.x.numpy()
    seen = observations.batch.observed.numpy()
    bad = seen & (np.abs(np.where(seen, x, 0)) > _LARGEST_DEX)
    if bad.any():
        row, column = (int(v[0]) for v in np.nonzero(bad))
        name = observations.observables[column].name
        msg = (
            f"{observations.source}: '{name}' of star '{observations.id[row]}' is "
            f"{x[row, column]:g}; abundances are expected in dex relative to the Sun (Asplund et "
            "al. 2009)"
        )
        if x[row, column] < -_MARKS_OF_MISSING:
            msg += "; the option survey = 'apogee' or 'galah' reads such marks as missing"
        raise ObservationError(msg)


def _extrapolated(observations: Observations) -> list[str]:
    batch: Batch = observations.batch
    if batch.x_err is None:
        return []
    err = batch.x_err.numpy()
    low, high = ERROR_RANGE
    if any(o.name.endswith("_mg") for o in observations.observables):
        high *= 2**0.5  # errors of two [X/Fe] enter
    seen = batch.observed.numpy()
    tolerance = 1e-6
    outside = seen & ((err < low * (1 - tolerance)) | (err > high * (1 + tolerance)))
    rows = int(outside.any(1).sum())
    if not rows:
        return []
    return [
        f"{rows} star(s) have errors outside the {low}-{high:.2g} dex of training: extrapolated"
    ]
