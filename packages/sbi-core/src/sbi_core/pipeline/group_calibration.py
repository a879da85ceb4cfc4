r"""Calibration of combined posteriors on simulated groups with known truths.

A systematic error of f sigma in single-object posteriors grows to :math:`f\sqrt{N}` combined
sigma, so that single-object calibration never certifies a combination: groups of N simulated
objects, observed with the errors and missing values of the data at hand, are combined and compared
with the truths they were made from, drawn from the prior.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.components import Combiner
from sbi_core.diagnostics import Verdict, calibrate_gaussian, judge_z_rms
from sbi_core.errors import NotPositiveDefiniteError
from sbi_core.observations import Observations
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.pipeline.stages.simulate import fill
from sbi_core.rng import stream
from sbi_core.simulate.store import Shard, plan, read_all

__all__ = ["calibrate_groups"]

F64 = NDArray[np.float64]
Triple = tuple[F64, F64, F64]
_SUBSETS = 5  # disjoint subsets per group for small N
_OTHER_STREAMS = 1_000_003  # keeps group simulations apart from training simulations


def calibrate_groups(context: Context, verdicts: list[Verdict]) -> list[dict[str, Any]]:
    """Return entries of ``combined_calibration``, and append a verdict per size.

    Sizes above the number of observed objects are left out.
    """
    section = context.config.combine
    available = max(len(rows) for rows in context.observations.groups.values())
    sizes = sorted({n for n in section.sizes if n <= available} | {1})
    triples: dict[int, list[Triple]] = {n: [] for n in sizes}
    combiner = context.combiner()
    shards = _shards(context)
    fill(context, GroupSimulator(context.simulator), shards, "groups")
    context.progress.start("calibrate", len(shards), "groups")
    refused = 0
    for shard in shards:
        for n, found in _combine_subsets(context, combiner, _observe(context, shard), sizes):
            if found is None:
                refused += 1
            else:
                triples[n].append(found)
        context.progress.advance()
    if refused:
        verdicts.append(Verdict("warn", f"{refused} simulated groups could not be combined."))
    entries = [_entry(context, combiner.name, n, t, verdicts) for n, t in triples.items() if t]
    largest = entries[-1] if entries else {"n": 0, "z_rms": np.nan}
    context.progress.finish(f"z-rms {largest['z_rms']:.2f} at N = {largest['n']}")
    return entries


def _shards(context: Context) -> list[Shard]:
    """One shard per group, with spare rows in place of failed ones."""
    section = context.config.combine
    rows = int(np.ceil(1.05 * max(section.sizes))) + 3
    return plan(
        context.directory.groups,
        section.calibration_groups * rows,
        rows,
        context.config.seed + _OTHER_STREAMS,
        context.simulator_identity,
    )


def _observe(context: Context, shard: Shard) -> Observations:
    batch = read_all([shard])[0].succeeded
    rng = stream(shard.seed, "observe", shard.number)
    like = context.observations.batch
    return Observations.from_batch(context.simulator.observe_like(batch, like, rng))


def _combine_subsets(
    context: Context, combiner: Combiner, group: Observations, sizes: list[int]
) -> Iterator[tuple[int, Triple | None]]:
    """Yield mean, covariance and truth in unconstrained space for disjoint subsets."""
    theta = group.batch.theta
    assert theta is not None
    shared = context.space.select("global")
    columns = context.simulator.parameters.index(shared.names)
    truth = shared.to_unconstrained(theta[:1, columns])[0]
    for n in sizes:
        for k in range(min(_SUBSETS, len(group) // n)):
            try:
                combined = combiner.combine(context.posterior, group[k * n : (k + 1) * n])
            except NotPositiveDefiniteError:
                yield n, None
            else:
                yield n, (combined.z_mean, combined.z_cov, truth)


def _entry(
    context: Context,
    combiner: str,
    n: int,
    triples: list[Triple],
    verdicts: list[Verdict],
) -> dict[str, Any]:
    mean, cov, truth = (np.stack(v) for v in zip(*triples, strict=True))
    result = calibrate_gaussian(mean, cov, truth)
    groups = context.config.combine.calibration_groups
    name = f"'{combiner}' at N = {n}"
    verdicts.append(
        judge_z_rms(name, result.z_rms_joint, repeats=groups, pooled=mean.shape[1])
    )
    names = context.space.select("global").names
    return {
        "combiner": combiner,
        "n": n,
        "repeats": result.repeats,
        "z_rms": result.z_rms_joint,
        "coverage_68": float(result.coverage_68.mean()),
        "parameters": {
            p: {"z_rms": float(result.z_rms[k]), "coverage_68": float(result.coverage_68[k])}
            for k, p in enumerate(names)
        },
    }
