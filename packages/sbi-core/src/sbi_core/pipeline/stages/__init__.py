"""The stages of a run, one per module: ``execute(context) -> facts`` and what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context

__all__ = ["STAGES", "StageSpec", "stage_names"]

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage.

    Parameters
    ----------
    name
        Its name on the command line.
    module
        Module with ``execute(context)``, imported when the stage runs.
    uses
        Configuration keys (prefixes) that decide about its result.
    after
        Stages whose result it uses.
    outputs
        What it writes below the run directory.
    """

    name: Stage
    module: str
    uses: tuple[str, ...]
    after: tuple[Stage, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]

    def execute(self, context: Context) -> Mapping[str, Any]:
        """Run the stage."""
        import importlib

        found: Mapping[str, Any] = importlib.import_module(self.module).execute(context)
        return found


def _module(name: str) -> str:
    return f"sbi_core.pipeline.stages.{name}"


STAGES: tuple[StageSpec, ...] = (
    StageSpec(
        "simulate",
        _module("simulate"),
        ("plugin", "seed", "simulator", "simulate.n", "simulate.shard_size"),
        (),
        lambda d: (d.sims,),
    ),
    StageSpec("emulate", _module("emulate"), ("emulate",), ("simulate",), lambda d: (d.emulator,)),
    StageSpec(
        "train",
        _module("train"),
        ("embedding", "estimator", "train"),
        ("simulate",),
        lambda d: (d.estimator, d.metrics),  # but for the card, which the report writes
    ),
    StageSpec(
        "diagnose",
        _module("diagnose"),
        ("diagnose",),
        ("train",),
        lambda d: (d.diagnostics, d.diagnose_sections),
    ),
    StageSpec(
        "infer",
        _module("infer"),
        ("infer",),
        ("train",),
        lambda d: (d.posterior, d.summary, d.infer_sections),
    ),
    StageSpec(
        "combine",
        _module("combine"),
        ("combiner", "combine"),
        ("infer",),
        lambda d: (d.combined, d.combined_samples, d.combiners, d.groups),
    ),
    StageSpec(
        "report",
        _module("report"),
        ("preset",),
        ("simulate", "emulate", "train", "diagnose", "infer", "combine"),
        lambda d: (d.report_html, d.report_json, d.card),
    ),
)


def stage_names() -> tuple[Stage, ...]:
    """Return the names of the stages in order."""
    return tuple(s.name for s in STAGES)
