r"""Combiners on a hierarchy with a shared scatter, against its exact posterior.

    python benchmarks/combiners/hierarchy.py --json out.json

Standardised supernovae: brightness, stretch and colour of each,

.. math:: m = M - \alpha x + \beta c + \epsilon, \qquad x \sim N(0, 1),\ c \sim N(0, 0.1^2),\
          \epsilon \sim N(0, s^2),

observed with errors that differ between objects and, partly, without stretch or colour. Shared are
M, :math:`\alpha`, :math:`\beta` and the intrinsic scatter s. The three values of an object are
normal given these, so that the likelihood of a group has a closed form; the exact moments come from
importance sampling with Student's t around the mode. One network is trained on single objects, and
every rule learns from the same simulated groups. Printed per rule and N, over groups with truths
from the prior: z-rms and its largest single value, sd / exact sd (mean and median), rms of
(mean - exact mean) / exact sd, groups that the rule refused.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import optimize

import sbi_core
from sbi_core import Batch, Observable, Observations, Parameter, ParameterSpace, Prior, Simulator
from sbi_core.components import Training
from sbi_core.posterior import Posterior
from sbi_core.rng import as_generator, stream
from sbi_core.training.config import TrainConfig

SIZES = (1, 10, 100, 1000)
MISSING = 1e4  # error of a value that is not there
LOWEST, RANGE = np.array([0.03, 0.1, 0.02]), np.array([8.0, 10.0, 6.0])
GAPS = np.array([0.0, 0.3, 0.2])


class Supernovae(Simulator):
    """The model above; the scatter is part of the simulation."""

    name, version = "supernovae", "1"
    parameters = ParameterSpace(
        (
            Parameter("M", Prior("normal", {"loc": -19.3, "scale": 0.3}), scope="global"),
            Parameter("alpha", Prior("normal", {"loc": 0.14, "scale": 0.05}), scope="global"),
            Parameter("beta", Prior("normal", {"loc": 3.0, "scale": 0.7}), scope="global"),
            Parameter("s", Prior("lognormal", {"loc": -2.1, "scale": 0.5}), scope="global"),
            Parameter("x", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
            Parameter("c", Prior("normal", {"loc": 0.0, "scale": 0.1}), scope="local"),
        )
    )
    observables = (Observable("brightness"), Observable("stretch"), Observable("colour"))

    def simulate(self, theta, rng):  # noqa: ANN001, ANN201
        """Brightness, stretch, colour."""
        values = np.asarray(theta, float)
        m, alpha, beta, s, x, c = values.T
        scatter = s * as_generator(rng).standard_normal(len(values))
        return Batch.of_arrays(
            x=np.stack([m - alpha * x + beta * c + scatter, x, c], 1), theta=values
        )

    def observe(self, batch, rng):  # noqa: ANN001, ANN201
        """Errors log-uniform in a range per value; some values missing."""
        gen = as_generator(rng)
        shape = tuple(batch.x.shape)
        err = LOWEST * RANGE ** gen.random(shape)
        mask = torch.as_tensor(gen.random(shape) >= GAPS)
        x = batch.x.double() + torch.as_tensor(err * gen.standard_normal(shape))
        return batch.with_(x=x.where(mask, torch.nan), x_err=torch.as_tensor(err), mask=mask)

    def log_group(self, z: np.ndarray, batch: Batch) -> np.ndarray:
        """Log likelihood of all objects at z (S, 4), unconstrained, (S,)."""
        m, alpha, beta, s = self.parameters.select("global").from_unconstrained(z).T
        seen = batch.observed.numpy()
        y = np.where(seen, batch.x.double().numpy(), 0.0)
        noise = np.where(seen, batch.x_err.double().numpy(), MISSING) ** 2
        vx, vc = 1.0 + noise[:, 1], 0.01 + noise[:, 2]
        # brightness given the other two, each of which is independent of the shared parameters
        mean = m[:, None] - alpha[:, None] * (y[:, 1] / vx) + beta[:, None] * (0.01 * y[:, 2] / vc)
        variance = (
            alpha[:, None] ** 2 * (1 - 1 / vx)
            + beta[:, None] ** 2 * (0.01 - 1e-4 / vc)
            + s[:, None] ** 2
            + noise[:, 0]
        )
        return -0.5 * ((y[:, 0] - mean) ** 2 / variance + np.log(variance)).sum(1)

    def exact(self, batch: Batch, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """Exact mean and covariance, unconstrained, and the effective fraction of the draws."""
        d, nu, draws = 4, 6.0, 4000

        def log_posterior(z: np.ndarray) -> np.ndarray:
            step = max(1, 400_000 // max(len(batch), 1))
            parts = [self.log_group(z[k : k + step], batch) for k in range(0, len(z), step)]
            return np.concatenate(parts) - 0.5 * (z**2).sum(1)

        mode = optimize.minimize(lambda z: -log_posterior(z[None])[0], np.zeros(d), method="BFGS")
        mean, cov, share = mode.x, mode.hess_inv, 0.0
        for _ in range(4):
            root = np.linalg.cholesky(1.3 * cov + 1e-9 * np.eye(d))
            t = rng.standard_normal((draws, d)) / np.sqrt(rng.chisquare(nu, (draws, 1)) / nu)
            z = mean + t @ root.T
            log_w = log_posterior(z) + 0.5 * (nu + d) * np.log1p((t**2).sum(1) / nu)
            w = np.exp(log_w - log_w.max())
            w /= w.sum()
            mean = w @ z
            cov = (z - mean).T @ (w[:, None] * (z - mean))
            share = 1 / (w**2).sum() / draws
        return mean, cov, float(share)


def groups(count: int, size: int, seed: int, spread: float = 1.0) -> Iterator[Observations]:
    """Simulated groups; truths N(0, spread^2) in unconstrained space."""
    model = Supernovae()
    space = model.parameters.select("global")
    for k in range(count):
        rng = stream(seed, "group", k)
        theta = model.parameters.sample(size, rng)
        theta[:, :4] = space.from_unconstrained(spread * rng.standard_normal((1, 4)))
        batch = model.observe(model.simulate(theta, rng), rng)
        yield Observations.from_batch(batch, truth_names=model.parameters.names)


def trained(simulations: int, epochs: int, seed: int) -> Posterior:
    """The network of single objects."""
    model = Supernovae()
    space = model.parameters.select("global")
    estimator = sbi_core.get_estimator("mixture")
    training = Training(
        batch=model.draw(simulations, stream(seed, "simulate")),
        space=space,
        columns=tuple(model.parameters.index(list(space.names))),
        observe=model.observe,
        config=TrainConfig(epochs=epochs, batch_size=1024),
        seed=seed,
    )
    record = estimator.fit(training, sbi_core.get_embedding("identity"))
    print(f"network: {record.seconds:.0f} s, test loss {record.test_nll:.4f}", flush=True)
    return Posterior(estimator)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--simulations", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rules", nargs="+", default=["amortised", "recalibrated", "gaussian"])
    parser.add_argument("--learn", type=int, nargs=2, default=(1000, 1000), metavar=("GROUPS", "N"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    posterior, model = trained(options.simulations, options.epochs, options.seed), Supernovae()
    space = model.parameters.select("global")
    rules = {}
    for name in options.rules:
        count, size = options.learn
        learns = {} if name == "gaussian" else {"groups": count, "max_objects": size}
        rules[name] = sbi_core.get_combiner(name, **learns)
        if rules[name].groups_needed:
            start = time.perf_counter()
            facts = rules[name].prepare(posterior, groups(count, size, options.seed + 1, 1.25))
            print(f"{name}: {time.perf_counter() - start:.0f} s, {dict(facts)}", flush=True)
    kept: dict[tuple[str, int], list] = {(r, n): [] for r in ("exact", *rules) for n in SIZES}
    refused = dict.fromkeys(kept, 0)
    for k, group in enumerate(groups(options.groups, SIZES[-1], options.seed + 2)):
        truth = space.to_unconstrained(group.batch.theta[:1, :4].double().numpy())[0]
        for n in SIZES:
            mean, cov, share = model.exact(group[:n].batch, stream(options.seed, "exact", k, n))
            if share < 0.1:
                continue
            sd = np.sqrt(np.diag(cov))
            kept["exact", n].append(((mean - truth) / sd, np.ones(4), np.zeros(4)))
            for name, rule in rules.items():
                try:
                    got = rule.combine(posterior, group[:n], rng=k)
                except sbi_core.SbiError:
                    refused[name, n] += 1
                    continue
                own = np.sqrt(np.diag(got.z_cov))
                kept[name, n].append(
                    ((got.z_mean - truth) / own, own / sd, (got.z_mean - mean) / sd)
                )
    record = []
    print(
        f"{'rule':<14}{'N':>6}{'groups':>8}{'refused':>9}{'z-rms':>8}{'largest':>9}{'sd ratio':>10}"
        f"{'median':>8}{'mean off':>10}"
    )
    for (name, n), rows in kept.items():
        if not rows:
            continue
        z, ratio, off = (np.array(column) for column in zip(*rows, strict=True))
        entry = {
            "rule": name,
            "n": n,
            "groups": len(rows),
            "refused": refused[name, n],
            "z_rms": float(np.sqrt((z**2).mean())),
            "z_rms_each": np.sqrt((z**2).mean(0)).tolist(),
            "largest_z": float(np.abs(z).max()),
            "sd_ratio": float(ratio.mean()),
            "sd_ratio_median": float(np.median(ratio)),
            "mean_off_rms": float(np.sqrt((off**2).mean())),
        }
        record.append(entry)
        print(
            f"{name:<14}{n:>6}{len(rows):>8}{entry['refused']:>9}{entry['z_rms']:>8.2f}"
            f"{entry['largest_z']:>9.1f}{entry['sd_ratio']:>10.2f}{entry['sd_ratio_median']:>8.2f}"
            f"{entry['mean_off_rms']:>10.2f}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
