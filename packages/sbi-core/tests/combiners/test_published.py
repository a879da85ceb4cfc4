"""The published rule fails exactly as derived: this guards the guard.

With P_i = P_0 + J: correct precision P_0 + N J, published (2N - 1) P_0 + N J. The bias tends to
(mu_0 - t) 2 P_0 / (2 P_0 + J) and does not shrink with N.
"""

import numpy as np
import pytest
import sbi_toy
from numpy.testing import assert_allclose

from sbi_core.combiners.gaussian import GaussianCombiner, combine_gaussian
from sbi_core.combiners.moments import Gaussian
from sbi_core.combiners.published import PublishedCombiner, PublishedConfig, combine_published
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.posterior import Posterior

PRIOR = Gaussian(np.array([0.5]), np.array([[4.0]]))  # P_0 = 0.25
P0 = 0.25


def without_noise(n, truth, information):
    """Single posteriors of n objects, each worth J, whose data sit on the truth."""
    precision = P0 + information
    mean = (P0 * PRIOR.mean[0] + information * truth) / precision
    return np.full((n, 1), mean), np.full((n, 1), 1 / precision)


@pytest.mark.parametrize("information", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("truth", [0.5, 4.5, -3.5])
@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_mean_and_width_are_those_of_the_printed_equations(n, truth, information):
    got = combine_published(*without_noise(n, truth, information), PRIOR)
    precision = (2 * n - 1) * P0 + n * information
    want = ((2 * n - 1) * P0 * PRIOR.mean[0] + n * information * truth) / precision
    assert_allclose(got.mean, want, rtol=1e-12)
    assert_allclose(got.cov, 1 / precision, rtol=1e-12)


@pytest.mark.parametrize("information", [0.1, 1.0, 30.0])
def test_the_bias_tends_to_a_constant(information):
    truth = 4.5  # two sigma off the prior mean
    got = combine_published(*without_noise(10**6, truth, information), PRIOR)
    want = (PRIOR.mean[0] - truth) * 2 * P0 / (2 * P0 + information)
    assert_allclose(got.mean - truth, want, rtol=1e-4)


def test_there_is_no_bias_at_the_prior_mean():
    for n in (1, 10, 1000):
        got = combine_published(*without_noise(n, PRIOR.mean[0], 1.0), PRIOR)
        assert_allclose(got.mean, PRIOR.mean, rtol=1e-12)


def test_the_error_in_sigmas_grows_like_the_root_of_n():
    z = []
    for n in (100, 400, 1600, 6400):
        got = combine_published(*without_noise(n, 4.5, 1.0), PRIOR)
        z.append(abs(got.mean[0] - 4.5) / np.sqrt(got.cov[0, 0]))
    assert_allclose(np.divide(z[1:], z[:-1]), 2.0, rtol=0.01)
    assert z[-1] > 100


def test_it_is_too_narrow_for_one_more_reason():
    """The prior counted 2N - 1 times makes the width smaller than the exact one."""
    mean, variance = without_noise(100, 0.5, 0.1)
    wrong = combine_published(mean, variance, PRIOR)
    right = combine_gaussian(mean, variance[:, :, None], PRIOR)
    assert_allclose(wrong.cov / right.cov, (P0 + 10) / (199 * P0 + 10), rtol=1e-10)


@pytest.mark.parametrize("n", [10, 1000])
def test_it_fails_the_test_that_the_exact_rule_passes(n, linear_gaussian, rng):
    model = linear_gaussian(2, 4, 8, truth=2.0)
    x, err = model.simulate(n, rng)
    mean, cov = model.single_posteriors(x, err)
    want = model.posterior(x, err)
    wrong = combine_published(mean, np.einsum("nii->ni", cov), model.prior)
    right = combine_gaussian(mean, cov, model.prior)
    assert np.abs(right.mean - want.mean).max() < 1e-6
    assert np.abs(wrong.mean - want.mean).max() > 0.05


def test_one_object_gives_its_marginals_and_none_the_prior():
    mean, variance = np.array([[0.3, -1.0]]), np.array([[0.5, 2.0]])
    prior = Gaussian.standard(2)
    one = combine_published(mean, variance, prior)
    assert_allclose(one.mean, mean[0])
    assert_allclose(one.cov, np.diag(variance[0]))
    assert combine_published(mean[:0], variance[:0], prior) is prior


def test_the_plain_form_is_the_inverse_variance_mean(rng):
    mean, variance = rng.normal(size=(50, 2)), rng.uniform(0.1, 1, (50, 2))
    got = combine_published(mean, variance, Gaussian.standard(2), plain=True)
    assert_allclose(got.mean, np.average(mean, axis=0, weights=1 / variance)[:2])
    assert_allclose(np.diag(got.cov), 1 / (1 / variance).sum(0))


def test_results_are_for_comparison_only(toy, rng):
    estimator = sbi_toy.ExactEstimator()
    estimator.space = sbi_toy.SPACE.select("global")
    theta = sbi_toy.SPACE.sample(200, rng)
    theta[:, :2] = sbi_toy.LOC + 2 * sbi_toy.SCALE
    observations = Observations.from_batch(toy.observe(toy.simulate(theta, rng), rng))
    combiner = PublishedCombiner()
    results = combiner.combine_subsets(
        Posterior(estimator), observations, [slice(0), slice(1), slice(None)]
    )
    assert combiner.comparison_only
    assert not GaussianCombiner.comparison_only
    assert all(r.flags == ("comparison_only",) for r in results)
    assert [r.n for r in results] == [0, 1, 200]
    right = GaussianCombiner().combine(Posterior(estimator), observations)
    off = [np.abs(r.z_mean - 2) / np.sqrt(np.diag(r.z_cov)) for r in (results[-1], right)]
    assert off[0].max() > 4.5 > off[1].max()  # the exact rule: false alarm 1e-5


def test_equations_and_plain_form_differ_in_the_prior_terms_only():
    estimator = sbi_toy.ExactEstimator()
    estimator.space = sbi_toy.SPACE.select("global")
    batch = Batch(x=np.zeros((10, 3)), x_err=np.ones((10, 3)))
    both = [
        PublishedCombiner(PublishedConfig(form=form)).combine(
            Posterior(estimator), Observations.from_batch(batch)
        )
        for form in ("equations", "plain")
    ]
    extra = np.diag(np.linalg.inv(both[0].z_cov)) - np.diag(np.linalg.inv(both[1].z_cov))
    assert_allclose(extra, 9.0, rtol=1e-9)
