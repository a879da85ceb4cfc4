r"""Calibration of combined posteriors on simulated groups with known truths.

A systematic error of f sigma in single-object posteriors grows to :math:`f\sqrt{N}` combined
sigma, so that single-object calibration never certifies a combination: groups of N simulated
objects, observed with the errors and missing values of the data at hand, are combined and compared
with the truths they were made from, drawn from the prior. At small N several disjoint subsets of a
group are used; ranks are tested on the first of each, since its subsets share their truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.components import Combiner
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import (
    GaussianCalibration,
    Verdict,
    calibrate_gaussian,
    judge_sbc_all,
    judge_z_rms,
)
from sbi_core.errors import NotPositiveDefiniteError
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.groups import SimulatedGroups
from sbi_core.priors.space import ParameterSpace

__all__ = ["calibrate_groups", "test_groups"]

F64 = NDArray[np.float64]
Triple = tuple[F64, F64, F64]  # mean, covariance, truth
_SUBSETS = 5  # disjoint subsets per group for small N
_SPARE = 1.05  # objects simulated per object combined, for failed simulations


def test_groups(context: Context) -> SimulatedGroups | None:
    """Return the groups that the combination is tested on, if it is."""
    section = context.config.combine
    if not section.calibration_groups:
        return None
    size = int(np.ceil(_SPARE * max(section.sizes)))
    return SimulatedGroups(context, "test", section.calibration_groups, size)


def calibrate_groups(
    context: Context, combiner: Combiner, groups: SimulatedGroups
) -> tuple[list[dict[str, Any]], list[Verdict]]:
    """Return the entries of ``combined_calibration``, one per size, and the verdicts.

    Sizes above the number of observed objects are left out.
    """
    available = max(len(rows) for rows in context.observations.groups.values())
    sizes = sorted({n for n in context.config.combine.sizes if n <= available} | {1})
    groups.simulate()
    context.progress.start("calibrate", len(groups), "groups")
    space = context.space.select("global")
    triples: dict[int, list[tuple[int, Triple]]] = {n: [] for n in sizes}
    refused = 0
    for number, group in enumerate(groups):
        for n, triple in _combine_subsets(context, combiner, group, space, sizes):
            if triple is None:
                refused += 1
            else:
                triples[n].append((number, triple))
        context.progress.advance()
    verdicts = []
    if refused:
        verdicts.append(Verdict("warn", f"{refused} simulated groups could not be combined."))
    judged = [_entry(combiner.name, space, n, t, len(groups)) for n, t in triples.items() if t]
    entries = [entry for entry, _ in judged]
    verdicts += [verdict for _, verdict in judged]
    if entries:
        verdicts += _judge_ranks(entries)
        last = entries[-1]
        context.progress.finish(f"{combiner.name}: z-rms {last['z_rms']:.2f} at N = {last['n']}")
    return entries, verdicts


def _combine_subsets(
    context: Context,
    combiner: Combiner,
    group: Observations,
    space: ParameterSpace,
    sizes: list[int],
) -> Iterator[tuple[int, Triple | None]]:
    """Yield mean, covariance and truth in unconstrained space for disjoint subsets."""
    theta = group.batch.theta
    assert theta is not None
    columns = [group.truth_names.index(name) for name in space.names]
    truth = space.to_unconstrained(theta[:1, columns])[0]
    subsets = [
        (n, slice(k * n, (k + 1) * n)) for n in sizes for k in range(min(_SUBSETS, len(group) // n))
    ]
    try:
        combined = combiner.subset_moments(context.posterior, group, [s for _, s in subsets])
    except NotPositiveDefiniteError:  # some of them: one by one
        for n, s in subsets:
            try:
                ((mean, cov),) = combiner.subset_moments(context.posterior, group[s], [slice(None)])
            except NotPositiveDefiniteError:
                yield n, None
            else:
                yield n, (mean, cov, truth)
        return
    for (n, _), (mean, cov) in zip(subsets, combined, strict=True):
        yield n, (mean, cov, truth)


def _entry(
    combiner: str,
    space: ParameterSpace,
    n: int,
    triples: list[tuple[int, Triple]],
    groups: int,
) -> tuple[dict[str, Any], Verdict]:
    """Return the entry of one size, and the verdict on its z-rms."""
    result = _calibration([triple for _, triple in triples])
    ranks = _calibration(list({number: t for number, t in reversed(triples)}.values()))
    name = f"{combiner}, N = {n}"
    verdict = judge_z_rms(name, result.z_rms_joint, repeats=groups, pooled=space.z_dim)
    entry = {
        "combiner": combiner,
        "n": n,
        "repeats": result.repeats,
        "z_rms": result.z_rms_joint,
        "coverage_68": float(result.coverage_68.mean()),
        "coverage_95": float(result.coverage_95.mean()),
        "parameters": {
            p: {
                "z_rms": float(result.z_rms[k]),
                "coverage_68": float(result.coverage_68[k]),
                "coverage_95": float(result.coverage_95[k]),
                "sbc_p": float(ranks.sbc_p[k]),
            }
            for k, p in enumerate(space.names)
        },
    }
    return entry, verdict


def _calibration(triples: list[Triple]) -> GaussianCalibration:
    mean, cov, truth = (np.stack(v) for v in zip(*triples, strict=True))
    return calibrate_gaussian(mean, cov, truth)


def _judge_ranks(entries: list[dict[str, Any]]) -> list[Verdict]:
    """Judge the ranks of all parameters and sizes together: 1 % false alarms for all of them.

    A warning at most: ranks see shifts that leave error bars right within the tolerance of z-rms.
    """
    p = {
        f"{name} (combined, N = {entry['n']})": parameter["sbc_p"]
        for entry in entries
        for name, parameter in entry["parameters"].items()
    }
    judged = judge_sbc_all(list(p), list(p.values()))
    return [v if v.level == "pass" else replace(v, level="warn") for v in judged]
