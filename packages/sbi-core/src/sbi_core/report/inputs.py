"""Everything the report page shows, as plain data.

The page is a function of one :class:`ReportInputs`: whoever fills it (a finished run, a notebook,
a test) decides where the numbers come from. Absent parts stay empty and leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Level", "ReportInputs", "is_comparison"]

F64 = NDArray[np.float64]
Level = Literal["pass", "warn", "fail"]


def is_comparison(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of ``combined`` is shown for comparison only, never to be quoted."""
    return "comparison_only" in entry.get("flags", ())


@dataclass(frozen=True)
class ReportInputs:
    """Content of a report.

    Parameters
    ----------
    report
        The dictionary of ``report.json``; any of its parts may be absent.
    parameters
        ``ParameterSpace.to_spec()["parameters"]`` of the simulator.
    inferred
        Column names the posterior is over, in the order of the arrays below.
    labels
        Column name to TeX, without dollars.
    history
        Rows of ``metrics.jsonl``: epoch, train_loss, val_loss, learning_rate, seconds.
    ranks
        SBC ranks (B, d) among ``draws`` draws.
    draws
        Number of draws behind ``ranks``.
    coverage_levels, coverage_values
        Nominal levels (L,) and measured coverage (L, d) or (L,).
    tarp_levels, tarp_ecp
        TARP curve, both (K,).
    truth_and_mean
        Truths, posterior means and standard deviations of test simulations, each (B, d).
    combined_samples
        Per combiner, draws (S, k) of the largest combination; the k columns are the parameters
        of its entry in ``report["combined"]``, in that order. Of several groups, the keys are
        ``group/combiner``.
    failures
        Why simulations failed: (reason, count).
    verdicts
        Outcome of every calibration gate: (level, sentence).
    notes
        What was excluded or converted on reading the observations.
    flagged
        Objects to look at: (id, reason).
    citations
        References to cite, one line each.
    command
        The command that makes this run again.
    config_toml
        The resolved configuration.
    literature
        Published values beside ours: ``{"label", "n", "parameters": {name: {"mean", "sd"}}}``.
    combiner
        The combiner the headline quotes. Empty: the first that is not for comparison only.
    warnings
        Sentence that a combiner has about its own results, by the name of the combiner.
    sections
        Records of the sections a domain adds (:func:`sbi_core.report.domain.section_records`).
    """

    report: Mapping[str, Any]
    parameters: Sequence[Mapping[str, Any]] = ()
    inferred: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    ranks: NDArray[np.integer[Any]] | None = None
    draws: int | None = None
    coverage_levels: F64 | None = None
    coverage_values: F64 | None = None
    tarp_levels: F64 | None = None
    tarp_ecp: F64 | None = None
    truth_and_mean: tuple[F64, F64, F64] | None = None
    combined_samples: Mapping[str, F64] = field(default_factory=dict)
    failures: Sequence[tuple[str, int]] = ()
    verdicts: Sequence[tuple[Level, str]] = ()
    notes: Sequence[str] = ()
    flagged: Sequence[tuple[str, str]] = ()
    citations: Sequence[str] = ()
    command: str = ""
    config_toml: str = ""
    literature: Sequence[Mapping[str, Any]] = ()
    combiner: str = ""
    warnings: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Mapping[str, Any]] = ()

    @property
    def combined(self) -> list[Mapping[str, Any]]:
        """Entries of ``report["combined"]`` that have parameters."""
        return [c for c in self.report.get("combined", ()) if c.get("parameters")]

    @property
    def main_combiner(self) -> str:
        """Combiner the headline quotes; empty when there is none to quote."""
        if self.combiner:
            return self.combiner
        return next((str(c["combiner"]) for c in self.combined if not is_comparison(c)), "")

    @property
    def headline(self) -> list[Mapping[str, Any]]:
        """The largest combination of every group by the main combiner."""
        best: dict[str, Mapping[str, Any]] = {}
        for entry in self.combined:
            group = str(entry.get("group", ""))
            larger = group not in best or entry["n"] > best[group]["n"]
            if entry["combiner"] == self.main_combiner and larger:
                best[group] = entry
        return list(best.values())

    def label(self, name: str) -> str:
        """Return the TeX label of a column; its name in upright letters when it has none."""
        plain = name.replace("_", r"\_")
        return self.labels.get(name) or rf"\mathrm{{{plain}}}"
