"""Models whose posteriors are known: is every estimator a density, and is it the right one?

    OMP_NUM_THREADS=1 python benchmarks/inference/exact_models.py --out results/exact.json

Conjugate normal (two parameters, three data with different errors), gamma-Poisson (one rate, five
counts), a noisy integer, and an integer with a continuous parameter. Every estimator that can
describe a model is trained on it; shown are the integral of its density, the agreement of draws
and density (p-value), the p-value of the SBC ranks, the largest deviation of central coverage in
binomial standard deviations, and mean and width against the exact posterior. An estimator whose
draws are narrower by a third must fail the same gates. Lines named ``exact`` put draws of the
exact posterior of the same test objects through the gates: what they deviate is the luck of these
objects (``--seed`` chooses others).
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from common import one_thread, report
from scipy import stats

from sbi_core.api import get_estimator
from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.diagnostics import (
    LEVELS,
    combine_verdicts,
    coverage_central,
    coverage_sd,
    judge_coverage,
    judge_sbc,
    sbc_ranks,
    sbc_uniformity,
)
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig


def space_of(**priors):
    return ParameterSpace(tuple(Parameter(k, v) for k, v in priors.items()))


class Normal:
    """x = A theta + noise."""

    name, embedding = "conjugate normal", IdentityEmbedding()
    space = space_of(
        a=Prior("normal", {"loc": 1.0, "scale": 2.0}),
        b=Prior("normal", {"loc": -1.0, "scale": 0.5}),
    )
    matrix, error = stream(11).normal(size=(2, 3)), np.array([0.3, 0.5, 0.4])

    def clean(self, theta):
        return theta @ self.matrix

    def observe(self, batch, rng):
        noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
        return batch.with_(x=batch.x + noise * torch.as_tensor(self.error).float())

    def exact(self, batch):
        loc, scale = self.space.moments()
        weighted = self.matrix / self.error**2
        cov = np.linalg.inv(weighted @ self.matrix.T + np.diag(scale**-2.0))
        mean = (batch.x.double().numpy() @ weighted.T + loc / scale**2) @ cov
        self.cov = cov
        return mean, np.sqrt(np.diag(cov)) * np.ones_like(mean)

    def exact_draws(self, batch, draws, rng):
        mean, _ = self.exact(batch)
        return mean + rng.multivariate_normal(np.zeros(2), self.cov, (draws, len(mean)))


class GammaPoisson:
    """Five counts of one rate."""

    name, embedding = "gamma-Poisson", MlpEmbedding(MlpConfig(hidden=(64, 16)))
    grid = np.linspace(1e-3, 20, 2001)
    space = space_of(
        rate=Prior("table", {"grid": grid.tolist(), "density": stats.gamma(3).pdf(grid).tolist()})
    )

    def clean(self, theta):
        return np.repeat(theta, 5, axis=1)

    def observe(self, batch, rng):
        return batch.with_(x=torch.poisson(batch.x, generator=torch_generator(rng)))

    def exact(self, batch):
        made = self.posterior(batch)
        return made.mean(), made.std()

    def posterior(self, batch):
        return stats.gamma(3 + batch.x.sum(1, keepdim=True).double().numpy(), scale=1 / 6)

    def exact_draws(self, batch, draws, rng):
        return self.posterior(batch).rvs((draws, len(batch), 1), random_state=rng)


class Integer:
    """An integer with noise."""

    name, embedding = "noisy integer", IdentityEmbedding()
    space = space_of(n=Prior("integer", {"low": 1, "high": 12}))

    def clean(self, theta):
        return theta

    def observe(self, batch, rng):
        return batch.with_(
            x=batch.x + 1.2 * torch.randn(batch.x.shape, generator=torch_generator(rng))
        )

    def exact(self, batch):
        k = np.arange(1, 13.0)
        p = np.exp(-0.5 * ((batch.x.double().numpy() - k) / 1.2) ** 2)
        p /= p.sum(1, keepdims=True)
        mean = (p * k).sum(1, keepdims=True)
        return mean, np.sqrt((p * (k - mean) ** 2).sum(1, keepdims=True))


class Mixed:
    """An integer, and a slope whose error depends on it."""

    name, embedding = "integer and slope", IdentityEmbedding()
    space = space_of(
        t=Prior("normal", {"loc": 0.0, "scale": 1.0}), n=Prior("integer", {"low": 0, "high": 4})
    )

    def clean(self, theta):
        return np.stack([theta[:, 1], theta[:, 0] * (1 + theta[:, 1]) / 2], 1)

    def observe(self, batch, rng):
        noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
        return batch.with_(x=batch.x + noise * torch.tensor([0.7, 0.5]))

    def exact(self, batch):
        x, k = batch.x.double().numpy(), np.arange(5)
        slope = (1 + k) / 2
        var = 0.25 + slope**2
        p = np.exp(-0.5 * ((x[:, :1] - k) / 0.7) ** 2 - 0.5 * x[:, 1:] ** 2 / var) / np.sqrt(var)
        p /= p.sum(1, keepdims=True)
        each = x[:, 1:] * slope / var
        t, n = (p * each).sum(1), (p * k).sum(1)
        var_t = (p * (0.25 / var + each**2)).sum(1) - t**2
        var_n = (p * k**2).sum(1) - n**2
        return np.stack([t, n], 1), np.sqrt(np.stack([var_t, var_n], 1))


SMALL_FIELD = {"hidden": 64, "layers": 3}
CASES = (
    (Normal(), "mixture", {}),
    (Normal(), "maf", {}),
    (Normal(), "nsf", {}),
    (Normal(), "nsf", {"passes": 0}),
    (Normal(), "ensemble", {"of": "mixture"}),
    (Normal(), "sbi-maf", {"hidden": 32}),
    (Normal(), "sbi-nsf", {"hidden": 32, "transforms": 3}),
    (Normal(), "sbi-fmpe", SMALL_FIELD),
    (Normal(), "sbi-npse", SMALL_FIELD),
    (GammaPoisson(), "mixture", {}),
    (GammaPoisson(), "nsf", {}),
    (Integer(), "ordinal", {}),
    (Integer(), "categorical", {}),
    (Mixed(), "mixed", {"continuous": "nsf"}),
    (Mixed(), "mixed", {"continuous": "mixture", "discrete": "categorical"}),
)


def simulate(model, n, seed):
    theta = model.space.sample(n, stream(seed))
    x = torch.as_tensor(model.clean(theta)).float()
    return Batch(x=x, theta=torch.as_tensor(theta).float())


def cells(model, draws, points):
    """Return points of theta around the draws of one object, (g, 1, d), and their volume."""
    axes, volume = [], 1.0
    for k, p in enumerate(model.space.parameters):
        if p.prior.continuous:
            mean, sd = draws[:, k].mean(), draws[:, k].std()
            low, high = (float(v[0]) for v in p.prior.support)
            edges = np.linspace(max(mean - 9 * sd, low), min(mean + 9 * sd, high), points + 1)
            axes.append((edges[1:] + edges[:-1]) / 2)
            volume *= edges[1] - edges[0]
        else:
            axes.append(np.arange(p.prior.values["low"], p.prior.values["high"] + 1.0))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return grid.reshape(-1, 1, len(axes)), volume


def gates(model, samples, theta):
    """Return SBC p-values, the largest coverage deviation, and the verdict."""
    ranks = sbc_ranks(samples, theta, stream(3))
    p = np.atleast_1d(sbc_uniformity(ranks, len(samples)))
    covered = coverage_central(ranks, len(samples), LEVELS)
    off = np.abs(covered - np.asarray(LEVELS)[:, None]) / coverage_sd(LEVELS, len(theta))[:, None]
    verdicts = [
        judge_sbc(n, float(v), tests=len(p)) for n, v in zip(model.space.names, p, strict=True)
    ]
    for k, name in enumerate(model.space.names):
        verdicts += [
            judge_coverage(name, float(c), level, objects=len(theta))
            for c, level in zip(covered[:, k], LEVELS, strict=True)
        ]
    return float(p.min()), float(off.max()), combine_verdicts(verdicts).level


def test_objects(model, args):
    """Return the observed objects that every estimator is judged on."""
    return model.observe(simulate(model, args.objects, args.seed), stream(args.seed + 1))


def control(model, args):
    """Return the line of the exact posterior."""
    batch = test_objects(model, args)
    draws = model.exact_draws(batch, args.draws, stream(7))
    p, off, level = gates(model, draws, batch.theta.double().numpy())
    print(f"{model.name:18s} exact: SBC p {p:.3f}  coverage {off:.1f} sigma  {level}", flush=True)
    return {"model": model.name, "sbc_p": p, "coverage_worst_sigma": off, "gate": level}


def run(model, name, options, args):
    """Return the line of one estimator on one model."""
    estimator = get_estimator(name, **options)
    config = TrainConfig(epochs=args.epochs, batch_size=256)
    columns = tuple(range(model.space.dim))
    training = Training(
        simulate(model, args.n, 1), model.space, columns, model.observe, config, seed=2
    )
    start = time.process_time()
    estimator.fit(training, model.embedding)
    seconds = time.process_time() - start
    batch = test_objects(model, args)
    theta = batch.theta.double().numpy()
    draws = estimator.sample(batch, args.draws, 7)
    slow = name in ("sbi-fmpe", "sbi-npse")
    integrals, agreement = [], []
    for k in range(2 if slow else 5):
        one = estimator.sample(batch[k], 4000, 8)
        points, volume = cells(model, one[:, 0], 41 if slow else 201)
        log_q = estimator.log_prob(points, batch[k])[:, 0]
        weight = np.exp(log_q) * volume
        integrals.append(float(weight.sum()))
        # the distribution of log q among draws against that among the weighted points
        found = estimator.log_prob(one[:1000], batch[k])[:, 0]
        expected = (weight * np.where(np.isfinite(log_q), log_q, 0)).sum() / weight.sum()
        z = (found.mean() - expected) / (found.std() / np.sqrt(len(found)) + 1e-12)
        agreement.append(float(2 * stats.norm.sf(abs(z))))
    want_mean, want_sd = model.exact(batch)
    middle = draws.mean(0)
    p, off, level = gates(model, draws, theta)
    narrow = middle + 0.67 * (draws - middle)
    return {
        "model": model.name,
        "estimator": name,
        "options": {k: str(v) for k, v in options.items()},
        "train_cpu_seconds": round(seconds, 2),
        "integral_worst": max(integrals, key=lambda v: abs(v - 1)),
        "draws_against_density_p": min(agreement),
        "sbc_p": p,
        "coverage_worst_sigma": off,
        "gate": level,
        "mean_off_rms": float(np.sqrt((((middle - want_mean) / want_sd) ** 2).mean())),
        "sd_ratio_median": float(np.median(draws.std(0) / want_sd)),
        "overconfident_gate": gates(model, narrow, theta)[2],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=15, help="of the test objects")
    parser.add_argument("--only", nargs="*", help="estimators")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.quick:
        args.n, args.epochs, args.objects, args.draws = 4000, 5, 200, 100
    one_thread()
    warnings.filterwarnings("ignore")
    lines, controls = [], [control(model, args) for model in (Normal(), GammaPoisson())]
    for model, name, options in CASES:
        if args.only and name not in args.only:
            continue
        lines.append(run(model, name, options, args))
        line = lines[-1]
        print(
            f"{line['model']:18s} {name:12s} {line['options']!s:40s} integral "
            f"{line['integral_worst']:.4f}  draws p {line['draws_against_density_p']:.3f}  "
            f"SBC p {line['sbc_p']:.3f}  coverage {line['coverage_worst_sigma']:.1f} sigma  "
            f"{line['gate']}  (mean {line['mean_off_rms']:.3f}, sd {line['sd_ratio_median']:.3f}, "
            f"narrowed: {line['overconfident_gate']})",
            flush=True,
        )
    report(args.out, {"n": args.n, "epochs": args.epochs, "exact": controls, "lines": lines})


if __name__ == "__main__":
    main()
