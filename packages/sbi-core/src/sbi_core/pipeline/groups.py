"""Simulated groups of objects that share one truth, observed like the data at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sbi_core.components import Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages.simulate import fill
from sbi_core.rng import as_generator, stream
from sbi_core.simulate.store import Shard, plan, read_all

__all__ = ["GroupSimulator", "SimulatedGroups"]

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
    """

    def __init__(self, simulator: Simulator, size: int, spread: float = 1.0) -> None:
        self.inner = simulator
        self.size = size
        self.spread = spread
        self.name = f"groups of {simulator.name}"
        self.version = simulator.version
        self.parameters = simulator.parameters
        self.observables = simulator.observables

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Simulate single objects."""
        return self.inner.simulate(theta, rng)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n rows, the groups one after the other."""
        gen = as_generator(rng)
        theta = self.parameters.sample(n, gen)
        shared = np.flatnonzero([scope == "global" for scope in self.parameters.scopes])
        space = self.parameters.select("global")
        group = np.arange(n) // self.size
        truth = theta[:: self.size][:, shared]
        if self.spread != 1.0:
            truth = space.from_unconstrained(self.spread * space.to_unconstrained(truth))
        theta[:, shared] = truth[group]
        return self.simulate(theta, gen).with_(split_key=torch.arange(n) // self.size)


@dataclass(frozen=True)
class SimulatedGroups:
    """Groups for one purpose; iterate to observe them with errors and masks of the data.

    Parameters
    ----------
    context
        The run.
    purpose
        What they are for; groups that test a correction are not those it was trained on.
    count, size
        How many groups, of how many objects (failed simulations make a group smaller).
    owner
        Combiner that they are for, when it is not the run's: its groups have their own folder.
    """

    context: Context
    purpose: Purpose
    count: int
    size: int
    owner: str = ""

    def __len__(self) -> int:
        return self.count

    @property
    def present(self) -> bool:
        """Whether all files are there."""
        return all(shard.path.exists() for shard in self._shards)

    def simulate(self) -> None:
        """Simulate the groups that are missing."""
        simulator = GroupSimulator(self.context.simulator, self.size, _SPREAD_OF[self.purpose])
        fill(self.context, simulator, self._shards, "groups")

    @property
    def _shards(self) -> list[Shard]:
        per_shard = max(1, _ROWS_PER_SHARD // self.size)
        return plan(
            self.context.directory.groups / "-".join(filter(None, (self.purpose, self.owner))),
            self.count * self.size,
            per_shard * self.size,
            self.context.config.seed + _SEED_OF[self.purpose],
            self.context.simulator_identity,
        )

    def __iter__(self) -> Iterator[Observations]:
        simulator = self.context.simulator
        like = self.context.observations.batch
        for shard in self._shards:
            batch = read_all([shard])[0].succeeded
            assert batch.split_key is not None
            rng = stream(shard.seed, "observe", shard.number)
            noisy = simulator.observe_like(batch, like, rng)
            for key in torch.unique(batch.split_key):
                yield Observations.from_batch(
                    noisy[batch.split_key == key], truth_names=simulator.parameters.names
                )
