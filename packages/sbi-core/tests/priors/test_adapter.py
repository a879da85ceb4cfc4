"""Distributions of other libraries as priors: exact where there is a family, else tabulated."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from torch import distributions as td

from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

MIXTURE = td.MixtureSameFamily(
    td.Categorical(torch.tensor([0.3, 0.7])),
    td.Normal(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1.0])),
)
FAMILIES = [
    (stats.norm(1, 2), "normal"),
    (stats.norm(scale=3), "normal"),
    (stats.uniform(2, 3), "uniform"),
    (stats.loguniform(0.1, 10), "loguniform"),
    (stats.truncnorm(-2, np.inf, 0.5, 0.1), "truncnormal"),
    (stats.halfnorm(1, 2), "halfnormal"),
    (stats.lognorm(0.8, scale=0.6), "lognormal"),
    (stats.beta(2, 5, loc=-1, scale=4), "beta"),
    (stats.t(3, 1, 2), "studentt"),
    (stats.poisson(3), "discrete"),
    (stats.randint(2, 7), "discrete"),
    (stats.multivariate_normal([0, 1], [[1, 0.3], [0.3, 2]]), "mvnormal"),
    (stats.dirichlet([0.6, 2.0, 5.0]), "dirichlet"),
    (td.Normal(0.0, 0.1), "normal"),
    (td.Uniform(-1.0, 2.0), "uniform"),
    (td.LogNormal(0.0, 0.5), "lognormal"),
    (td.HalfNormal(2.0), "halfnormal"),
    (td.Beta(2.0, 5.0), "beta"),
    (td.StudentT(4.0, 1.0, 2.0), "studentt"),
    (td.Dirichlet(torch.tensor([0.6, 2.0, 5.0])), "dirichlet"),
    (
        td.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.3], [0.3, 2.0]])),
        "mvnormal",
    ),
]


def log_density(distribution, theta):
    if isinstance(distribution, td.Distribution):
        values = torch.as_tensor(theta)
        return distribution.log_prob(values if distribution.event_shape else values[:, 0]).numpy()
    f = distribution.logpmf if hasattr(distribution, "logpmf") else distribution.logpdf
    if theta.shape[1] == 1:
        return f(theta[:, 0])
    return np.array([f(row) for row in theta])


def named(value):
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(("distribution", "family"), FAMILIES, ids=named)
def test_what_is_a_family_becomes_that_family(distribution, family, rng):
    prior = Prior.of(distribution)
    assert prior.family == family
    theta = prior.sample(200, rng)
    # the numbers of torch are float32; Poisson's tail beyond 1e-12 is cut off
    assert_allclose(prior.log_prob(theta), log_density(distribution, theta), rtol=1e-5, atol=1e-5)
    assert Prior.from_spec(json.loads(json.dumps(prior.to_spec()))).hash == prior.hash


def test_numbers_of_float32_are_read_by_their_decimal_form():
    assert Prior.of(td.Normal(0.0, 0.1)).hash == Prior("normal", {"loc": 0, "scale": 0.1}).hash


@pytest.mark.parametrize(
    ("distribution", "ends"),
    [
        (stats.gamma(2.5), {}),
        (stats.laplace(), {}),
        (stats.beta(0.5, 0.5, loc=1), {"low": 1.01, "high": 1.99}),
        (td.Gumbel(1.0, 2.0), {}),
        (td.Gamma(2.0, 1.0), {"high": 25.0}),
        (MIXTURE, {"low": -5.0, "high": 8.0}),
    ],
    ids=named,
)
def test_any_density_of_one_number_becomes_a_table(distribution, ends, rng):
    prior = Prior.of(distribution, **ends)
    assert prior.family == "table"
    theta = prior.sample(500, rng)
    inside = np.quantile(theta, [0.01, 0.99])
    theta = theta[(theta[:, 0] > inside[0]) & (theta[:, 0] < inside[1])]
    off = prior.log_prob(theta) - log_density(distribution, theta)
    assert np.ptp(off) < 2e-3  # constant: the part within the ends
    if hasattr(distribution, "cdf"):
        low, high = (float(end[0]) for end in prior.support)
        f = distribution.cdf
        if isinstance(distribution, td.Distribution):
            f = lambda x: distribution.cdf(torch.as_tensor(x)).numpy()  # noqa: E731
        a, b = f(np.array([low])), f(np.array([high]))
        z = prior.to_unconstrained(theta)[:, 0]
        assert_allclose(special.ndtr(z), (f(theta[:, 0]) - a) / (b - a), atol=2e-4)


def test_a_function_is_a_log_density_up_to_a_constant(rng):
    prior = Prior.of(lambda x: -0.5 * ((x - 3) / 2) ** 2 + 100, low=-5, high=11)
    want = Prior("truncnormal", {"loc": 3, "scale": 2, "low": -5, "high": 11})
    theta = want.sample(300, rng)
    assert_allclose(prior.log_prob(theta), want.log_prob(theta), atol=1e-4)


def test_an_object_with_sample_and_log_prob_is_a_distribution(rng):
    class Mine:
        def sample(self, n, rng):
            return rng.normal(size=n)

        def log_prob(self, x):
            return stats.norm.logpdf(x)

    prior = Prior.of(Mine(), low=-7, high=7)
    theta = rng.normal(size=(100, 1))
    assert_allclose(prior.log_prob(theta), stats.norm.logpdf(theta[:, 0]), atol=1e-4)


T = stats.multivariate_t([0, 1], [[1, 0.3], [0.3, 2]], df=5)


def test_several_numbers_become_an_implicit_prior_that_can_be_drawn_from():
    prior = Prior.of(T)
    assert (prior.family, prior.size, prior.has_density) == ("implicit", 2, False)
    assert prior.hash == Prior.of(T).hash != Prior.of(stats.multivariate_t([0, 1], df=5)).hash
    space = ParameterSpace((Parameter("a", prior),))
    assert_array_equal(space.sample(5, 3), pickle.loads(pickle.dumps(space)).sample(5, 3))
    mean, sd = space.moments()
    assert_allclose(mean, [0, 1], atol=0.1)
    assert_allclose(sd, np.sqrt(np.array([1, 2]) * 5 / 3), rtol=0.1)
    with pytest.raises(DensityUnavailableError, match="needs a prior density"):
        prior.log_prob(np.zeros((1, 2)))
    stored = Prior.from_spec(json.loads(json.dumps(prior.to_spec())))
    assert stored.hash == prior.hash
    with pytest.raises(DensityUnavailableError, match="sampling outside the simulator"):
        stored.sample(3, 1)


def test_draws_of_torch_follow_the_generator_and_leave_the_global_one_alone():
    prior = Prior.of(td.LowRankMultivariateNormal(torch.zeros(2), torch.eye(2), torch.ones(2)))
    before = torch.get_rng_state()
    assert_array_equal(prior.sample(4, 1), prior.sample(4, 1))
    assert (prior.sample(4, 1) != prior.sample(4, 2)).all()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (3, "3 is not a distribution: Prior.of takes one of torch.distributions"),
        (td.Gamma(2.0, 1.0), "quantiles of Gamma.* are unknown: give Prior.of low= and high="),
        (td.Poisson(3.0), "is discrete: take it from scipy.stats"),
        (td.Uniform(torch.zeros(2), torch.ones(2)), "independent components"),
        (td.Independent(td.Normal(torch.zeros(2), 1.0), 1), "independent components"),
        (lambda x: -x, "give Prior.of low= and high="),
    ],
)
def test_what_cannot_be_a_prior_is_refused_with_the_way_out(distribution, message):
    with pytest.raises(ConfigError, match=message):
        Prior.of(distribution)


def test_a_density_that_the_grid_misses_is_refused():
    class Gap(stats.rv_continuous):
        """Half the mass on [0, 1], half on [10, 11]; nothing between."""

        def _pdf(self, x):
            return 0.5 * (((x > 0) & (x < 1)) | ((x > 10) & (x < 11)))

        def _ppf(self, q):
            return np.where(q < 0.5, 2 * q, 9 + 2 * q)

    with pytest.raises(ConfigError, match="integrates to .*give its range with low= and high="):
        Prior.of(Gap(a=0, b=11, name="gap")())


def test_a_density_that_is_not_finite_is_refused():
    with pytest.raises(ConfigError, match="not finite on all of"):
        Prior.of(lambda x: np.log(x), low=-1, high=1)


@pytest.mark.parametrize("mean", [3.1234, 3.125])
def test_a_narrow_density_refines_the_grid(mean):
    prior = Prior.of(lambda x: -0.5 * ((x - mean) / 1e-4) ** 2, low=0, high=10)
    theta = prior.sample(20_000, 1)
    assert_allclose([theta.mean(), theta.std()], [mean, 1e-4], rtol=0.02)


def test_a_tail_far_from_all_quantiles_refines_the_grid():
    theta = Prior.of(stats.gamma(1.0), low=40, high=60).sample(20_000, 1)
    assert_allclose(theta.mean(), 41, rtol=1e-3)


def test_a_grid_that_resolves_the_density_is_kept():
    prior = Prior.of(lambda x: -0.5 * ((x - 3) / 0.05) ** 2, low=0, high=10)
    assert_array_equal(prior.values["grid"], np.linspace(0, 10, 2001))


@pytest.mark.parametrize(
    ("function", "low", "high", "message"),
    [
        (lambda x: -0.5 * ((x - 1) / 1e-20) ** 2, -1, 3, "too fast for a table of"),
        (lambda x: 20 * np.sin(1e6 * x), 0, 3, "too fast for a table of"),
        (lambda x: 0.0, 0, 3, r"one value for each of its 2001 points \(it returned shape \(\)\)"),
        (math.exp, 0, 3, "must take an array .* numpy.vectorize makes"),
        (lambda x: 0.0 if x < 1 else -1.0, 0, 3, "must take an array .* numpy.vectorize makes"),
        (lambda x: -x, 3, 1, "needs low < high in its range, got 3 and 1"),
        (stats.gamma(2.5), -3, -1, "needs low < high in its range, got 0 and -1"),
    ],
)
def test_a_function_that_cannot_be_tabulated_is_refused(function, low, high, message):
    with pytest.raises(ConfigError, match=message):
        Prior.of(function, low=low, high=high)
