"""The stages of a run in order, one per module: their declarations, and the result they return."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbi_core.diagnostics import Verdict
from sbi_core.files.directory import RunDirectory, sha256_of
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context
from sbi_core.priors.space import canonical_hash
from sbi_core.simulate.nuisances import nuisance_hash

__all__ = ["STAGES", "Job", "StageResult", "StageSpec", "stage_names"]


@dataclass(frozen=True, slots=True)
class StageResult:
    """Outcome of a stage.

    Parameters
    ----------
    facts
        Numbers and words for the report; JSON-serialisable, kept in ``provenance.json``.
    verdicts
        Verdicts on the result.
    arrays
        Arrays for the report; kept in the file that :attr:`StageSpec.arrays` names.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict)


Job = Callable[[Context], StageResult | None]


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Declaration of a stage; its code is ``execute(context) -> StageResult`` in its own module.

    Parameters
    ----------
    name
        Name on the command line, and of the module in :mod:`sbi_core.pipeline.stages`.
    uses
        Configuration keys (prefixes) that decide about the result.
    after
        Earlier stages whose results it uses.
    outputs
        Files and folders it writes in the run directory.
    inputs
        Hashes of further inputs that decide about the result, by name.
    arrays
        File of the arrays it returns.
    optional
        True if stages of ``after`` may be missing.
    cheap
        True if it is repeated after a change of its input; other stages are refused until the
        user restarts them.
    ahead
        Stages after which part of its work can be done in the background; its module then has
        a function ``ahead`` (see :mod:`sbi_core.pipeline.ahead`).
    """

    name: Stage
    uses: tuple[str, ...]
    after: tuple[Stage, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]
    inputs: Callable[[Context], Mapping[str, str]] = lambda _: {}
    arrays: Callable[[RunDirectory], Path] | None = None
    optional: bool = False
    cheap: bool = False
    ahead: tuple[Stage, ...] = ()

    def execute(self, context: Context) -> StageResult:
        """Run the stage."""
        result: StageResult = self._module().execute(context)
        return result

    def work_ahead(self, context: Context, after: Stage) -> Job | None:
        """Return the job that can be done after another stage, if there is any."""
        job: Job | None = self._module().ahead(context, after)
        return job

    def _module(self) -> Any:
        """Import the module of the stage, which may be slow."""
        return importlib.import_module(f"sbi_core.pipeline.stages.{self.name}")


def _simulator(context: Context) -> Mapping[str, str]:
    return {"identity": context.simulator_identity}


def _observations(context: Context) -> Mapping[str, str]:
    path = context.config.infer.observations
    if not path:
        return {}
    file = context.directory.path(path)
    return {"observations sha256": sha256_of(file) if file.is_file() else "missing"}


def _combiners(context: Context) -> Mapping[str, str]:
    """Return hashes of emulator and nuisance parameters, where combiners use them."""
    emulate = context.config.emulate
    combiners = [context.bare_combiner(name) for name in context.combiners]
    inputs = {}
    if emulate.enabled and any(c.takes_emulator for c in combiners):
        inputs["emulator"] = canonical_hash(emulate.model_dump(mode="json"))
    if any(c.marginalises for c in combiners):
        inputs["nuisances"] = nuisance_hash(context.simulator)
    return inputs


STAGES: tuple[StageSpec, ...] = (
    StageSpec(
        "simulate",
        uses=("plugin", "seed", "simulator", "simulate.n", "simulate.shard_size"),
        after=(),
        outputs=lambda d: (d.sims,),
        inputs=_simulator,
    ),
    StageSpec(
        "emulate",
        uses=("emulate",),
        after=("simulate",),
        outputs=lambda d: (d.emulator,),
        ahead=("simulate",),
    ),
    StageSpec(
        "train",
        uses=("embedding", "estimator", "train"),
        after=("simulate",),
        outputs=lambda d: (d.estimator, d.metrics),  # but for the card, which the report writes
    ),
    StageSpec(
        "diagnose",
        uses=("diagnose", "analysis"),
        after=("train",),
        outputs=lambda d: (d.diagnostics, d.diagnose_sections, d.reference),
        arrays=lambda d: d.diagnostics,
    ),
    StageSpec(
        "infer",
        uses=("infer", "analysis"),
        after=("train",),
        outputs=lambda d: (d.posterior, d.summary, d.infer_sections),
        inputs=_observations,
    ),
    StageSpec(
        "combine",
        uses=("combiner", "combine"),
        after=("infer",),
        outputs=lambda d: (d.combined, d.combined_samples, d.combiners, d.groups),
        inputs=_combiners,
        arrays=lambda d: d.combined_samples,
        ahead=("simulate", "train"),  # groups, and what combiners learn from them
    ),
    StageSpec(
        "report",
        uses=("preset",),
        after=("simulate", "emulate", "train", "diagnose", "infer", "combine"),
        outputs=lambda d: (d.report_html, d.report_json, d.card),
        optional=True,
        cheap=True,
    ),
)


def stage_names() -> tuple[Stage, ...]:
    """Return the names of the stages in order."""
    return tuple(s.name for s in STAGES)
