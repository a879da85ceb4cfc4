r"""Extinction by dust of the Galaxy: which fluxes are corrected for it, and the correction.

A flux is divided by its transmission: column ``mw_transmission_b``, :math:`10^{-0.4 A_b}` with
``extinction_b`` [mag], or :math:`A_b = R_b\,E(B-V)` with a column ``ebv`` (map of Schlegel,
Finkbeiner & Davis). Where neither the table nor the names of its columns tell, the user must.

References:
    | Schlafly & Finkbeiner 2011, ApJ 737, 103, table 6, R_V = 3.1 (SDSS)
    | Wyder et al. 2007, ApJS 173, 293 (GALEX)
    | legacysurvey.org, Galactic extinction coefficients (Legacy Surveys)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sbi_core import ColumnReader, ObservationError, counted

__all__ = ["Choice", "Measured", "correct_extinction"]

F64 = NDArray[np.float64]
Choice = Literal["columns", "corrected", "none"]
_LEGACY = {"u": 3.995, "g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
_TAKEN = {
    "": "taken as corrected for Galactic extinction, by the names of the columns",
    "corrected": "taken as corrected for Galactic extinction, as chosen",
    "none": "NOT corrected for Galactic extinction, as chosen",
}
_LOSS = ("extinction_{}", "ext_{}", "a_{}", "{}_extinction", "ag_{}")
_EBV = ("ebv", "e_bv", "eb_v", "e_b_v", "ebv_sfd", "sfd_ebv", "ebv_sfd98", "ebmv",
        "ebv_planck", "galactic_ebv", "mw_ebv")  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """The fluxes of one band of a table.

    Parameters
    ----------
    band
        Its name.
    index
        Its place in the fluxes.
    ratio
        A / E(B-V); None: unknown.
    column
        Where they stand.
    names
        The band in names of columns.
    corrected
        Corrected for Galactic extinction, by the definition of the column: ``"maybe"`` where a
        transmission beside it, or the user, overrules that.
    legacy
        Of the Legacy Surveys.
    """

    band: str
    index: int
    ratio: float | None
    column: str
    names: tuple[str, ...]
    corrected: bool | Literal["maybe"]
    legacy: bool


def correct_extinction(
    reader: ColumnReader,
    measured: Sequence[Measured],
    flux: F64,
    sigma: F64,
    choice: Choice | None = None,
) -> list[str]:
    """Correct fluxes and errors (n, B) in place; return notes on what was done, band by band.

    Raises
    ------
    ObservationError
        If columns are not known to be corrected, the table has nothing to correct them with, and
        the user has not chosen.
    """
    by_column: list[str] = []
    by_colour: list[str] = []
    taken: dict[str, list[str]] = {}
    ignored: list[str] = []
    open_question: list[str] = []
    doubtful: list[tuple[str, str]] = []
    lost = 0
    for m in measured:
        share = reader.find(f"mw_transmission_{name}" for name in m.names)
        loss = reader.find(form.format(name) for form in _LOSS for name in m.names)
        colour = reader.find(_EBV)
        by_name = m.corrected is True
        if m.corrected == "maybe" and not share and choice is None:
            if loss or (colour and m.ratio is not None):
                doubtful.append((m.column, str(loss or colour)))
                continue
            by_name = True
        if by_name or choice in ("corrected", "none"):
            taken.setdefault("" if by_name else str(choice), []).append(m.band)
            ignored += [m.column] if loss and by_name else []
            continue
        k = m.index
        ratio = _LEGACY.get(m.band, m.ratio) if m.legacy else m.ratio
        if share:
            through = reader.numbers(share)
            by_column.append(f"{m.band} {reader.written(share)}")
        elif loss:
            through = _transmission(reader.numbers(loss))
            by_column.append(f"{m.band} {reader.written(loss)}")
        elif colour and ratio is not None:
            through = _transmission(ratio * reader.numbers(colour))
            by_colour.append(f"{m.band} {ratio:g}")
        else:
            open_question.append(m.column)
            continue
        through = np.where((through > 0) & (through < 1.5), through, np.nan)
        lost += int((np.isfinite(flux[:, k]) & np.isnan(through)).sum())
        flux[:, k], sigma[:, k] = flux[:, k] / through, sigma[:, k] / through
    if doubtful:
        column, other = (reader.written(c) for c in doubtful[0])
        msg = (
            f"{reader.source}: is '{column}' to be corrected for Galactic extinction with the "
            f"column '{other}'? Give --set simulator.extinction=columns (correct it), or "
            "=corrected (it is corrected)"
        )
        raise ObservationError(msg)
    if open_question:
        _ask(reader, open_question, choice)
    notes = [f"corrected for Galactic extinction: {', '.join(by_column)}"] if by_column else []
    if by_colour:
        excess = reader.written(str(reader.find(_EBV)))
        notes.append(
            f"corrected for Galactic extinction with '{excess}', A = R E(B-V): R of "
            f"{', '.join(by_colour)}"
        )
    for why, bands in taken.items():
        notes.append(f"{_TAKEN[why]}: {' '.join(bands)}")
    if ignored:
        notes.append(
            f"extinction not applied to {', '.join(ignored)}: these names mean corrected values"
        )
    if lost:
        notes.append(f"{counted(lost, 'value')} masked, whose extinction is missing")
    return notes


def _transmission(loss: F64) -> F64:
    with np.errstate(over="ignore"):
        return np.asarray(10.0 ** (-0.4 * loss))


def _ask(reader: ColumnReader, columns: list[str], choice: Choice | None) -> None:
    listed = ", ".join(reader.written(c) for c in columns)
    forms = "extinction_b [mag], mw_transmission_b or ebv"
    msg = (
        f"{reader.source}: no column {forms} to correct {listed} with (simulator.extinction = "
        "columns)"
        if choice
        else f"{reader.source}: are {listed} corrected for Galactic extinction? The table has no "
        f"column {forms} to correct them with: add one, or give --set simulator.extinction="
        "corrected (they are corrected) or =none (they are not; use them all the same)"
    )
    raise ObservationError(msg)
