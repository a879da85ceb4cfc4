"""What an analysis reports: numbers, verdicts, sections of the page.

:meth:`~sbi_core.Analysis.check` and :meth:`~sbi_core.Analysis.report` return :class:`Findings`:
numbers for ``report.json`` (under ``domain``), verdicts that count as calibration tests, and
sections of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
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


Cell: TypeAlias = "str | tuple[float, float, float]"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of a section.

    Parameters
    ----------
    head
        Names of the columns, with units in brackets.
    rows
        Cells: words as they are printed, or an estimate as its (16, 50, 84 %) quantiles, which
        the report rounds as it rounds all others.
    caption
        What it shows, above the table.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


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
    """Results of an analysis for the report.

    Parameters
    ----------
    numbers
        Finite JSON-serialisable numbers and words, merged into ``report["domain"]``.
    verdicts
        Outcome of every further calibration test: level (pass, warn, fail) and sentence.
    sections
        Sections of the page.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[tuple[Literal["pass", "warn", "fail"], str]] = ()
    sections: Sequence[Section] = ()
