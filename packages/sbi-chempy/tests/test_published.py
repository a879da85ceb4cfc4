"""The published rule fails exactly as derived: this guards the guard.

With P_i = P_0 + J: correct precision P_0 + N J, published (2N - 1) P_0 + N J. The bias tends to
(mu_0 - t) 2 P_0 / (2 P_0 + J) and does not shrink with N.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_chempy.published import PublishedCombiner, PublishedConfig, combine_published
from sbi_core import Gaussian, get_combiner
from sbi_core.testing import CombinerChecks, ExactEstimator, LinearGaussian

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
    right = 1 / (P0 + (1 / variance - P0).sum())
    assert_allclose(wrong.cov / right, (P0 + 10) / (199 * P0 + 10), rtol=1e-10)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_it_fails_the_test_that_the_exact_rule_passes(n):
    model = LinearGaussian()
    objects = model.objects(n, off=2.0, seed=4)
    mean, _ = model.posterior(objects.batch)
    right, wrong = (
        rule.combine(ExactEstimator.trained(), objects)
        for rule in (get_combiner("gaussian"), PublishedCombiner())
    )
    assert np.abs(right.z_mean - mean).max() < 1e-6
    assert np.abs(wrong.z_mean - mean).max() > 0.05


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


def test_it_passes_as_a_rule_for_comparison_and_as_no_other():
    CombinerChecks.of(PublishedCombiner).run()
    rule = PublishedCombiner()
    rule.comparison_only = False
    with pytest.raises(AssertionError, match="divides-the-prior-out"):
        CombinerChecks.of(lambda: rule).run()


def test_results_are_for_comparison_only():
    rule = get_combiner("published")
    objects = LinearGaussian().objects(200, off=2.0, seed=1)
    results = rule.combine_subsets(
        ExactEstimator.trained(), objects, [slice(0), slice(1), slice(None)]
    )
    assert rule.comparison_only
    assert not get_combiner("gaussian").comparison_only
    assert all(r.flags == ("comparison_only",) for r in results)
    assert [r.n for r in results] == [0, 1, 200]
    right = get_combiner("gaussian").combine(ExactEstimator.trained(), objects)
    off = [np.abs(r.z_mean - 2) / np.sqrt(np.diag(r.z_cov)) for r in (results[-1], right)]
    assert off[0].max() > 4.5 > off[1].max()  # the exact rule: false alarm 1e-5


def test_equations_and_plain_form_differ_in_the_prior_terms_only():
    objects = LinearGaussian().objects(10, off=1.0, seed=2)
    both = [
        PublishedCombiner(PublishedConfig(form=form)).combine(ExactEstimator.trained(), objects)
        for form in ("equations", "plain")
    ]
    extra = np.diag(np.linalg.inv(both[0].z_cov)) - np.diag(np.linalg.inv(both[1].z_cov))
    assert_allclose(extra, 9.0, rtol=1e-9)


def test_each_form_has_its_warning():
    equations, plain = (PublishedCombiner(PublishedConfig(form=f)) for f in ("equations", "plain"))
    assert "add N - 1 prior factors" in equations.warning
    assert "inverse-variance" in plain.warning
