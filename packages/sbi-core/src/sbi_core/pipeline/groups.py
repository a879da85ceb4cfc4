"""Simulated groups of objects that share one truth, for the calibration of combinations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from sbi_core.batch import Batch
from sbi_core.components import Rng, Simulator
from sbi_core.rng import as_generator

__all__ = ["GroupSimulator"]


class GroupSimulator(Simulator):
    """Draws groups: one draw of the global parameters, fresh local ones for every object.

    Parameters
    ----------
    simulator
        The simulator of single objects.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.inner = simulator
        self.name = f"groups of {simulator.name}"
        self.version = simulator.version
        self.parameters = simulator.parameters
        self.observables = simulator.observables

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Simulate single objects."""
        return self.inner.simulate(theta, rng)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n objects of one group; its truth is drawn from the prior."""
        gen = as_generator(rng)
        theta = self.parameters.sample(n, gen)
        shared = np.array([scope == "global" for scope in self.parameters.scopes])
        theta[:, shared] = theta[0, shared]
        return self.simulate(theta, gen)
