"""Column presets of stellar surveys: names, error columns, missing values and quality flags.

========== ============================= ======================================================
preset     columns read                  what counts as not measured
========== ============================= ======================================================
``apogee`` ``FE_H``, ``X_FE``,           -999 and below (-9999 marks missing values), NaN;
           ``*_ERR``, ``APOGEE_ID``      ``*_FLAG`` not 0; error not positive. Stars with
                                         STAR_BAD (``ASPCAPFLAG`` bit 23) and repeats of a star
                                         (``EXTRATARG`` bit 4) are left out.
``galah``  ``fe_h``, ``X_fe``, ``e_*``,  -999 and below, NaN; ``flag_*`` not 0 (1 is an upper
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
from typing import Literal

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from sbi_chempy.frame import OBSERVED
from sbi_core import ColumnReader, ObservationError

__all__ = ["SURVEYS", "Survey", "SurveyName", "standard_columns"]

SurveyName = Literal["apogee", "galah"]
_MISSING_BELOW = -998.0  # surveys write -999 or -9999 where nothing was measured


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
    excluded
        Star-level flags: column to (bits that exclude a star, what they mean); -1 is any bit.
    """

    name: str
    error: str
    flag: str
    identifier: tuple[str, ...]
    excluded: Mapping[str, tuple[int, str]] = field(default_factory=dict)


SURVEYS: Mapping[str, Survey] = {
    "apogee": Survey(
        "apogee",
        error="{}_err",
        flag="{}_flag",
        identifier=("apogee_id",),
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
        excluded={"flag_sp": (-1, "flag_sp not 0")},
    ),
}


def standard_columns(table: Table, name: SurveyName, source: str) -> tuple[Table, list[str]]:
    """Return a table with standard columns, only good values, and notes about the rest.

    Parameters
    ----------
    table
        As the survey publishes it.
    name
        Which survey.
    source
        File name, for messages.

    Raises
    ------
    ObservationError
        If no abundance column of the survey is there, or no star is left.
    """
    survey = SURVEYS[name]
    reader = ColumnReader(table, source, missing=())  # counted here
    good, notes = _good_stars(reader, survey)
    out = Table()
    identifier = reader.find(survey.identifier)
    if identifier is not None:
        out["id"] = [str(v).strip() for v in table[identifier][good]]
    marked, flagged, without_error = 0, 0, 0
    for element in OBSERVED:
        abundance = "fe_h" if element == "Fe" else f"{element.lower()}_fe"
        column = reader.find((abundance,))
        if column is None:
            continue
        value = reader.values(column, "dex")[good]
        missing = np.isfinite(value) & (value < _MISSING_BELOW)
        marked += int(missing.sum())
        value[missing] = np.nan
        flag = reader.find((survey.flag.format(abundance),))
        if flag is not None:
            bad = np.isfinite(value) & (_bits(reader, flag)[good] != 0)
            flagged += int(bad.sum())
            value[bad] = np.nan
        error = reader.find((survey.error.format(abundance),))
        if error is not None:
            sigma = reader.values(error, "dex")[good]
            bad = np.isfinite(value) & ~(np.isfinite(sigma) & (sigma > 0))
            without_error += int(bad.sum())
            value[bad] = np.nan
            out[f"e_{abundance}"] = np.where(np.isfinite(value), sigma, np.nan)
        out[abundance] = value
    if not any(c.endswith(("_fe", "_h")) for c in out.colnames):
        have = ", ".join(table.colnames[:20])
        msg = f"{source}: no abundance column of survey '{name}' (fe_h, mg_fe, ...); it has {have}"
        raise ObservationError(msg)
    _copy_others(table, out, reader, good)
    for count, what in (
        (marked, "value(s) at the mark of missing values"),
        (flagged, f"value(s) flagged by {survey.flag.format('*')}"),
        (without_error, "value(s) without a positive error"),
    ):
        if count:
            notes.append(f"survey '{name}': {count} {what}, treated as not observed")
    return out, notes


def _good_stars(reader: ColumnReader, survey: Survey) -> tuple[NDArray[np.bool_], list[str]]:
    good = np.ones(len(reader.table), dtype=bool)
    notes = []
    for name, (bits, meaning) in survey.excluded.items():
        column = reader.find((name,))
        if column is None:
            continue
        bad = (_bits(reader, column) & bits) != 0
        if bad.any():
            notes.append(f"survey '{survey.name}': {int(bad.sum())} star(s) left out: {meaning}")
        good &= ~bad
    if not good.any():
        msg = f"{reader.source}: no star is left, all are excluded by the survey's flags"
        raise ObservationError(msg)
    return good, notes


def _bits(reader: ColumnReader, column: str) -> NDArray[np.int64]:
    values = reader.values(column)
    return np.where(np.isfinite(values), values, 0).astype(np.int64)


def _copy_others(table: Table, out: Table, reader: ColumnReader, good: NDArray[np.bool_]) -> None:
    """Keep groups and ages."""
    names = ("group", "galaxy", "cluster", "t_birth", "age", "age_gyr")
    forms = ("{}", "e_{}", "{}_err", "{}_error")
    for wanted in (form.format(n) for n in names for form in forms):
        column = reader.find((wanted,))
        if column is not None and wanted not in out.colnames:
            out[wanted] = table[column][good]
