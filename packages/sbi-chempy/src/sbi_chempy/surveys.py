"""Column presets of stellar surveys: names, error columns, missing values and quality flags.

========== ============================= ======================================================
preset     columns read                  what counts as not measured
========== ============================= ======================================================
``apogee`` ``FE_H``, ``X_FE``,           -999, -9999, NaN;
           ``*_ERR``, ``APOGEE_ID``      ``*_FLAG`` not 0; error not positive. Stars with
                                         STAR_BAD (``ASPCAPFLAG`` bit 23) and repeats of a star
                                         (``EXTRATARG`` bit 4) are left out.
``galah``  ``fe_h``, ``X_fe``, ``e_*``,  -999, -9999, NaN; ``flag_*`` not 0 (1 is an upper
           ``sobject_id``                limit); error not positive. Stars with ``flag_sp`` not
                                         0 are left out.
========== ============================= ======================================================

Names follow APOGEE DR14-DR17 (``allStar``) and GALAH DR3-DR4; case does not matter. Flag columns
that a table lacks are not applied. Everything that is left out is counted in the notes. Abundances
are taken on the survey's own zero points: no offset to the scale of Asplund et al. 2009 is applied.

References:
    | Abdurro'uf et al. 2022, ApJS 259, 35 (APOGEE DR17)
    | Jönsson et al. 2020, AJ 160, 120 (flags of APOGEE abundances)
    | Buder et al. 2021, MNRAS 506, 150; Buder et al. 2025, PASA 42, e051 (GALAH DR3, DR4)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.config import SurveyName
from sbi_chempy.frame import OBSERVED
from sbi_core import ColumnReader, ObservationError, counted

__all__ = ["SURVEYS", "Survey", "apply_survey"]


@dataclass(frozen=True)
class Survey:
    """Column names of a survey; ``{}`` stands for an abundance such as ``mg_fe``.

    Parameters
    ----------
    name
        As in the option ``survey``.
    error, flag
        Forms of the error column and of the flag column (0 = good).
    identifier
        Columns with a name of the star, first match.
    ages
        Columns with an age [Gyr] and its error, first match.
    excluded
        Star-level flags: column to (bits that exclude a star, what they mean); -1 is any bit.
    """

    name: str
    error: str
    flag: str
    identifier: tuple[str, ...]
    ages: tuple[tuple[str, str], ...]
    excluded: Mapping[str, tuple[int, str]] = field(default_factory=dict)


SURVEYS: Mapping[str, Survey] = {
    "apogee": Survey(
        "apogee",
        error="{}_err",
        flag="{}_flag",
        identifier=("apogee_id",),
        ages=(
            ("age_lowess_correct", "age_total_error"),
            ("age", "age_total_error"),
            ("age", "age_err"),
            ("age", "e_age"),
        ),
        excluded={
            "aspcapflag": (1 << 23, "ASPCAPFLAG STAR_BAD"),
            "extratarg": (1 << 4, "EXTRATARG duplicate"),
        },
    ),
    "galah": Survey(
        "galah",
        error="e_{}",
        flag="flag_{}",
        identifier=("sobject_id",),
        ages=(("age_bstep", "e_age_bstep"), ("age", "e_age"), ("age", "age_err")),
        excluded={"flag_sp": (-1, "flag_sp not 0")},
    ),
}


def apply_survey(reader: ColumnReader, name: SurveyName) -> None:
    """Apply flags and names of a survey to a table; all that is not used is counted.

    Parameters
    ----------
    reader
        The table as the survey publishes it; changed in place.
    name
        Which survey.

    Raises
    ------
    ObservationError
        If no abundance column of the survey is there, or no star is left.
    """
    survey = SURVEYS[name]
    _leave_out(reader, survey)
    identifier = reader.find(survey.identifier)
    if identifier is not None:
        reader.add("id", reader.table[identifier])
    flagged, without_error, there = 0, 0, False
    for element in OBSERVED:
        abundance = "fe_h" if element == "Fe" else f"{element.lower()}_fe"
        column = reader.find((abundance,))
        if column is None:
            continue
        there = True
        value = reader.values(column, "dex")
        flag = reader.find((survey.flag.format(abundance),))
        if flag is not None:
            bad = np.isfinite(value) & (_bits(reader, flag) != 0)
            flagged += int(bad.sum())
            value[bad] = np.nan
        error = reader.find((survey.error.format(abundance),))
        if error is not None:
            sigma = reader.values(error, "dex")
            bad = np.isfinite(value) & ~(np.isfinite(sigma) & (sigma > 0))
            without_error += int(bad.sum())
            value[bad] = np.nan
        reader.add(column, value)
    if not there:
        have = ", ".join(reader.table.colnames[:20])
        msg = (
            f"{reader.source}: no abundance column of survey '{name}' (fe_h, mg_fe, ...); it has "
            f"{have}"
        )
        raise ObservationError(msg)
    _add_ages(reader, survey)
    for count, what in (
        (flagged, f"flagged by {survey.flag.format('*')}"),
        (without_error, "without a positive error"),
    ):
        if count:
            reader.notes.append(f"{counted(count, 'value')} {what}: treated as unobserved")


def _add_ages(reader: ColumnReader, survey: Survey) -> None:
    """Read the survey's ages [Gyr] where they and their errors are not at a mark."""
    for age, error in survey.ages:
        column, error_column = reader.find((age,)), reader.find((error,))
        if column is None or error_column is None:
            continue
        value, sigma = reader.values(column, "Gyr"), reader.values(error_column, "Gyr")
        bad = np.isfinite(value) & ~((value > 0) & (sigma > 0))
        if bad.any():
            reader.notes.append(
                f"{counted(int(bad.sum()), 'age')} without a positive value and error: treated as "
                "unobserved"
            )
        reader.chosen.setdefault("age", column)
        reader.add("age", np.where(bad, np.nan, value))
        reader.add("e_age", np.where(bad, np.nan, sigma))
        return


def _leave_out(reader: ColumnReader, survey: Survey) -> None:
    for name, (bits, meaning) in survey.excluded.items():
        column = reader.find((name,))
        if column is None:
            continue
        bad = (_bits(reader, column) & bits) != 0
        reader.leave_out(bad, f"survey_flag:{column}", meaning, [""] * len(bad))
    if len(reader.excluded) == len(reader.table):
        msg = f"{reader.source}: no star is left, all are excluded by the survey's flags"
        raise ObservationError(msg)


def _bits(reader: ColumnReader, column: str) -> NDArray[np.int64]:
    values = reader.values(column)
    return np.where(np.isfinite(values), values, 0).astype(np.int64)
