"""Analyses: domain-specific results of a run.

A simulator holds physics, noise and files. Results beyond draws of the parameters belong to an
:class:`Analysis`: further calibration tests, derived quantities, refined draws, flags, figures. A
pipeline names its analysis like the other components; the default adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from numpy.typing import NDArray

from sbi_core.components import Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.posterior import Posterior, PosteriorSamples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Analysis", "Drawing", "Findings", "Grid", "NoAnalysis", "Section"]


class Analysis:
    """Domain-specific results. Subclass it; every method is optional.

    Attributes
    ----------
    name
        Registry name.
    simulator
        The run's simulator; set by :meth:`attach`.
    chunk
        Largest number of objects that :meth:`describe` receives at a time; None: no limit. Set
        it where objects are expensive: interrupted work loses at most one chunk.
    flag_meanings
        One sentence for every flag that :meth:`describe` sets: meaning and advice.
    reference
        What :meth:`make_reference` returned, where the run holds it; otherwise empty.
    """

    name: str
    simulator: Simulator
    chunk: int | None = None
    flag_meanings: ClassVar[Mapping[str, str]] = {}
    reference: Mapping[str, NDArray[Any]] = MappingProxyType({})

    def attach(self, simulator: Simulator) -> None:
        """Take the run's simulator."""
        self.simulator = simulator

    def check(self, posterior: Posterior, held_out: Batch, rng: Rng) -> Findings | None:
        """Test the calibration of derived quantities, which are not columns of theta.

        Parameters
        ----------
        posterior
            The trained posterior.
        held_out
            Observed simulations that no network has seen, with their truth.
        rng
            Random numbers.
        """
        return None

    def make_reference(self, posterior: Posterior, seed: int) -> Mapping[str, NDArray[Any]]:
        """Return what :meth:`describe` compares every object with, if it is slow to make.

        Called once per run, by the stage ``diagnose``; the run keeps the arrays. :meth:`describe`
        finds them in ``reference``, and makes them itself for runs that have none. Rename an array
        when its meaning changes, so that those of older runs are not used.

        Parameters
        ----------
        posterior
            The trained posterior.
        seed
            Root seed, the same as that of :meth:`describe`.
        """
        return {}

    def describe(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> PosteriorSamples:
        """Return the draws with everything for the tables of results.

        Called for some objects at a time, in worker processes too: the result for an object must
        not depend on the other objects. ``samples.described(...)`` adds derived quantities,
        columns and flags, and replaces draws.

        Parameters
        ----------
        posterior
            The trained posterior.
        objects
            The objects, n of them.
        samples
            Their draws, with support percentile and flags.
        seed
            Root seed; ``sbi_core.stream(seed, "...", str(objects.id[k]))`` is a generator of one
            object.
        """
        return samples

    def report(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> Findings | None:
        """Return numbers, sections and figures for the report of a run.

        Parameters
        ----------
        posterior
            The trained posterior.
        objects
            All objects of the run.
        samples
            Their draws as returned by :meth:`describe`.
        seed
            Root seed.
        """
        return None


class NoAnalysis(Analysis):
    """The default: nothing is added."""

    name = "none"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of a section, with a caption that explains how to read it.

    Parameters
    ----------
    figure
        A matplotlib figure; it becomes inline SVG.
    caption
        How to read it.
    wide
        True if it takes the full width of the page.
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
        Caption above the table.
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
