"""The stages of a run in order, one per module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sbi_core.files.directory import sha256_of
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stage import StageSpec
from sbi_core.priors.space import canonical_hash

__all__ = ["STAGES", "stage_names"]


def _simulator(context: Context) -> Mapping[str, str]:
    return {"identity": context.simulator_identity}


def _observations(context: Context) -> Mapping[str, str]:
    path = context.config.infer.observations
    if not path:
        return {}
    file = Path(path)
    return {"observations sha256": sha256_of(file) if file.is_file() else "missing"}


def _emulator(context: Context) -> Mapping[str, str]:
    """Return the options of the emulator, where a combiner uses it."""
    emulate = context.config.emulate
    combiners = [context.bare_combiner(name) for name in context.combiners]
    if not emulate.enabled or not any(c.takes_emulator for c in combiners):
        return {}
    return {"emulator": canonical_hash(emulate.model_dump(mode="json"))}


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
        outputs=lambda d: (d.diagnostics, d.diagnose_sections),
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
        inputs=_emulator,
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
