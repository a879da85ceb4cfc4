r"""Prey X and predators Y that are born, eat and die at random.

.. math:: X \to X + 1:\ a X, \qquad (X, Y) \to (X - 1, Y + 1):\ b X Y, \qquad Y \to Y - 1:\ c Y

A jump process: the time to the next event is exponential with the total rate, its kind is drawn in
proportion to the three rates (Gillespie 1977, J. Phys. Chem. 81, 2340). Without noise the means
follow Lotka's and Volterra's equations, with a fixed point X = c / b, Y = a / b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sbi_core import (
    Batch,
    Observations,
    Parameter,
    ParameterSpace,
    Prior,
    Rng,
    Simulator,
    as_generator,
    torch_generator,
)

__all__ = ["TIMES", "LotkaConfig", "LotkaSimulator", "trajectories"]

TIMES = np.linspace(0.5, 10.0, 20)  # years after the start, one survey each
PREDATORS = 20  # at the start, on every island
_STEP = np.array([[1, 0], [-1, 1], [0, -1]])  # change of (X, Y) in the three reactions
_TOO_MANY = 1


class LotkaConfig(BaseModel):
    """Options of the simulator."""

    model_config = ConfigDict(extra="forbid")

    error: float = Field(0.15, gt=0, description="Error of log(1 + count).")
    missing: float = Field(0.1, ge=0, lt=1, description="Fraction of missing surveys.")
    max_events: int = Field(
        20_000, ge=100, description="Largest number of events; longer rows fail."
    )


class LotkaSimulator(Simulator):
    """Counts of prey and predators, log(1 + N), shape (n, 2, 20)."""

    name = "lotka"
    version = "1"
    parameters = ParameterSpace(
        (
            Parameter(
                "birth", Prior("loguniform", {"low": 0.5, "high": 2.0}), "a", "1 / yr", "global",
                "births per prey animal",
            ),
            Parameter(
                "predation", Prior("loguniform", {"low": 0.01, "high": 0.04}), "b", "1 / yr",
                "global", "meals per predator and prey animal",
            ),
            Parameter(
                "death", Prior("loguniform", {"low": 0.3, "high": 1.2}), "c", "1 / yr", "global",
                "deaths per predator",
            ),
            Parameter(
                "prey", Prior("lognormal", {"loc": 4.0, "scale": 0.3}), "X_0", "", "local",
                "prey animals at the start",
            ),
        ),
        version="lotka-1",
    )  # fmt: skip
    observables = ()  # a row is an array (species, survey), not a list of named numbers
    failures = {0: "ok", _TOO_MANY: "more events than max_events"}
    citations = (
        "Lotka 1925, Elements of Physical Biology",
        "Volterra 1926, Nature 118, 558",
        "Gillespie 1977, J. Phys. Chem. 81, 2340",
    )

    def __init__(self, config: LotkaConfig | None = None) -> None:
        self.config = config or LotkaConfig()

    @property
    def identity(self) -> dict[str, Any]:
        """Options that change the data."""
        return {**super().identity, **self.config.model_dump()}

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return log(1 + N) at the surveys; rows with too many events are flagged."""
        values = np.asarray(theta, np.float64)
        counts, ok = trajectories(values, as_generator(rng), self.config.max_events)
        x = np.where(ok[:, None, None], np.log1p(counts), np.nan)
        failure = np.where(ok, 0, _TOO_MANY)
        return Batch.of_arrays(x=x, theta=values, ok=ok, failure=failure).to("cpu", torch.float32)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return counts with errors; both species of a survey are missing together."""
        gen = torch_generator(rng, batch.x.device)
        n, species, surveys = batch.x.shape
        device = batch.x.device
        noise = torch.randn(batch.x.shape, generator=gen, device=device)
        took_place = (
            torch.rand((n, 1, surveys), generator=gen, device=device) >= self.config.missing
        )
        mask = took_place.expand(n, species, surveys).clone()
        err = torch.full_like(batch.x, self.config.error)
        x = torch.where(mask, batch.x + err * noise, torch.nan)
        return batch.with_(x=x, x_err=torch.where(mask, err, torch.nan), mask=mask)

    def example_observations(self, rng: Rng, n: int = 10) -> Observations:
        """Return islands that share rates away from the middle of the prior."""
        gen = as_generator(rng)
        theta = self.parameters.sample(n, gen)
        theta[:, :3] = 0.8, 0.025, 0.5
        batch = self.observe(self.simulate(theta, gen).succeeded, gen)
        source = f"mock islands of {self.name} {self.version}"
        return Observations.from_batch(batch, truth_names=self.parameters.names, source=source)


def trajectories(
    theta: NDArray[np.float64], rng: np.random.Generator, max_events: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw populations at the surveys, exactly.

    Parameters
    ----------
    theta : (n, 4)
        Rates a, b, c per year, and prey at the start (rounded).
    rng
        Generator.
    max_events
        Rows with more events fail.

    Returns
    -------
    counts : (n, 2, surveys)
        Prey and predators; zero in failed rows.
    ok : (n,)
        False for failed rows.
    """
    n = len(theta)
    counts = np.zeros((n, 2, len(TIMES)), np.int64)
    rows = np.arange(n)  # those still running, and their state
    rates, time, survey = theta[:, :3], np.zeros(n), np.zeros(n, np.int64)
    state = np.stack([np.rint(theta[:, 3]), np.full(n, PREDATORS)], 1).astype(np.int64)
    for _ in range(max_events):
        prey, predators = state.T
        each = rates * np.stack([prey, prey * predators, predators], 1)
        total = each.cumsum(1)
        with np.errstate(divide="ignore"):  # extinct: no further event
            time = time + rng.standard_exponential(len(rows)) / total[:, 2]
        while (due := time >= TIMES[np.minimum(survey, len(TIMES) - 1)]).any():
            due &= survey < len(TIMES)
            if not due.any():
                break
            counts[rows[due], :, survey[due]] = state[due]
            survey[due] += 1
        running = survey < len(TIMES)
        if not running.any():
            return counts, np.ones(n, bool)
        total = total[running]
        kind = (rng.random(len(total))[:, None] * total[:, 2:] >= total).sum(1)
        state = state[running] + _STEP[kind]
        rows, rates = rows[running], rates[running]
        time, survey = time[running], survey[running]
    ok = np.ones(n, bool)
    ok[rows] = False
    counts[rows] = 0
    return counts, ok
