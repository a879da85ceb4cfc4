"""Stage ``infer``: posterior draws and a summary for every observed object."""

from __future__ import annotations

from typing import Any

import numpy as np

from sbi_core.diagnostics.support import support_percentile
from sbi_core.observations import Observations
from sbi_core.pipeline.context import Context
from sbi_core.posterior import PosteriorSamples
from sbi_core.records.posterior_file import write_posterior
from sbi_core.rng import stream
from sbi_core.train import known_rows

__all__ = ["UNSUPPORTED", "execute", "infer"]

UNSUPPORTED = 99.0  # percentile of held-out simulations above which an object is flagged


def infer(context: Context, observations: Observations, draws: int) -> tuple[PosteriorSamples, Any]:
    """Return draws with flags, and the support percentile of every object."""
    samples = context.posterior.sample(observations, draws)
    percentile = support_percentile(
        observations.batch, known_rows(context.training), stream(context.config.seed, "support")
    )
    flags = tuple("outside_training" if p > UNSUPPORTED else "" for p in percentile)
    return PosteriorSamples(samples.values, samples.space, samples.id, flags), percentile


def execute(context: Context) -> dict[str, Any]:
    """Infer every object and write posterior.nc and summary.ecsv."""
    observations = context.observations
    for note in observations.notes:
        context.progress.say(f"observations: {note}")
    draws = context.config.infer.draws
    context.progress.start("infer", len(observations), "objects")
    samples, percentile = infer(context, observations, draws)
    context.progress.advance(len(observations))
    write_posterior(
        context.directory.posterior,
        samples,
        observations,
        percentile,
        prior=context.space.sample(1000, stream(context.config.seed, "prior")),
    )
    table = samples.summary()
    table["support_percentile"] = percentile
    table.meta |= {
        "plugin": context.config.plugin,
        "prior": context.space.hash,
        "source": observations.source,
        "draws": draws,
    }
    table.write(context.directory.summary, format="ascii.ecsv", overwrite=True)
    flagged = [str(i) for i, f in zip(samples.id, samples.flags, strict=True) if f]
    context.progress.finish(f"{len(observations)} objects, {len(flagged)} outside the training set")
    return {
        "n": len(observations),
        "source": observations.source,
        "unsupported": len(flagged),
        "flagged": flagged[:100],
        "notes": list(observations.notes),
        "groups": len(np.unique(observations.group)),
    }
