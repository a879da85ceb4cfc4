"""The likelihood combiner on the linear-Gaussian toy, whose joint posterior is exact."""

import numpy as np
import pytest
import sbi_toy
from numpy.testing import assert_allclose

from sbi_core.combiners import likelihood
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.likelihood import LikelihoodCombiner, LikelihoodConfig
from sbi_core.combiners.moments import Gaussian
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream


@pytest.fixture
def exact():
    estimator = sbi_toy.ExactEstimator()
    estimator.space = sbi_toy.SPACE.select("global")
    return Posterior(estimator)


def objects(toy, n, rng, missing=0.0):
    theta = sbi_toy.SPACE.sample(n, rng)
    theta[:, :2] = sbi_toy.LOC + 2 * sbi_toy.SCALE
    batch = toy.simulate(theta, rng)
    err = np.exp(rng.uniform(np.log(0.3), np.log(1.0), batch.x.shape))
    mask = rng.random(err.shape) >= missing
    x = np.where(mask, batch.x.numpy() + err * rng.standard_normal(err.shape), np.nan)
    return Observations.from_batch(Batch(x=x, x_err=np.where(mask, err, np.nan), mask=mask))


class Wrong(sbi_toy.ExactEstimator):
    """A posterior that is biased and too narrow: only a place to start from."""

    def gaussian_moments(self, batch):
        mean, cov = sbi_toy.exact_moments(batch)
        return mean + 0.3 * np.sqrt(np.einsum("nii->ni", cov)), 0.8 * cov


@pytest.mark.parametrize(("n_obs", "points"), [(1, 5), (10, 5), (200, 3)])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_it_finds_the_exact_posterior(n_obs, points, missing, exact, toy, rng):
    observations = objects(toy, n_obs, rng, missing)
    rule = LikelihoodCombiner(LikelihoodConfig(draws=128, points=points))
    rule.attach(toy)
    got = rule.combine(exact, observations)
    want = GaussianCombiner().combine(exact, observations)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=0.1)
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.05)
    assert got.diagnostics["effective_draws"] > 30
    assert got.diagnostics["monte_carlo_sigma"] < 0.1


def test_it_does_not_inherit_the_errors_of_the_estimator(exact, toy, rng):
    wrong = Wrong()
    wrong.space = exact.space
    observations = objects(toy, 100, rng)
    rule = LikelihoodCombiner(LikelihoodConfig(draws=128, points=3))
    rule.attach(toy)
    got = rule.combine(Posterior(wrong), observations)
    want = GaussianCombiner().combine(exact, observations)
    off = GaussianCombiner().combine(Posterior(wrong), observations)
    sd = np.sqrt(np.diag(want.z_cov))
    assert np.abs((off.z_mean - want.z_mean) / sd).max() > 1  # the start is wrong
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=0.15)
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.05)


class Broad(sbi_toy.ExactEstimator):
    """Posteriors broader than the prior, whose plain Gaussian product does not exist."""

    def gaussian_moments(self, batch):
        mean, cov = sbi_toy.exact_moments(batch)
        return mean, cov + 1.5 * np.eye(cov.shape[-1])


def test_it_combines_where_the_gaussian_product_does_not_exist(exact, toy, rng):
    broad = Broad()
    broad.space = exact.space
    observations = objects(toy, 50, rng)
    plain = GaussianCombiner().combine(Posterior(broad), observations)
    assert plain.diagnostics["smallest_precision_ratio"] < 0
    assert "broader_than_prior" in plain.flags
    rule = LikelihoodCombiner(LikelihoodConfig(draws=128))
    rule.attach(toy)
    got = rule.combine(Posterior(broad), observations)
    want = GaussianCombiner().combine(exact, observations)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=0.15)
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.1)
    assert got.flags == ("gaussian_impossible",)


class WithoutLocals(sbi_toy.ToySimulator):
    """Two shared parameters, nothing else."""

    parameters = sbi_toy.SPACE.select("global")

    def simulate(self, theta, rng):
        return Batch(x=np.asarray(theta) @ sbi_toy.A.T, theta=np.asarray(theta))


@pytest.mark.parametrize("n_obs", [1, 50])
def test_without_local_parameters_nothing_is_integrated(n_obs, rng):
    model = WithoutLocals()
    theta = np.tile(sbi_toy.LOC + 1.5 * sbi_toy.SCALE, (n_obs, 1))
    observations = Observations.from_batch(model.observe(model.simulate(theta, rng), rng))
    design = sbi_toy.A * sbi_toy.SCALE / sbi_toy.ERROR
    x = (observations.batch.x.double().numpy() - sbi_toy.A @ sbi_toy.LOC) / sbi_toy.ERROR

    class Exact(sbi_toy.ExactEstimator):
        space = model.parameters

        def gaussian_moments(self, batch):
            cov = np.linalg.inv(np.eye(2) + design.T @ design)
            rows = (batch.x.double().numpy() - sbi_toy.A @ sbi_toy.LOC) / sbi_toy.ERROR
            return rows @ design @ cov, np.tile(cov, (len(rows), 1, 1))

    rule = LikelihoodCombiner()
    rule.attach(model)
    got = rule.combine(Posterior(Exact()), observations)
    cov = np.linalg.inv(np.eye(2) + n_obs * design.T @ design)
    assert_allclose(got.z_mean, cov @ design.T @ x.sum(0), atol=0.02 * np.sqrt(cov.max()))
    assert_allclose(got.z_cov, cov, rtol=0.02, atol=1e-3 * cov.max())


class Sum(sbi_toy.ToySimulator):
    """One value, the sum of a shared and a local parameter, both N(0, 1)."""

    parameters = ParameterSpace(
        (
            Parameter("shared", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="global"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0})),
        )
    )

    def simulate(self, theta, rng):
        return Batch(x=np.asarray(theta).sum(1, keepdims=True), theta=np.asarray(theta))


@pytest.mark.parametrize("n_obs", [1, 3])
def test_small_errors_whose_locals_follow_the_shared_parameters(n_obs, rng):
    """The local that explains an object moves by hundreds of its widths over the grid."""
    err = 0.01
    x = 0.7 + rng.standard_normal((n_obs, 1))

    class Single(sbi_toy.ExactEstimator):
        space = Sum.parameters.select("global")

        def gaussian_moments(self, batch):
            return batch.x.double().numpy() / 2, np.full((len(batch), 1, 1), 0.5)

    observations = Observations.from_batch(Batch(x=x, x_err=np.full(x.shape, err)))
    rule = LikelihoodCombiner()
    rule.attach(Sum())
    got = rule.combine(Posterior(Single()), observations)
    var = 1 / (1 + n_obs / (1 + err**2))
    assert_allclose(got.z_mean, var * x.sum() / (1 + err**2), atol=0.02)
    assert_allclose(got.z_cov, var, rtol=0.05)
    assert got.diagnostics["largest_pareto_k"] < 0.7
    assert got.flags == ()


def test_uneven_weights_are_reported(exact, toy, rng, monkeypatch):
    monkeypatch.setattr(likelihood, "_adapted", lambda *_: _[3])  # proposals are not fitted
    monkeypatch.setattr(likelihood, "_MORE", 0)
    monkeypatch.setattr(likelihood, "_WIDER", 0.2)
    rule = LikelihoodCombiner(LikelihoodConfig(draws=128, total=1, moves=0))
    rule.attach(toy)
    got = rule.combine(exact, objects(toy, 20, rng))
    assert got.diagnostics["largest_pareto_k"] > 0.7
    assert got.diagnostics["fraction_large_pareto_k"] > 0.05
    assert "uneven_weights" in got.flags


def test_objects_with_uneven_weights_get_more_draws(exact, toy, rng, monkeypatch):
    counts = []

    class Counting(LikelihoodCombiner):
        def _log_means(self, model, objects, middle, grid, nodes, count, rng):
            counts.append((len(objects), count))
            found = super()._log_means(model, objects, middle, grid, nodes, count, rng)
            if count < 2000:
                found.pareto_k[0] = 0.9
            return found

    rule = Counting(LikelihoodConfig(draws=128, total=1, moves=0))
    rule.attach(toy)
    got = rule.combine(exact, objects(toy, 20, rng))
    assert counts == [(20, 128), (1, 512), (1, 2048)]
    assert got.diagnostics["largest_pareto_k"] < 0.7


def test_few_objects_get_more_draws_each():
    rule = LikelihoodCombiner(LikelihoodConfig(draws=100, total=1000))
    assert [rule._count(n) for n in (1, 3, 10, 500)] == [1024, 512, 128, 100]


def test_no_object_gives_the_prior(exact, toy, rng):
    rule = LikelihoodCombiner()
    rule.attach(toy)
    got = rule.combine(exact, objects(toy, 1, rng)[np.arange(0)])
    assert_allclose(got.z_mean, 0)
    assert_allclose(got.z_cov, np.eye(2))


def test_it_needs_the_simulator_and_errors(exact, toy, rng):
    with pytest.raises(ConfigError, match="attach"):
        LikelihoodCombiner().combine(exact, objects(toy, 2, rng))
    rule = LikelihoodCombiner()
    rule.attach(toy)
    without = Observations.from_batch(Batch(x=np.zeros((2, 3)), x_err=None))
    broad = sbi_toy.ExactEstimator()
    broad.gaussian_moments = lambda b: (
        np.zeros((len(b), 2)),
        np.tile(0.5 * np.eye(2), (len(b), 1, 1)),
    )
    broad.space = exact.space
    with pytest.raises(ObservationError, match="without errors"):
        rule.combine(Posterior(broad), without)


def test_an_object_that_no_draw_explains_has_likelihood_zero(recwarn):
    values = stream(1).standard_normal(size=(3, 64))
    values[1] = -np.inf
    values[2, :20] = -np.inf
    found = likelihood._jackknife(values)
    assert found[1] == -np.inf
    assert np.isfinite(found[[0, 2]]).all()
    assert not recwarn.list


def test_moments_stay_where_nodes_are():
    """A grid of which one half is impossible: no probability may leak into that half."""
    nodes = likelihood._nodes(2, 5, 3.0)
    wide = Gaussian(np.zeros(2), 0.3 * np.eye(2))
    values = 4.0 * nodes[:, 0] - 0.5 * nodes[:, 1] ** 2  # rises towards the impossible half
    values[nodes[:, 0] > 0] = -np.inf
    found = likelihood._moments(values, wide, nodes, 5, 3.0)
    assert found.mean[0] < 0.75 * np.sqrt(0.3)  # half way to the first impossible node
    assert abs(found.mean[1]) < 0.05
    with pytest.raises(ObservationError, match="no simulation explains all objects"):
        likelihood._moments(np.full(25, -np.inf), wide, nodes, 5, 3.0)


def test_moments_of_a_gaussian_are_exact():
    target = Gaussian(np.array([0.2, -0.1]), np.array([[0.05, 0.01], [0.01, 0.04]]))
    start = Gaussian(np.array([0.25, -0.15]), np.diag([0.06, 0.05]))
    nodes = likelihood._nodes(2, 5, 3.0)
    z = start.mean + nodes @ np.linalg.cholesky(start.cov).T
    off = np.linalg.solve(np.linalg.cholesky(target.cov), (z - target.mean).T)
    found = likelihood._moments(-0.5 * (off**2).sum(0) + 0.5 * (z**2).sum(1), start, nodes, 5, 3.0)
    assert_allclose(found.mean, target.mean, atol=2e-3)
    assert_allclose(found.cov, target.cov, atol=2e-3)
