"""What a domain adds to the diagnostics and the report of a run.

A simulator that overrides :meth:`~sbi_core.Simulator.diagnose` or
:meth:`~sbi_core.Simulator.examine` returns :class:`Findings`: numbers for ``report.json`` (under
``domain``), verdicts that count as calibration gates, sections of the page, and datasets that
become groups of ``posterior.nc``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Drawing", "Findings", "Grid", "Section"]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of a section, with the sentence that says how to read it.

    Parameters
    ----------
    figure
        A matplotlib figure; it becomes inline SVG.
    caption
        How to read it.
    wide
        Whether it takes the full width of the page.
    """

    figure: Figure
    caption: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of a section: words, one row after the other.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells as they are printed.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the report page.

    Parameters
    ----------
    title
        Its heading.
    text
        Paragraphs above figures and tables.
    drawings, tables
        Figures and tables, in that order.
    """

    title: str
    text: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Grid] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """What a domain found.

    Parameters
    ----------
    numbers
        Finite JSON-serialisable numbers and words, merged into ``report["domain"]``.
    verdicts
        Outcome of every further gate: level (pass, warn, fail) and sentence.
    sections
        Sections of the page.
    datasets
        Groups of ``posterior.nc``, by name.
    flags
        Word of warning per object that deserves one, by identifier.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[tuple[Literal["pass", "warn", "fail"], str]] = ()
    sections: Sequence[Section] = ()
    datasets: Mapping[str, xr.Dataset] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
