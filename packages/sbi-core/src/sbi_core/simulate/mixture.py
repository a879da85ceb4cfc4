r"""Several simulators as one: which of them made a group is one more thing that is not known.

.. math:: p(x_1 .. x_N\,|\,\Lambda) = \frac1K \sum_k \prod_i p(x_i\,|\,\Lambda, M_k)

All objects of a group come from the same simulator. It follows from the shared parameters: rows
in which they are equal share it, and it is independent of them otherwise (a hash decides). What is
inferred from it no longer depends on which of the models is right, as long as one of them is. For
many objects take the combiner ``deepset``, which sees groups as wholes: rules that multiply
single-object posteriors treat the model as if it differed from object to object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core.components import Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.priors.space import as_float64
from sbi_core.rng import as_generator, splitmix64

__all__ = ["MixtureSimulator"]


class MixtureSimulator(Simulator):
    """Equal shares of several simulators of the same parameters and observables.

    Parameters
    ----------
    simulators
        At least two. The first one observes.
    name
        Of the whole.

    Raises
    ------
    ConfigError
        If there are fewer than two, or their parameters, priors or observables differ, or none
        of the parameters is shared.
    """

    groups_differ = True

    def __init__(self, simulators: Sequence[Simulator], name: str = "mixture") -> None:
        self.simulators = list(simulators)
        if len(self.simulators) < 2:
            msg = f"a mixture needs at least two simulators, got {len(self.simulators)}"
            raise ConfigError(msg)
        first = self.simulators[0]
        for other in self.simulators[1:]:
            same = other.parameters.hash == first.parameters.hash
            if not same or other.observables != first.observables:
                what = "observables" if same else "parameters or priors"
                msg = f"simulators '{first.name}' and '{other.name}' of a mixture differ in {what}"
                raise ConfigError(msg)
        if "global" not in first.parameters.scopes:
            msg = "a mixture needs shared parameters, which tell groups apart"
            raise ConfigError(msg)
        self.name, self.version = name, first.version
        self.parameters, self.observables = first.parameters, first.observables
        self.context_names, self.failures = first.context_names, first.failures
        self.default_error = first.default_error

    @property
    def citations(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of all simulators."""
        return tuple(dict.fromkeys(c for s in self.simulators for c in s.citations))

    @property
    def identity(self) -> dict[str, Any]:
        """Those of all simulators."""
        models = [s.identity for s in self.simulators]
        return {"name": self.name, "version": self.version, "models": models}

    def model_of(self, theta: ArrayLike | Tensor) -> NDArray[np.int64]:
        """Return which simulator makes rows with these parameters (n, d), (n,)."""
        rows = as_float64(theta)
        shared = [k for k, scope in enumerate(self.parameters.scopes) if scope == "global"]
        words = np.ascontiguousarray(rows[:, shared], np.float32).view(np.uint32).astype(np.uint64)
        state = np.full(len(rows), 0x9E3779B97F4A7C15, np.uint64)
        for column in words.T:
            state = splitmix64(state ^ column)
        share = (state >> np.uint64(11)).astype(np.float64) / 2.0**53
        return (share * len(self.simulators)).astype(np.int64)

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return noise-free data, every row of the simulator that its shared parameters choose."""
        gen, rows = as_generator(rng), as_float64(theta)
        model = self.model_of(rows)
        parts, order = [], []
        for k, simulator in enumerate(self.simulators):
            own = np.flatnonzero(model == k)
            if len(own) or (k == 0 and len(rows) == 0):
                parts.append(simulator.simulate(rows[own], gen))
                order.append(own)
        back = np.argsort(np.concatenate(order), kind="stable")
        return Batch.cat(parts)[torch.as_tensor(back)]

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Observe as the first simulator does."""
        return self.simulators[0].observe(batch, rng)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Observe as the first simulator does."""
        return self.simulators[0].observe_like(batch, like, rng)

    def log_likelihood(self, simulated: Batch, observed: Batch) -> NDArray[np.float64]:
        """Refuse: which simulator made an object is not known.

        Raises
        ------
        ObservationError
            Always.
        """
        msg = "a mixture of simulators has no likelihood of single objects; use one of them"
        raise ObservationError(msg)
