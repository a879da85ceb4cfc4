r"""Simulated groups of objects that share one truth, and the calibration of combinations on them.

A systematic error of f sigma in single-object posteriors grows to :math:`f\sqrt{N}` combined
sigma, so that single-object calibration never certifies a combination: groups of N simulated
objects, observed with the errors and missing values of the data, are combined and compared with
the truths they were made from, drawn from the prior.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core.combiners.moments import truth_of
from sbi_core.components import Combiner, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import (
    Verdict,
    calibrate_gaussian,
    judge_sbc_all,
    judge_z_rms,
)
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages.simulate import fill
from sbi_core.priors.space import ParameterSpace, canonical_hash
from sbi_core.rng import as_generator, stream
from sbi_core.simulate.nuisances import disturbed, draw_groups, extended, nuisance_hash
from sbi_core.simulate.store import Shard, plan, read_all

__all__ = ["GroupSimulator", "SimulatedGroups", "calibrate_groups", "test_groups"]

Purpose = Literal["correction", "test"]
_SEED_OF = {"test": 1_000_003, "correction": 2_000_003}  # apart from training simulations
# tests use the prior; corrections learn its tails, too, and do not depend on the distribution
_SPREAD_OF = {"test": 1.0, "correction": 1.25}
_ROWS_PER_SHARD = 20_000


class GroupSimulator(Simulator):
    """Draws groups: one draw of the global parameters, fresh local ones for every object.

    Parameters
    ----------
    simulator
        The simulator of single objects.
    size
        Objects per group.
    spread
        Width of the distribution of the shared parameters, relative to the prior.
    marginalise
        Draw nuisance parameters, too, one draw per group; theta then has further columns, see
        :mod:`sbi_core.simulate.nuisances`.
    all_on
        No family of nuisance parameters has its nominal value in any group.
    """

    def __init__(
        self,
        simulator: Simulator,
        size: int,
        spread: float = 1.0,
        *,
        marginalise: bool = False,
        all_on: bool = False,
    ) -> None:
        self.inner = simulator
        self.size = size
        self.spread = spread
        self.marginalise = marginalise
        self.all_on = all_on
        self.name = f"groups of {simulator.name}"
        self.version = simulator.version
        self.parameters = extended(simulator) if marginalise else simulator.parameters
        self.observables = simulator.observables

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Simulate single objects."""
        return self.inner.simulate(theta, rng)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n rows, the groups one after the other."""
        gen = as_generator(rng)
        parameters = self.inner.parameters
        theta = parameters.sample(n, gen)
        shared = np.flatnonzero([scope == "global" for scope in parameters.scopes])
        space = parameters.select("global")
        group = np.arange(n) // self.size
        truth = theta[:: self.size][:, shared]
        if self.spread != 1.0:
            truth = space.from_unconstrained(self.spread * space.to_unconstrained(truth))
        theta[:, shared] = truth[group]
        if self.marginalise:
            batch = draw_groups(self.inner, theta, group, gen, all_on=self.all_on)
        else:
            batch = self.simulate(theta, gen)
        return batch.with_(split_key=torch.as_tensor(group))


@dataclass(frozen=True)
class SimulatedGroups:
    """Groups for one purpose; iterate to observe them with errors and masks of the data.

    Parameters
    ----------
    context
        The run.
    purpose
        Their use: groups that test a correction are different from those it was trained on.
    count, size
        Number of groups, and of objects in each (failed simulations make a group smaller).
    owner
        Combiner that uses them, if it is not the run's: its groups have a separate folder.
    marginalise
        Nuisance parameters are drawn, too. Every second group that a combiner learns from is then
        observed like training simulations, not like the data, so that it can be used for others.
    """

    context: Context
    purpose: Purpose
    count: int
    size: int
    owner: str = ""
    marginalise: bool = False

    def __len__(self) -> int:
        return self.count

    @property
    def present(self) -> bool:
        """True if all files exist."""
        return all(shard.path.exists() for shard in self._shards)

    def simulate(self) -> None:
        """Simulate the groups that are missing."""
        simulator = GroupSimulator(
            self.context.simulator,
            self.size,
            self._spread,
            marginalise=self.marginalise,
            all_on=self.purpose == "test",
        )
        fill(self.context, simulator, self._shards, "groups")

    @property
    def identity(self) -> str:
        """Hash of what the groups are drawn from."""
        return canonical_hash(
            {
                "simulator": self.context.simulator_identity,
                "size": self.size,
                "spread": self._spread,
                "nuisances": nuisance_hash(self.context.simulator) if self.marginalise else None,
            }
        )

    @property
    def _spread(self) -> float:
        # a network that marginalises learns the posterior under the distribution of its groups
        return 1.0 if self.marginalise else _SPREAD_OF[self.purpose]

    @property
    def _shards(self) -> list[Shard]:
        per_shard = max(1, _ROWS_PER_SHARD // self.size)
        return plan(
            self.context.directory.groups / "-".join(filter(None, (self.purpose, self.owner))),
            self.count * self.size,
            per_shard * self.size,
            self.context.config.seed + _SEED_OF[self.purpose],
            self.identity,
        )

    def __iter__(self) -> Iterator[Observations]:
        simulator = self.context.simulator
        parameters = extended(simulator) if self.marginalise else simulator.parameters
        width, like = simulator.parameters.dim, self.context.observations.batch
        for shard in self._shards:
            batch = read_all([shard])[0].succeeded
            assert batch.split_key is not None
            assert batch.theta is not None
            rng = stream(shard.seed, "observe", shard.number)
            bare = batch.with_(theta=batch.theta[:, :width])
            noisy = simulator.observe_like(bare, like, rng).with_(theta=batch.theta)
            other = noisy
            if self.marginalise and self.purpose == "correction":
                other = simulator.observe(bare, rng).with_(theta=batch.theta)
            for key in torch.unique(batch.split_key):
                group = (other if key % 2 else noisy)[batch.split_key == key]
                if self.marginalise and self.purpose == "test":
                    group = _disturbed(group, simulator.zero_point, rng)
                yield Observations.from_batch(group, truth_names=parameters.names)


def _disturbed(group: Batch, zero_point: float, rng: np.random.Generator) -> Batch:
    """Return a group with zero points and outliers."""
    value = group.x.double().cpu().numpy()
    error = np.zeros_like(value)
    if group.x_err is not None:
        error = group.x_err.double().cpu().numpy()
    moved = disturbed(value, error, zero_point, rng, outliers=group.x_err is not None)
    return group.with_(x=torch.as_tensor(moved).to(group.x))


F64 = NDArray[np.float64]
Triple = tuple[F64, F64, F64]  # mean, covariance, truth
_SPARE = 1.05  # objects simulated per object combined, for failed simulations


def test_groups(context: Context, combiner: Combiner) -> SimulatedGroups | None:
    """Return the groups that a combiner is tested on, if it is."""
    section = context.config.combine
    if not section.calibration_groups:
        return None
    size = int(np.ceil(_SPARE * max(section.sizes)))
    owner = "nuisances" if combiner.marginalises else ""
    return SimulatedGroups(
        context, "test", section.calibration_groups, size, owner, combiner.marginalises
    )


def calibrate_groups(
    context: Context, combiner: Combiner, groups: SimulatedGroups
) -> tuple[list[dict[str, Any]], list[Verdict]]:
    """Return the entries of ``combined_calibration``, one per size, and the verdicts.

    Sizes above the number of observed objects are left out; this number itself is tested, if it is
    not above all sizes.
    """
    available = max(len(rows) for rows in context.observations.groups.values())
    wanted = context.config.combine.sizes
    tested = {1, *(n for n in wanted if n <= available), min(available, max(wanted))}
    sizes = sorted(tested)
    groups.simulate()
    context.progress.start("calibrate", len(groups), "groups")
    space = context.space.select("global")
    triples: dict[int, list[Triple]] = {n: [] for n in sizes}
    for combined in _each(context, combiner, groups, space, sizes):
        for n, triple in combined:
            triples[n].append(triple)
        context.progress.advance()
    judged = [_entry(combiner.name, space, n, t, len(groups)) for n, t in triples.items() if t]
    entries = [entry for entry, _ in judged]
    verdicts = [verdict for _, verdict in judged]
    if entries:
        verdicts += _judge_ranks(entries)
        last = entries[-1]
        context.progress.finish(f"{combiner.name}: z-rms {last['z_rms']:.2f} at N = {last['n']}")
    return entries, verdicts


def _each(
    context: Context,
    combiner: Combiner,
    groups: Iterable[Observations],
    space: ParameterSpace,
    sizes: list[int],
) -> Iterator[list[tuple[int, Triple]]]:
    """Yield size, mean, covariance and truth of every group, several groups at a time."""

    def combined(group: Observations) -> list[tuple[int, Triple]]:
        truth = truth_of(group, space)
        present = [n for n in sizes if n <= len(group)]
        subsets = [slice(n) for n in present]
        found = combiner.subset_moments(context.posterior, group, subsets)
        return [(n, (*moments, truth)) for n, moments in zip(present, found, strict=True)]

    with ThreadPoolExecutor(context.cores) as pool:
        waiting = deque[Future[list[tuple[int, Triple]]]]()
        for group in groups:
            waiting.append(pool.submit(combined, group))
            if len(waiting) > 2 * context.cores:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _entry(
    combiner: str,
    space: ParameterSpace,
    n: int,
    triples: list[Triple],
    groups: int,
) -> tuple[dict[str, Any], Verdict]:
    """Return the entry of one size, and the verdict on its z-rms."""
    mean, cov, truth = (np.stack(v) for v in zip(*triples, strict=True))
    result = calibrate_gaussian(mean, cov, truth)
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
                "sbc_p": float(result.sbc_p[k]),
            }
            for k, p in enumerate(space.names)
        },
    }
    return entry, verdict


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
