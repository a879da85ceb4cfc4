r"""Every combiner against exact joint posteriors, truths off the prior mean.

    python benchmarks/combiners/exact_models.py --json out.json

Two models with known posteriors of single objects and of all together.

Linear and Gaussian: :math:`x_i = A\Lambda + B\Theta_i + \epsilon_i`, two shared parameters with
priors N(1, 0.5) and N(-2, 2), one local parameter, three observables with errors of 0.5.

Gamma and Poisson: counts :math:`x_i \sim \mathrm{Poisson}(\lambda)`, prior Gamma(3, 1), so that
:math:`\lambda\,|\,x_1 .. x_N \sim \mathrm{Gamma}(3 + \sum_i x_i,\ 1 + N)`; single posteriors are
skewed.

Truths are 1.5 prior sigma off the prior mean, in all directions. Single posteriors are the exact
ones; ``score`` gets the exact score (Gaussian model alone), ``deepset`` learns from
simulations. Printed per N, over simulated groups: root mean square of (mean - exact mean) /
exact sd, mean of sd / exact sd, share of truths in the combiner's central 68 % interval and, beside
it, in the exact one: with the truth not drawn from the prior that is not 68 % at small N.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import special, stats

import sbi_core
from sbi_core import Batch, Observations, Parameter, ParameterSpace, Prior, Simulator
from sbi_core.estimators.sbi import SbiNpseEstimator
from sbi_core.posterior import Posterior
from sbi_core.rng import as_generator, stream

SIZES = (1, 10, 100, 1000)
OFF = 1.5  # prior sigma
A = np.array([[1.0, 0.5], [-0.3, 0.8], [0.6, -0.2]])
B = np.array([0.7, 0.4, -0.5])
ERROR = 0.5
SHAPE, RATE = 3.0, 1.0
GRID = np.linspace(1e-6, 30.0, 6001)


# -- the models ------------------------------------------------------------------------------


class Linear(Simulator):
    """The linear Gaussian model."""

    name, version = "linear-gaussian", "1"
    parameters = ParameterSpace(
        (
            Parameter("slope", Prior("normal", {"loc": 1.0, "scale": 0.5}), scope="global"),
            Parameter("offset", Prior("normal", {"loc": -2.0, "scale": 2.0}), scope="global"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
        )
    )
    observables = ()
    default_error = ERROR
    loc, scale = np.array([1.0, -2.0]), np.array([0.5, 2.0])
    likelihood = {"draws": 128}

    def simulate(self, theta, rng):  # noqa: ANN001, ANN201
        """A Lambda + B Theta."""
        theta = np.asarray(theta, float)
        x = theta[:, :2] @ A.T + theta[:, 2:] * B
        return Batch(x=torch.as_tensor(x), theta=torch.as_tensor(theta))

    def single(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and covariance in units of the prior."""
        x = batch.x.double().numpy()
        noise = ERROR**2 * np.eye(3) + np.outer(B, B)
        design = A * self.scale
        weight = np.linalg.solve(noise, design)
        cov = np.linalg.inv(np.eye(2) + design.T @ weight)
        mean = (x - A @ self.loc) @ weight @ cov
        return mean, np.broadcast_to(cov, (len(x), 2, 2)).copy()

    def joint(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and covariance given all objects, from the likelihood of their mean."""
        x, n = batch.x.double().numpy().mean(0), len(batch)
        noise = (ERROR**2 * np.eye(3) + np.outer(B, B)) / n
        design = A * self.scale
        cov = np.linalg.inv(np.eye(2) + design.T @ np.linalg.solve(noise, design))
        return cov @ design.T @ np.linalg.solve(noise, x - A @ self.loc), cov


class Counts(Simulator):
    """The gamma-Poisson model; the count enters as it is, its noise is the model's."""

    name, version = "gamma-poisson", "1"
    parameters = ParameterSpace(
        (
            Parameter(
                "rate",
                Prior(
                    "table",
                    {
                        "grid": GRID.tolist(),
                        "density": stats.gamma.pdf(GRID, SHAPE, scale=1 / RATE).tolist(),
                    },
                ),
                scope="global",
            ),
        )
    )
    observables = ()
    likelihood = {"points": 9}

    def simulate(self, theta, rng):  # noqa: ANN001, ANN201
        """The rate itself: counting happens when it is observed."""
        theta = np.asarray(theta, float)
        return Batch(x=torch.as_tensor(theta.copy()), theta=torch.as_tensor(theta))

    def observe(self, batch, rng):  # noqa: ANN001, ANN201
        """Count."""
        counts = as_generator(rng).poisson(batch.x.double().numpy()).astype(float)
        return batch.with_(x=torch.as_tensor(counts).to(batch.x.dtype))

    def observe_like(self, batch, like, rng):  # noqa: ANN001, ANN201
        """Count."""
        return self.observe(batch, rng)

    def log_likelihood(self, simulated, observed):  # noqa: ANN001, ANN201
        """Poisson."""
        k = observed.x[:, 0].double().numpy()
        rate = simulated.x[:, 0].double().numpy()
        return k * np.log(rate) - rate - special.gammaln(k + 1)

    def single(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Exact moments of every posterior in unconstrained space, by quadrature."""
        x = batch.x[:, 0].double().numpy()
        counts, where = np.unique(x, return_inverse=True)
        found = np.array([self._moments(SHAPE + k, RATE + 1) for k in counts])
        return found[where, :1], found[where, 1:, None]

    def joint(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Exact moments given all counts."""
        mean, var = self._moments(SHAPE + float(batch.x.sum()), RATE + len(batch))
        return np.array([mean]), np.array([[var]])

    @cache  # noqa: B019
    def _moments(self, shape: float, rate: float) -> tuple[float, float]:
        u = (np.arange(10_000) + 0.5) / 10_000
        z = self.parameters.to_unconstrained(stats.gamma.ppf(u, shape, scale=1 / rate)[:, None])
        return float(z.mean()), float(z.var())


# -- estimators that know the truth ----------------------------------------------------------


class Exact(SbiNpseEstimator):
    """Exact moments, densities and draws; of the linear model also scores."""

    def __init__(self, model: Linear | Counts) -> None:
        super().__init__()
        self.model, self.space = model, model.parameters.select("global")
        self._network = torch.nn.Module()  # type: ignore[assignment]
        if isinstance(model, Linear):
            self._network.head = analytic_head()  # type: ignore[union-attr]

    def gaussian_moments(self, batch):  # noqa: ANN001, ANN201
        """Exact."""
        return self.model.single(batch)

    def log_prob(self, theta, batch):  # noqa: ANN001, ANN201
        """Exact, theta (S, n, d)."""
        theta = np.asarray(theta)
        if isinstance(self.model, Counts):
            k = batch.x[:, 0].double().numpy()
            return stats.gamma.logpdf(theta[..., 0], SHAPE + k, scale=1 / (RATE + 1))
        mean, cov = self.model.single(batch)
        inverse = np.linalg.inv(cov[0])
        off = (theta - self.model.loc) / self.model.scale - mean
        norm = 0.5 * np.linalg.slogdet(inverse)[1] - math.log(2 * math.pi * self.model.scale.prod())
        return norm - 0.5 * np.einsum("...i,ij,...j->...", off, inverse, off)

    def sample(self, batch, draws, rng):  # noqa: ANN001, ANN201
        """Draws of the first object (asked for N = 1 by ``score``)."""
        mean, cov = self.model.single(batch)
        noise = as_generator(rng).standard_normal((draws, 1, len(mean[0])))
        z = mean[0] + noise @ np.linalg.cholesky(cov[0]).T
        return self.space.from_unconstrained(z[:, 0])[:, None]

    def _features(self, batch):  # noqa: ANN001, ANN202
        mean, cov = self.model.single(batch)
        rows = np.concatenate([mean, cov.reshape(len(cov), -1)], 1)
        return torch.as_tensor(rows, dtype=torch.float32)


def analytic_head():  # noqa: ANN201
    """A score network of sbi with the score of N(mean, cov), which are its condition."""
    from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator

    from sbi_core.adapters.sbi import VectorFieldHead

    class Analytic(VPScoreEstimator):  # type: ignore[misc]
        def forward(self, input, condition, time):  # noqa: A002, ANN001, ANN202
            mean, cov = condition[..., :2], condition[..., 2:].unflatten(-1, (2, 2))
            m, s = (f(time.reshape(-1)[:1]) for f in (self.mean_t_fn, self.std_fn))
            total = m**2 * cov + s**2 * torch.eye(2)
            return -torch.linalg.solve(total, (input - m * mean).unsqueeze(-1)).squeeze(-1)

    net = Analytic(torch.nn.Linear(1, 1), torch.Size([2]), torch.Size([6]), torch.nn.Identity())
    return VectorFieldHead(net, 2, steps=40)


# -- groups ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Groups of objects with known truth."""

    model: Linear | Counts
    count: int
    size: int
    seed: int
    z: Callable[[np.random.Generator, int], np.ndarray]  # truths

    def __iter__(self) -> Iterator[Observations]:
        space = self.model.parameters.select("global")
        for k in range(self.count):
            rng = stream(self.seed, self.model.name, k)
            theta = self.model.parameters.sample(self.size, rng)
            theta[:, : space.dim] = space.from_unconstrained(self.z(rng, space.z_dim)[None])
            batch = self.model.observe(self.model.simulate(theta, rng), rng)
            yield Observations.from_batch(batch, truth_names=self.model.parameters.names)


def off_the_mean(rng: np.random.Generator, d: int) -> np.ndarray:
    """A point 1.5 prior sigma off, in a random direction."""
    direction = rng.standard_normal(d)
    return OFF * direction / np.linalg.norm(direction)


def from_the_prior(rng: np.random.Generator, d: int) -> np.ndarray:
    """A point N(0, 1.25^2), wider than the prior."""
    return 1.25 * rng.standard_normal(d)


@dataclass
class Row:
    """What is counted for one combiner and N."""

    off: list[float]
    ratio: list[float]
    inside: list[bool]
    exact_inside: list[bool]
    seconds: float = 0.0
    refused: int = 0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--slow-groups", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3000, help="training steps of deepset")
    parser.add_argument("--rules", nargs="+")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = []
    for model in (Linear(), Counts()):
        record += measure(model, options)
        if options.json:
            Path(options.json).write_text(json.dumps(record, indent=1))


def rules(model: Linear | Counts, options: argparse.Namespace) -> dict[str, object]:
    """The combiners, those that learn after they learned."""
    names = options.rules or [
        "gaussian", "simulated-moments", "product", "likelihood", "deepset", "score", "published",
    ]  # fmt: skip
    if isinstance(model, Counts):
        names = [n for n in names if n != "score"]  # the exact score of a gamma is not Gaussian
    given = {
        "likelihood": model.likelihood,
        "product": {"points": 128} if isinstance(model, Counts) else {},
        "deepset": {"simulations": 500_000, "steps": options.steps, "rows": 4096},
    }
    found = {}
    for name in names:
        rule = sbi_core.get_combiner(name, **given.get(name, {}))
        rule.attach(model)
        if rule.groups_needed:
            start = time.process_time()
            groups = Groups(model, rule.groups_needed, rule.group_size, 7, from_the_prior)
            facts = rule.prepare(Posterior(Exact(model)), groups)
            print(f"{name}: {time.process_time() - start:.0f} CPU s, {dict(facts)}")
        found[name] = rule
    return found


def measure(model: Linear | Counts, options: argparse.Namespace) -> list[dict]:
    """Combine groups by every rule."""
    posterior, combiners = Posterior(Exact(model)), rules(model, options)
    space = model.parameters.select("global")
    rows = {(r, n): Row([], [], [], []) for r in combiners for n in SIZES}
    for k, group in enumerate(Groups(model, options.groups, SIZES[-1], 1, off_the_mean)):
        truth = space.to_unconstrained(group.batch.theta[:1, : space.dim])[0]
        for n in SIZES:
            mean, cov = model.joint(group[:n].batch)
            sd = np.sqrt(np.diag(cov))
            for name, rule in combiners.items():
                slow = name in ("likelihood", "score") or (name == "product" and n == SIZES[-1])
                if slow and k >= options.slow_groups:
                    continue
                row, start = rows[name, n], time.process_time()
                try:
                    got = rule.combine(posterior, group[:n], rng=k)
                except sbi_core.SbiError as error:
                    row.refused += 1
                    print(f"{name}, N = {n}: {error}", file=sys.stderr)
                    continue
                row.seconds += time.process_time() - start
                own = np.sqrt(np.diag(got.z_cov))
                row.off += ((got.z_mean - mean) / sd).tolist()
                row.ratio += (own / sd).tolist()
                row.inside += (np.abs(got.z_mean - truth) < own).tolist()
                row.exact_inside += (np.abs(mean - truth) < sd).tolist()
    print(f"\n{model.name}: truths {OFF} prior sigma off the prior mean")
    print(
        f"{'combiner':<14}{'N':>6}{'groups':>8}{'mean off':>10}{'sd ratio':>10}{'68 %':>7}"
        f"{'exact':>7}{'s each':>9}"
    )
    record = []
    for (name, n), row in rows.items():
        groups = len(row.off) // space.z_dim
        if not groups:
            continue
        entry = {
            "model": model.name,
            "combiner": name,
            "n": n,
            "groups": groups,
            "refused": row.refused,
            "mean_off_rms": float(np.sqrt(np.mean(np.square(row.off)))),
            "sd_ratio": float(np.mean(row.ratio)),
            "coverage_68": float(np.mean(row.inside)),
            "exact_coverage_68": float(np.mean(row.exact_inside)),
            "cpu_seconds": row.seconds / groups,
        }
        record.append(entry)
        print(
            f"{name:<14}{n:>6}{groups:>8}{entry['mean_off_rms']:>10.4f}{entry['sd_ratio']:>10.4f}"
            f"{entry['coverage_68']:>7.2f}{entry['exact_coverage_68']:>7.2f}"
            f"{entry['cpu_seconds']:>9.4f}",
            flush=True,
        )
    return record


if __name__ == "__main__":
    main()
