"""The density product against exact posteriors: Gaussian, gamma-Poisson, a uniform with edges."""

import numpy as np
import pytest
import sbi_toy
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.product import ProductCombiner, ProductConfig
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior


class Exact(sbi_toy.ExactEstimator):
    """The toy's exact posterior with its density."""

    def log_prob(self, theta, batch):
        mean, cov = self.gaussian_moments(batch)
        z = (np.asarray(theta) - sbi_toy.LOC) / sbi_toy.SCALE
        off = z - mean
        inverse = np.linalg.inv(cov)
        chi2 = np.einsum("...ni,nij,...nj->...n", off, inverse, off)
        norm = 0.5 * np.linalg.slogdet(inverse)[1] - np.log(2 * np.pi * sbi_toy.SCALE.prod())
        return norm - 0.5 * chi2


@pytest.fixture
def exact():
    estimator = Exact()
    estimator.space = sbi_toy.SPACE.select("global")
    return Posterior(estimator)


def objects(toy, n, rng):
    theta = sbi_toy.SPACE.sample(n, rng)
    theta[:, :2] = sbi_toy.LOC + 2 * sbi_toy.SCALE
    return Observations.from_batch(toy.observe(toy.simulate(theta, rng), rng))


@pytest.mark.parametrize("n_obs", [1, 10, 1000])
def test_it_equals_the_gaussian_rule_where_that_is_exact(n_obs, exact, toy, rng):
    observations = objects(toy, n_obs, rng)
    got = ProductCombiner().combine(exact, observations)
    want = GaussianCombiner().combine(exact, observations)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=1e-5)
    assert_allclose(got.z_cov / np.outer(sd, sd), want.z_cov / np.outer(sd, sd), atol=1e-5)
    assert got.diagnostics["kl_to_gaussian"] < 1e-6
    assert got.diagnostics["edge_mass"] < 1e-6


def test_no_object_gives_the_prior(exact, toy, rng):
    got = ProductCombiner().combine(exact, objects(toy, 1, rng)[np.arange(0)])
    assert_allclose(got.z_mean, 0, atol=1e-9)
    assert_allclose(got.z_cov, np.eye(2), atol=1e-5)


class OneParameter(sbi_toy.ExactEstimator):
    """An exact posterior of one parameter, given as a distribution per object."""

    def __init__(self, space, posterior):
        self.space, self.posterior = space, posterior

    def log_prob(self, theta, batch):
        x = batch.x[:, 0].double().numpy()
        return self.posterior(x).logpdf(np.asarray(theta)[..., 0])

    def gaussian_moments(self, batch):
        u = (np.arange(2000) + 0.5) / 2000
        x = batch.x[:, 0].double().numpy()
        theta = self.posterior(x[:, None]).ppf(u)
        z = self.space.to_unconstrained(theta.reshape(-1, 1)).reshape(theta.shape)
        return z.mean(1, keepdims=True), z.var(1)[:, None, None]


def on_fine_grid(space, log_posterior, low, high):
    """Mean and standard deviation in unconstrained space by brute force."""
    theta = np.linspace(low, high, 400_001)[1:-1]
    log_p = log_posterior(theta)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    z = space.to_unconstrained(theta[:, None])[:, 0]
    mean = p @ z
    return mean, np.sqrt(p @ (z - mean) ** 2)


@pytest.mark.parametrize("n_obs", [1, 10, 100, 1000])
def test_gamma_poisson(n_obs, rng):
    """Counts with a rate of log-normal prior: posteriors are skewed, the product is exact."""
    space = ParameterSpace(
        (Parameter("rate", Prior("lognormal", {"loc": 0.0, "scale": 1.0}), scope="global"),)
    )
    counts = rng.poisson(4.0, n_obs)
    grid = np.exp(np.linspace(-9, 9, 20_001))

    class Poisson:
        """Single posteriors on a grid of log rate."""

        def __init__(self, x):
            self.x = np.asarray(x)

        def _log(self, theta):
            return stats.poisson.logpmf(self.x, theta) + stats.lognorm.logpdf(theta, 1.0)

        def _on_grid(self):
            """Log posterior of every count that occurs, and which is whose."""
            different, which = np.unique(self.x.ravel(), return_inverse=True)
            flat = stats.poisson.logpmf(different[:, None], grid)
            return flat + stats.norm.logpdf(np.log(grid)), which

        def logpdf(self, theta):
            log_p, which = self._on_grid()
            norm = special.logsumexp(log_p, axis=-1) + np.log(np.log(grid[1] / grid[0]))
            return self._log(theta) - norm[which]

        def ppf(self, u):
            log_p, which = self._on_grid()
            p = np.exp(log_p - log_p.max(1, keepdims=True))
            cdf = np.cumsum(p, 1) / p.sum(1, keepdims=True)
            return np.stack([np.interp(u, c, grid) for c in cdf])[which]

    estimator = OneParameter(space, Poisson)
    observations = Observations.from_batch(Batch(x=counts[:, None].astype(float)))
    got = ProductCombiner(ProductConfig(points=128)).combine(Posterior(estimator), observations)
    mean, sd = on_fine_grid(
        space,
        lambda t: counts.sum() * np.log(t) - n_obs * t + stats.lognorm.logpdf(t, 1.0),
        0.0,
        40.0,
    )
    assert_allclose((got.z_mean[0] - mean) / sd, 0, atol=2e-3)
    assert_allclose(np.sqrt(got.z_cov[0, 0]) / sd, 1, atol=5e-3)


@pytest.mark.parametrize("n_obs", [1, 10, 100])
def test_a_uniform_prior_with_the_truth_at_its_edge(n_obs, rng):
    space = ParameterSpace(
        (Parameter("u", Prior("uniform", {"low": 0.0, "high": 1.0}), scope="global"),)
    )
    x = 0.97 + 0.3 * rng.standard_normal(n_obs)

    def single(value):
        a, b = (0.0 - value) / 0.3, (1.0 - value) / 0.3
        return stats.truncnorm(a, b, loc=value, scale=0.3)

    estimator = OneParameter(space, single)
    observations = Observations.from_batch(Batch(x=x[:, None]))
    got = ProductCombiner(ProductConfig(points=256)).combine(Posterior(estimator), observations)
    mean, sd = on_fine_grid(space, lambda t: -0.5 * ((t[:, None] - x) ** 2).sum(1) / 0.09, 0.0, 1.0)
    assert_allclose((got.z_mean[0] - mean) / sd, 0, atol=0.01)
    assert_allclose(np.sqrt(got.z_cov[0, 0]) / sd, 1, atol=0.01)


def test_three_parameters_are_sampled(rng):
    space = ParameterSpace(
        tuple(
            Parameter(n, Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="global") for n in "abc"
        )
    )

    class Three(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            x = batch.x.double().numpy()
            return 0.8 * x, np.tile(0.2 * np.eye(3), (len(x), 1, 1))

        def log_prob(self, theta, batch):
            mean, _ = self.gaussian_moments(batch)
            return -0.5 * ((np.asarray(theta) - mean) ** 2).sum(-1) / 0.2

    estimator = Three()
    estimator.space = space
    observations = Observations.from_batch(Batch(x=rng.standard_normal((10, 3)) + 1.0))
    got, again = (
        ProductCombiner().combine(Posterior(estimator), observations, rng=3) for _ in range(2)
    )
    assert_array_equal(got.z_mean, again.z_mean)
    want = GaussianCombiner().combine(Posterior(estimator), observations)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=0.15)  # 16,000 correlated draws
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.1)


def test_local_parameters_are_refused(toy, rng):
    estimator = Exact()
    estimator.space = sbi_toy.SPACE

    class WithLocal(Exact):
        def gaussian_moments(self, batch):
            return np.zeros((len(batch), 3)), np.tile(0.5 * np.eye(3), (len(batch), 1, 1))

    local = WithLocal()
    local.space = sbi_toy.SPACE
    with pytest.raises(ConfigError, match="shared parameters alone"):
        ProductCombiner().combine(Posterior(local), objects(toy, 3, rng))
