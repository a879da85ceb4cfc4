"""What an analysis reports: numbers, verdicts, sections of the page.

:meth:`~sbi_core.Analysis.check` and :meth:`~sbi_core.Analysis.report` return :class:`Findings`:
numbers for ``report.json`` (under ``domain``), verdicts that count as calibration tests, and
sections of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of a section: words, one row after the other.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Cells as they are printed.
    caption
        What it shows, above the table.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
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
