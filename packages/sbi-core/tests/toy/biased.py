"""Posteriors with a planted error, groups to combine them in, and what every rule must fulfil."""

import numpy as np
import sbi_toy
from numpy.testing import assert_allclose

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations

SPACE = sbi_toy.SPACE.select("global")


class Biased(sbi_toy.ExactEstimator):
    """Single posteriors off by some of their own sigma, the more the larger the value."""

    def __init__(self, bias=0.15):
        self.bias = bias
        self.space = SPACE

    def gaussian_moments(self, batch):
        mean, cov = sbi_toy.exact_moments(batch)
        sd = np.sqrt(np.einsum("nii->ni", cov))
        return mean + self.bias * np.sin(mean) * sd, cov


def groups(toy, rng, count, size, spread=1.25, errors=(0.5, 0.5), missing=0.0):
    """Simulated groups with known truths, N(0, spread^2)."""
    for _ in range(count):
        theta = sbi_toy.SPACE.sample(size, rng)
        theta[:, :2] = sbi_toy.LOC + sbi_toy.SCALE * spread * rng.standard_normal(2)
        batch = toy.simulate(theta, rng)
        shape = batch.x.shape
        err = (
            np.exp(rng.uniform(*np.log(errors), shape))
            if errors[0] < errors[1]
            else (np.full(shape, errors[0]))
        )
        mask = rng.random(shape) >= missing
        x = np.where(mask, batch.x.numpy() + err * rng.standard_normal(shape), np.nan)
        noisy = Batch(x=x, x_err=np.where(mask, err, np.nan), mask=mask, theta=theta)
        yield Observations.from_batch(noisy, truth_names=sbi_toy.SPACE.names)


def z_rms(rule, posterior, mocks, sizes):
    """z-rms in white units, per size."""
    found = {n: [] for n in sizes}
    for group in mocks:
        truth = SPACE.to_unconstrained(group.batch.theta[:1, :2])[0]
        for n, c in zip(
            sizes, rule.combine_subsets(posterior, group, [slice(n) for n in sizes]), strict=True
        ):
            r = np.linalg.solve(np.linalg.cholesky(c.z_cov), truth - c.z_mean)
            found[n].append((r**2).mean())
    return {n: float(np.sqrt(np.mean(v))) for n, v in found.items()}


def assert_few_objects_are_not_corrected(rule, posterior, toy, rng):
    """Up to two objects are combined as by the Gaussian rule."""
    group = next(groups(toy, rng, 1, 2))
    for n in (0, 1, 2):
        got = rule.combine(posterior, group[np.arange(n)])
        want = GaussianCombiner().combine(posterior, group[np.arange(n)])
        assert_allclose(got.z_mean, want.z_mean)
        assert_allclose(got.z_cov, want.z_cov)


def assert_order_does_not_matter(rule, posterior, toy, rng):
    """The same objects in another order give the same result."""
    group = next(groups(toy, rng, 1, 50))
    one, two = (rule.combine(posterior, g) for g in (group, group[rng.permutation(50)]))
    assert_allclose(one.z_mean, two.z_mean, atol=1e-8)
    assert_allclose(one.z_cov, two.z_cov, rtol=1e-6)
