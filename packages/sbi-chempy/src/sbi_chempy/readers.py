"""Reading stars: tables with one column per abundance, and npz files of arrays.

Tables (ECSV, FITS, CSV, VOTable, HDF5): ``c_fe fe_h he_fe mg_fe n_fe ne_fe o_fe si_fe`` as
catalogues write them (:mod:`sbi_chempy.columns`), with errors, and ages
(:mod:`sbi_chempy.ages`). ``[X/H]`` columns are converted with ``[Fe/H]``, and [X/Fe] to [X/Mg]
where the simulator observes that (:mod:`sbi_chempy.conversion`); surveys have presets
(:mod:`sbi_chempy.surveys`). NaN or masked means not measured.
npz: ``elements`` (k), values ``abundances``, ``x_fe`` or ``x_h`` (n, k), errors
``abundance_errs`` or inverse variances ``ivar`` (n, k); other arrays (n), such as ``id``,
``age`` or ``obs_time`` and ``obs_time_err`` [Gyr], are columns as in a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbi_chempy.ages import age_context, age_notes
from sbi_chempy.columns import add_named, listed, plain
from sbi_chempy.config import Bare, SurveyName
from sbi_chempy.conversion import add_converted
from sbi_chempy.frame import OBSERVED
from sbi_chempy.noise import AGE_COLUMNS, ERROR_RANGE
from sbi_chempy.surveys import apply_survey
from sbi_core import (
    ColumnReader,
    DataFileError,
    Observable,
    ObservationError,
    Observations,
    counted,
    observations_from_columns,
    read_npz,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["npz_table", "stars_of"]

_STAR_NAMES = (
    "star_name", "star", "main_id", "designation", "hip", "hd", "tic", "kic", "epic", "gaia_id",
    "source", "tmass_id", "target", "object", "cname", "gaia_dr3_source_id", "dr3_source_id",
    "gaiadr3", "gaia_dr3", "gaiaedr3", "gaia_edr3", "gaia", "2mass", "tyc", "kepid", "simbadname",
    "simbad_name", "starid", "uid", "specid", "obsid", "recno", "seq",
)  # fmt: skip
_FLAG = re.compile(r".*flags?(_.*)?|q_.*|.*_q(ual(ity)?)?")
_STAR_FLAG = re.compile(r"(aspcap|star)_?flags?|flag_sp.*|flags?|quality_?flags?")
_AGE = re.compile(r"(.*_)?((log|lg|log10|star)_?)?ages?(_.*)?|tau")
_NAME_AND_UNIT = re.compile(r"(.*\w.*?)[ _]*[\[(](dex|Gyr|Myr|yr)[\])]")
_TO = ("fe", "h", "mg")  # references
_NPZ_VALUES = ("abundances", "x_fe", "x_h")
_NPZ_ERRORS = ("abundance_errs", "ivar")
_NPZ_NUMBERS = (*_NPZ_VALUES, *_NPZ_ERRORS, "obs_time", "obs_time_err")


def stars_of(
    table: Table,
    source: str,
    observables: Sequence[Observable],
    *,
    default_error: float,
    ages: bool,
    survey: SurveyName | None = None,
    bare_columns: Bare | None = None,
    absolute: bool = False,
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
    bare_columns, absolute
        Meaning of elements without reference, and whether absolute abundances are converted
        (:mod:`sbi_chempy.columns`).

    Raises
    ------
    ObservationError
        If columns, units or values cannot be used; the message names rows and columns.
    """
    table = _with_units(table)
    reader = ColumnReader(table, source)
    if survey is not None:
        apply_survey(reader, survey)
    name = reader.find(_STAR_NAMES)
    if name is not None and not reader.ids()[1]:
        reader.add("id", reader.table[name])
    unused = add_named(reader, bare=bare_columns, absolute=absolute)
    if not any(reader.find((f"{o.name.partition('_')[0]}_{r}",)) for o in observables for r in _TO):
        _refuse(reader, unused)
    used = add_converted(reader, observables, default_error)
    context, age = age_context(reader) if ages else (np.zeros((len(table), 3)), "")
    _note_unused(reader, table.colnames, unused, used)
    _note_beside(reader, table.colnames, unused, survey, ages)
    observations = observations_from_columns(
        reader,
        observables,
        default_error=default_error,
        context=context,
        context_names=AGE_COLUMNS,
    )
    return _finished(observations, default_error, age)


def _with_units(table: Table) -> Table:
    """Return the table with the units of names such as ``Age [Myr]`` as units of its columns."""
    table = table.copy(copy_data=False)
    for column in table.colnames:
        match = _NAME_AND_UNIT.fullmatch(column)
        if match and match[1] not in table.colnames:
            table.rename_column(column, match[1])
            table[match[1]].unit = table[match[1]].unit or match[2]
    return table


def _refuse(reader: ColumnReader, unused: Mapping[str, str]) -> None:
    """Raise where columns that are not read look like the only abundances."""
    reasons = [f"'{c}': {why}" for c, why in unused.items() if "--" in why]
    if reasons:
        raise ObservationError(f"{reader.source}: no abundance is read; {'; '.join(reasons[:3])}")


def _note_unused(
    reader: ColumnReader, given: Sequence[str], unused: Mapping[str, str], used: set[str]
) -> None:
    """Note columns that look like abundances and are not used, by reason."""
    by_reason: dict[str, list[str]] = {}
    for column, reason in unused.items():
        if "unknown ending" in reason and column in reader.used:  # a limit, or a bound
            continue
        by_reason.setdefault(reason, []).append(column)
    for element in OBSERVED:
        for reference in _TO:
            other = reader.find((f"{element.lower()}_{reference}",))
            if other is not None and other in given and other not in used:
                why = "another column is read"
                if reference == "mg":
                    why = f"[{element}/Mg]; another column of the element is read"
                by_reason.setdefault(why, []).append(other)
    for reason, columns in by_reason.items():
        reader.notes.append(f"not used: {listed(columns)} ({reason})")


def _note_beside(
    reader: ColumnReader,
    given: Sequence[str],
    unused: Mapping[str, str],
    survey: SurveyName | None,
    ages: bool,
) -> None:
    """Note columns beside those that are read, by name, which are not read themselves."""
    read, skipped = ({plain(c).lower() for c in cs if len(c) > 1} for cs in (reader.used, unused))
    flags, ages_not_read, others = [], [], []
    for column in given:
        key = plain(column).lower()
        if column in reader.used or any(key == s or _is_beside(key, s) for s in skipped):
            continue
        if _FLAG.fullmatch(key) and (_STAR_FLAG.fullmatch(key) or _beside_one(key, read)):
            flags.append(column)
        elif ages and _AGE.fullmatch(key):
            ages_not_read.append(column)
        elif _beside_one(key, read):
            others.append(column)
    flagged = (
        f"flags that survey '{survey}' does not apply"
        if survey
        else "quality flags; --set simulator.survey=apogee or galah applies those of a survey"
    )
    for columns, reason in (
        (flags, flagged),
        (ages_not_read, "an age, or beside one: --column age=NAME reads it"),
        (others, "beside a column that is read; another error is read, or the name is unknown"),
    ):
        if columns:
            reader.notes.append(f"not used: {listed(columns)} ({reason})")


def _beside_one(key: str, names: Iterable[str]) -> bool:
    return any(_is_beside(key, name) for name in names)


def _is_beside(key: str, name: str) -> bool:
    """Return whether a name is another with something before or after it."""
    joined = len(name) > 3 and key != name and (key.startswith(name) or key.endswith(name))  # noqa: PLR2004
    return joined or key.startswith(f"{name}_") or key.endswith(f"_{name}") or f"_{name}_" in key


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
    if path.is_file() and path.stat().st_size == 0:
        msg = f"observations file '{path}' is empty: it must have a header and one row per object"
        raise DataFileError(msg)
    arrays = read_npz(path)
    values = next((k for k in _NPZ_VALUES if k in arrays), None)
    errors = next((k for k in _NPZ_ERRORS if k in arrays), None)
    lacking = [
        name
        for name, there in (
            ("elements", "elements" in arrays),
            ("abundances (or x_fe, x_h)", values),
            ("abundance_errs (or ivar)", errors),
        )
        if not there
    ]
    if lacking or values is None or errors is None:
        msg = f"'{path}' lacks {', '.join(lacking)}; its arrays are {', '.join(arrays)}"
        raise ObservationError(msg)
    for name in _NPZ_NUMBERS:
        if name in arrays and arrays[name].dtype.kind not in "fiu":
            msg = f"'{path}': the array '{name}' does not hold numbers"
            raise ObservationError(msg)
    x, err = (arrays[k].astype(float) for k in (values, errors))
    names = [_column_of(str(e), values == "x_h") for e in arrays["elements"]]
    if x.ndim != 2 or x.shape != err.shape or x.shape[1] != len(names):
        msg = f"'{path}': abundances {x.shape}, errors {err.shape} and {len(names)} elements differ"
        raise ObservationError(msg)
    if len(x) == 0:
        msg = f"observations file '{path}' has no rows: it must have one per object"
        raise DataFileError(msg)
    table = Table()
    if "id" in arrays:
        table["id"] = arrays["id"]
    error_name = "ivar_{}" if errors == "ivar" else "e_{}"
    for k, name in enumerate(names):
        table[name], table[error_name.format(name)] = x[:, k], err[:, k]
    others = [k for k in arrays if k not in ("elements", "id", *_NPZ_VALUES, *_NPZ_ERRORS)]
    for name in others:
        if arrays[name].shape == (len(x),):
            table[name] = arrays[name]
        elif name.startswith("obs_time") or _AGE.fullmatch(name.lower()):
            msg = f"'{path}': {name} has shape {arrays[name].shape} for {len(x)} stars"
            raise ObservationError(msg)
    return table


def _column_of(element: str, relative_to_h: bool) -> str:
    """Return the column of an element symbol: Fe means [Fe/H], X means [X/Fe] or [X/H]."""
    symbol = element.strip().lower()
    if "_" in symbol or "/" in symbol:
        return symbol.replace("/", "_").strip("[]")
    return f"{symbol}_h" if symbol == "fe" or relative_to_h else f"{symbol}_fe"


def _finished(observations: Observations, default_error: float, age: str) -> Observations:
    """Raise errors below those of training to its smallest; note those above, and ages."""
    batch = observations.batch
    if batch.x_err is None or batch.context is None or len(batch) == 0:
        return observations
    low, high = min(ERROR_RANGE[0], default_error), ERROR_RANGE[1]
    if any(o.name.endswith("_mg") for o in observations.observables):
        high *= 2**0.5  # errors of two [X/Fe] enter
    tolerance = 1e-6
    small = batch.observed & (batch.x_err < low * (1 - tolerance))
    large = batch.observed & (batch.x_err > high * (1 + tolerance))
    notes = [*observations.notes, *age_notes(batch.context.numpy(), age)]
    if bool(small.any()):
        notes.append(
            f"{counted(int(small.sum()), 'error')} of abundances below {low} dex, the smallest of "
            f"training: raised to {low}"
        )
    if bool(large.any()):
        notes.append(
            f"{counted(int(large.any(1).sum()), 'star')} with errors above the {high:.2g} dex of "
            "training: extrapolated"
        )
    err = batch.x_err.where(~small, batch.x_err.new_tensor(low))
    return replace(observations, batch=batch.with_(x_err=err), notes=tuple(notes))
