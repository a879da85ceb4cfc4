"""Combination against the exact joint posterior, with the truth two sigma off the prior mean."""

import numpy as np
import pytest
import sbi_toy
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.gaussian import GaussianCombiner, GaussianConfig, combine_gaussian
from sbi_core.combiners.moments import Gaussian
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior


@pytest.fixture
def exact():
    """A posterior of the toy that knows the truth about itself."""
    estimator = sbi_toy.ExactEstimator()
    estimator.space = sbi_toy.SPACE.select("global")
    return Posterior(estimator)


@pytest.fixture
def objects(toy, rng):
    """``objects(n)``: mock objects of the toy, truth two sigma off the prior mean."""

    def make(n, error=sbi_toy.ERROR):
        theta = sbi_toy.SPACE.sample(max(n, 1), rng)
        theta[:, :2] = sbi_toy.LOC + 2 * sbi_toy.SCALE
        batch = toy.simulate(theta, rng)
        err = np.full(batch.x.shape, error)
        x = batch.x.numpy() + err * rng.standard_normal(err.shape)
        return Observations.from_batch(Batch(x=x, x_err=err))[np.arange(n)]

    return make


def exact_joint(observations):
    """The exact posterior of the toy's globals given all objects, in units of the prior."""
    x, err = (v.double().numpy() for v in (observations.batch.x, observations.batch.x_err))
    inverse = np.linalg.inv(err[:, :, None] ** 2 * np.eye(3) + np.outer(sbi_toy.B, sbi_toy.B))
    design = sbi_toy.A * sbi_toy.SCALE
    precision = np.eye(2) + np.einsum("mi,nmp,pj->ij", design, inverse, design)
    total = np.einsum("mi,nmp,np->i", design, inverse, x - sbi_toy.A @ sbi_toy.LOC)
    return np.linalg.solve(precision, total), np.linalg.inv(precision)


@pytest.mark.parametrize("n_obs", [0, 1, 2, 10, 1000, 10_000])
@pytest.mark.parametrize(("d", "k", "m"), [(2, 4, 8), (1, 1, 2), (3, 0, 2)])
def test_recovers_the_exact_posterior_off_the_prior_mean(n_obs, d, k, m, linear_gaussian, rng):
    model = linear_gaussian(d, k, m, truth=2.0)
    x, err = model.simulate(n_obs, rng)
    got = combine_gaussian(*model.single_posteriors(x, err), model.prior)
    want = model.posterior(x, err)
    sd = np.sqrt(np.diag(want.cov))
    assert_allclose((got.mean - want.mean) / sd, 0, atol=1e-6)  # in units of its own width
    assert_allclose(got.mean, want.mean, atol=1e-6)
    assert_allclose(got.cov / np.outer(sd, sd), want.cov / np.outer(sd, sd), atol=1e-6)


def test_truths_from_the_prior_are_found_within_their_errors(linear_gaussian, rng):
    model = linear_gaussian(2, 4, 8, truth=0.0)
    chi2 = 0.0
    for value in rng.multivariate_normal(model.prior.mean, model.prior.cov, 200):
        x, err = model.simulate(50, rng, value)
        got = combine_gaussian(*model.single_posteriors(x, err), model.prior)
        chi2 += (got.mean - value) @ np.linalg.solve(got.cov, got.mean - value)
    assert 299 < chi2 < 520  # chi-squared of 400 degrees of freedom: false alarm 1e-4


def test_order_of_objects_does_not_matter(linear_gaussian, rng):
    model = linear_gaussian(2, 4, 8, truth=2.0)
    mean, cov = model.single_posteriors(*model.simulate(100, rng))
    order = rng.permutation(100)
    one = combine_gaussian(mean, cov, model.prior)
    other = combine_gaussian(mean[order], cov[order], model.prior)
    assert_allclose(one.mean, other.mean, rtol=1e-10)
    assert_allclose(one.cov, other.cov, rtol=1e-10)


@pytest.mark.parametrize("cut", [1, 30, 50])
def test_combining_the_combinations_of_two_parts_is_combining_all(cut, linear_gaussian, rng):
    model = linear_gaussian(2, 4, 8, truth=2.0)
    mean, cov = model.single_posteriors(*model.simulate(100, rng))
    parts = [combine_gaussian(mean[s], cov[s], model.prior) for s in (slice(cut), slice(cut, 100))]
    both = combine_gaussian(
        np.stack([p.mean for p in parts]), np.stack([p.cov for p in parts]), model.prior
    )
    whole = combine_gaussian(mean, cov, model.prior)
    assert_allclose(both.mean, whole.mean, rtol=1e-9)
    assert_allclose(both.cov, whole.cov, rtol=1e-9)


def test_duplicating_every_object_squares_the_likelihood(linear_gaussian, rng):
    """Power posterior P_0 + beta (sum P_i - N P_0) with beta = 2."""
    model = linear_gaussian(2, 4, 8, truth=2.0)
    mean, cov = model.single_posteriors(*model.simulate(20, rng))
    twice = combine_gaussian(np.tile(mean, (2, 1)), np.tile(cov, (2, 1, 1)), model.prior)
    once = combine_gaussian(mean, cov, model.prior)
    p0, p = np.linalg.inv(model.prior.cov), np.linalg.inv(once.cov)
    assert_allclose(np.linalg.inv(twice.cov), p0 + 2 * (p - p0), rtol=1e-8)
    want = p0 @ model.prior.mean + 2 * (p @ once.mean - p0 @ model.prior.mean)
    assert_allclose(np.linalg.solve(twice.cov, twice.mean), want, rtol=1e-8)


def test_no_object_gives_the_prior_and_one_object_its_posterior(linear_gaussian, rng):
    model = linear_gaussian(2, 4, 8, truth=2.0)
    mean, cov = model.single_posteriors(*model.simulate(1, rng))
    none = combine_gaussian(mean[:0], cov[:0], model.prior)
    assert_allclose(none.mean, model.prior.mean, rtol=1e-12)
    assert_allclose(none.cov, model.prior.cov, rtol=1e-12)
    one = combine_gaussian(mean, cov, model.prior)
    assert_allclose(one.mean, mean[0], rtol=1e-10)
    assert_allclose(one.cov, cov[0], rtol=1e-10)


def test_objects_that_say_nothing_change_nothing(linear_gaussian, rng):
    """10,000 copies of the prior: the two sums of the textbook formula cancel completely."""
    model = linear_gaussian(2, 4, 8, truth=2.0)
    mean, cov = model.single_posteriors(*model.simulate(3, rng))
    empty = 10_000
    got = combine_gaussian(
        np.concatenate([mean, np.tile(model.prior.mean, (empty, 1))]),
        np.concatenate([cov, np.tile(model.prior.cov, (empty, 1, 1))]),
        model.prior,
    )
    want = combine_gaussian(mean, cov, model.prior)
    assert_allclose(got.mean, want.mean, rtol=1e-8)
    assert_allclose(got.cov, want.cov, rtol=1e-8)


def test_directions_without_information_are_the_prior():
    """Posteriors broader than the prior in one direction (its precision is -0.25 or 0.2)."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    prior = Gaussian(np.array([1.0, -2.0]), turn @ np.diag([4.0, 0.25]) @ turn.T)
    root = turn * np.sqrt([4.0, 0.25])
    mean = prior.mean + np.array([[0.5, 3.0], [0.7, 2.0]]) @ root.T
    for broad in (1 / 0.375, 1 / 0.6):
        cov = np.stack([root @ np.diag([0.5, broad]) @ root.T] * 2)
        got = combine_gaussian(mean, cov, prior)
        want_mean = prior.mean + root @ [(0.5 + 0.7) * 2 / 3, 0.0]
        assert_allclose(got.mean, want_mean, rtol=1e-12)
        assert_allclose(got.cov, root @ np.diag([1 / 3, 1.0]) @ root.T, rtol=1e-12, atol=1e-12)


def test_noisy_covariances_from_draws_are_debiased(rng):
    """The mean of the combined precision over 400 repeats is unbiased: 5 sigma, 1e-6 alarm."""
    d, draws, repeats, n = 2, 60, 400, 50
    true = np.array([[0.5, 0.2], [0.2, 0.4]])
    root = np.linalg.cholesky(true)
    found = []
    for _ in range(repeats):
        z = rng.standard_normal((n, draws, d)) @ root.T
        cov = np.stack([np.cov(o.T) for o in z])
        got = combine_gaussian(np.zeros((n, d)), cov, Gaussian.standard(d), draws=draws)
        found.append(np.linalg.inv(got.cov))
    want = n * np.linalg.inv(true) - (n - 1) * np.eye(d)
    error = np.std(found, axis=0) / np.sqrt(repeats)
    assert (np.abs(np.mean(found, axis=0) - want) < 5 * error).all()


# -- the component, through a posterior ---------------------------------------------------------


@pytest.mark.parametrize("n_obs", [0, 1, 10, 1000, 10_000])
def test_the_combiner_agrees_with_the_exact_posterior(n_obs, exact, objects):
    observations = objects(n_obs)
    got = GaussianCombiner().combine(exact, observations)
    mean, cov = exact_joint(observations)
    assert_allclose(got.z_mean, mean, atol=1e-6)
    assert_allclose(got.z_cov, cov, rtol=1e-6, atol=1e-12)
    assert_allclose(got.mean, sbi_toy.LOC + sbi_toy.SCALE * mean, atol=1e-6)
    assert_allclose(got.sd, sbi_toy.SCALE * np.sqrt(np.diag(cov)), rtol=1e-6)
    assert (got.combiner, got.n, got.names) == ("gaussian", n_obs, ("slope", "offset"))


def test_subsets_equal_separate_combinations(exact, objects):
    observations = objects(12)
    subsets = [slice(0), slice(1), slice(3, 8), slice(None)]
    several = GaussianCombiner().combine_subsets(exact, observations, subsets)
    assert [c.n for c in several] == [0, 1, 5, 12]
    for rows, got in zip(subsets, several, strict=True):
        alone = GaussianCombiner().combine(exact, observations[np.arange(12)[rows]])
        assert_allclose(got.z_mean, alone.z_mean, atol=1e-12)
        assert_allclose(got.z_cov, alone.z_cov, rtol=1e-12)


def test_draws_of_the_combined_posterior_have_its_moments(exact, objects, rng):
    got = GaussianCombiner(GaussianConfig(samples=20_000)).combine(exact, objects(10), rng=rng)
    error = got.sd / np.sqrt(20_000)
    assert (np.abs(got.samples.mean(0) - got.mean) < 5 * error).all()  # false alarm 1e-6
    assert_allclose(np.cov(got.samples.T), got.cov, atol=0.05 * got.sd.max() ** 2)
    assert got.sample(7, rng=1).shape == (7, 2)


def test_the_same_seed_gives_the_same_draws(exact, objects):
    observations = objects(5)
    one, two = (GaussianCombiner().combine(exact, observations, rng=3) for _ in range(2))
    assert_array_equal(one.samples, two.samples)


def test_an_object_without_a_single_observed_value_says_nothing(exact, objects):
    observations = objects(3)
    nothing = observations.batch.with_(mask=np.zeros((3, 3), bool))
    got = GaussianCombiner().combine(exact, Observations.from_batch(nothing))
    assert_allclose(got.z_mean, 0, atol=1e-6)
    assert_allclose(got.z_cov, np.eye(2), atol=1e-6)


def test_local_parameters_are_integrated_out(objects):
    """An estimator of all three parameters combines like one of the two shared ones."""

    class AllParameters(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            mean, cov = super().gaussian_moments(batch)
            wide = np.tile(np.eye(3), (len(cov), 1, 1))
            wide[:, :2, :2] = cov
            wide[:, 2, :2] = wide[:, :2, 2] = 0.1
            return np.concatenate([mean, np.full((len(mean), 1), 5.0)], 1), wide

    all_three, shared = AllParameters(), sbi_toy.ExactEstimator()
    all_three.space, shared.space = sbi_toy.SPACE, sbi_toy.SPACE.select("global")
    observations = objects(20)
    got = GaussianCombiner().combine(Posterior(all_three), observations)
    want = GaussianCombiner().combine(Posterior(shared), observations)
    assert got.names == ("slope", "offset")
    assert_allclose(got.z_mean, want.z_mean, rtol=1e-10)
    assert_allclose(got.z_cov, want.z_cov, rtol=1e-10)


def test_only_local_parameters_cannot_be_combined(objects):
    estimator = sbi_toy.ExactEstimator()
    estimator.space = sbi_toy.SPACE.select("local")
    with pytest.raises(ConfigError, match="no parameter of scope 'global'.*'size'"):
        GaussianCombiner().combine(Posterior(estimator), objects(2))


def test_moments_from_draws_come_close_to_the_exact_ones(objects, rng):
    class Sampled(sbi_toy.ExactEstimator):
        gaussian_moments = sbi_toy.Estimator.gaussian_moments  # no closed form

    estimator = Sampled()
    estimator.space = sbi_toy.SPACE.select("global")
    observations = objects(10)
    got = GaussianCombiner(GaussianConfig(draws=20_000)).combine(
        Posterior(estimator), observations, rng=rng
    )
    mean, cov = exact_joint(observations)
    # the mean of each object is good to sd_i / sqrt(20,000); ten objects: 0.01 combined sigma
    assert_allclose(got.z_mean, mean, atol=0.06 * np.sqrt(np.diag(cov)).max())
    assert_allclose(got.z_cov, cov, rtol=0.06, atol=0.01 * cov.max())


def test_the_result_is_flagged_when_it_is_broader_than_the_prior():
    class Broad(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            return np.zeros((len(batch), 2)), np.tile(1.05 * np.eye(2), (len(batch), 1, 1))

    estimator = Broad()
    estimator.space = sbi_toy.SPACE.select("global")
    got = GaussianCombiner().combine(
        Posterior(estimator), Observations.from_batch(Batch(x=np.zeros((3, 3))))
    )
    assert "broader_than_prior" in got.flags
    assert got.diagnostics["smallest_precision_ratio"] < 1


def test_moments_are_those_of_the_draws_under_a_bounded_prior(rng):
    """The map is not affine there: physical mean and covariance come from mapped draws."""
    space = ParameterSpace(
        (Parameter("u", Prior("uniform", {"low": 0.0, "high": 1.0}), scope="global"),)
    )

    class OneBounded(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            return np.full((len(batch), 1), 1.5), np.full((len(batch), 1, 1), 0.5)

    estimator = OneBounded()
    estimator.space = space
    got = GaussianCombiner().combine(
        Posterior(estimator), Observations.from_batch(Batch(x=np.zeros((4, 3)))), rng=rng
    )
    assert ((got.samples > 0) & (got.samples < 1)).all()
    assert got.mean.shape == (1,)
    assert got.cov.shape == (1, 1)
    assert_allclose(got.mean, got.samples.mean(0))


# -- do the parts agree? --------------------------------------------------------------------------


def test_agreement_of_parts_follows_its_chi_squared_distribution(exact, toy, rng):
    """p is uniform for objects that share Lambda: KS at 1e-4; the truth comes from the prior."""
    from scipy.stats import kstest

    found = []
    for _ in range(300):
        theta = sbi_toy.SPACE.sample(100, rng)
        theta[:, :2] = theta[0, :2]
        batch = toy.observe(toy.simulate(theta, rng), rng)
        got = GaussianCombiner(GaussianConfig(samples=1)).combine(
            exact, Observations.from_batch(batch)
        )
        assert got.diagnostics["consistency_dof"] == 2 * 9
        found.append(got.diagnostics["consistency_p"])
    assert kstest(found, "uniform").pvalue > 1e-4


def test_parts_that_disagree_are_found(exact, objects):
    observations = objects(100)
    x = observations.batch.x.clone()
    x[::10] += 3.0  # one part of ten
    moved = observations.batch.with_(x=x)
    got = GaussianCombiner().combine(exact, Observations.from_batch(moved))
    assert got.diagnostics["consistency_p"] < 1e-4


def test_few_objects_make_no_statement_about_agreement(exact, objects):
    got = GaussianCombiner().combine(exact, objects(9))
    assert "consistency_p" not in got.diagnostics
    assert "consistency_p" not in got.summary()
