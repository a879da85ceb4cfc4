"""Stage ``infer``: posterior draws and a summary for every observed object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.analyses.findings import Findings
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import Verdict
from sbi_core.diagnostics.support import SupportScale
from sbi_core.files.directory import write_json
from sbi_core.files.posterior_file import write_posterior
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stage import StageResult
from sbi_core.posterior import PosteriorSamples
from sbi_core.report.domain import drawing_style, section_records
from sbi_core.rng import stream
from sbi_core.training.loop import known_rows

__all__ = ["UNSUPPORTED", "execute", "infer", "prior_draws", "support_scale"]

F64 = NDArray[np.float64]
UNSUPPORTED = 99.0  # percentile of held-out simulations above which an object is flagged
_SUMMARISED = 10_000  # simulations that are observed and summarised for the support score


def infer(context: Context, observations: Observations, draws: int) -> tuple[PosteriorSamples, Any]:
    """Return draws with flags, and the support percentile of every object."""
    samples = context.posterior.sample(observations, draws)
    percentile = _support(context, observations)
    flags = tuple("outside_training" if p > UNSUPPORTED else "" for p in percentile)
    return PosteriorSamples(samples.values, samples.space, samples.id, flags), percentile


def support_scale(context: Context, donors: Batch) -> SupportScale:
    """Return the scale of the support score for objects with errors and masks like ``donors``.

    Scored are the data, or their summaries where a simulator has some.
    """
    simulator, rng = context.simulator, stream(context.config.seed, "support")
    known = known_rows(context.training)
    ours = simulator.summaries(donors)
    if ours is donors:
        return SupportScale(ours, known, rng)
    some = known[np.sort(rng.permutation(len(known))[:_SUMMARISED])]
    theirs = simulator.summaries(simulator.observe(some, rng))  # noise is already in them
    return SupportScale(ours, theirs, rng)


def _support(context: Context, observations: Observations) -> F64:
    """Return the support percentiles of objects on their own scale."""
    if len(observations) == 0:
        return np.empty(0)
    scale = support_scale(context, observations.batch)
    return scale.percentile(context.simulator.summaries(observations.batch))


def prior_draws(context: Context, n: int = 1000) -> F64:
    """Return draws of the prior (n, d): simulated parameters where it has no density."""
    rng = stream(context.config.seed, "prior")
    if all(p.prior.has_density for p in context.space.parameters):
        return context.space.sample(n, rng)
    theta = known_rows(context.training).theta
    assert theta is not None
    rows = rng.integers(len(theta), size=n)
    return np.asarray(theta.double().cpu().numpy()[rows][:, list(context.training.columns)])


def _examine(
    context: Context, observations: Observations, samples: PosteriorSamples
) -> tuple[PosteriorSamples, Findings]:
    """Return draws with the simulator's flags added, and what it has to say about them."""
    with drawing_style():
        found = context.simulator.examine(
            context.posterior, observations, samples, stream(context.config.seed, "examine")
        )
        if found is None:
            return samples, Findings()
        if found.sections:
            records = section_records(found.sections, "infer")
            write_json(context.directory.infer_sections, records)
    flags = tuple(
        ",".join(filter(None, (f, found.flags.get(str(i), ""))))
        for i, f in zip(samples.id, samples.flags, strict=True)
    )
    return PosteriorSamples(samples.values, samples.space, samples.id, flags), found


def execute(context: Context) -> StageResult:
    """Infer every object and write posterior.nc and summary.ecsv."""
    observations = context.observations
    for note in observations.notes:
        context.progress.say(f"observations: {note}")
    draws = context.config.infer.draws
    context.progress.start("infer", len(observations), "objects")
    samples, percentile = infer(context, observations, draws)
    context.progress.advance(len(observations))
    samples, found = _examine(context, observations, samples)
    write_posterior(
        context.directory.posterior,
        samples,
        observations,
        percentile,
        prior=prior_draws(context),
        more=found.datasets,
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
    flags = dict(zip(map(str, samples.id), samples.flags, strict=True))
    flagged = [i for i, f in flags.items() if "outside_training" in f]
    context.progress.finish(f"{len(observations)} objects, {len(flagged)} outside the training set")
    facts = {
        "n": len(observations),
        "source": observations.source,
        "unsupported": len(flagged),
        "flagged": flagged[:100],
        "notes": list(observations.notes),
        "groups": len(np.unique(observations.group)),
        "domain": dict(found.numbers),
        "domain_flags": dict(found.flags),
    }
    return StageResult(facts, [Verdict(level, sentence) for level, sentence in found.verdicts])
