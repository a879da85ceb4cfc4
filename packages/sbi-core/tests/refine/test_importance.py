import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sbi_core.refine import importance_resample

X, S = 1.3, 4000


def biased(rng, shift=0.4, width=1.3):
    """theta ~ N(0, 1), x ~ N(theta, 1), so N(x/2, 1/2); draws and densities of a wrong q."""
    q = stats.norm(X / 2 + shift * np.sqrt(0.5), width * np.sqrt(0.5))
    theta = q.rvs(S, random_state=rng)
    return theta[:, None], q.logpdf(theta), stats.norm.logpdf(X, theta), stats.norm.logpdf(theta)


def test_a_biased_posterior_becomes_the_exact_one(rng):
    draws, *logs = biased(rng)
    got = importance_resample(draws, *logs, rng)
    error = np.sqrt(0.5 / got.ess)
    assert abs(got.draws.mean() - X / 2) < 4 * error  # false alarms: 1e-4; q is off by 18
    assert_allclose(got.draws.var(), 0.5, rtol=0.1)
    assert abs(draws.mean() - X / 2) > 10 * error
    assert 0.6 < got.efficiency < 1
    assert got.verdict.level == "pass"
    assert_allclose(got.log_evidence, stats.norm.logpdf(X, 0, np.sqrt(2)), atol=0.05)


def test_the_exact_posterior_is_left_as_it_is(rng):
    draws, *logs = biased(rng, 0.0, 1.0)
    got = importance_resample(draws, *logs, rng)
    assert_allclose(np.sort(got.draws, axis=0), np.sort(draws, axis=0))
    assert got.efficiency == pytest.approx(1.0)
    assert got.ess == pytest.approx(S)


def test_a_draw_of_weight_w_appears_about_n_w_times(rng):
    draws = np.arange(4.0)[:, None]
    log_w = np.log([0.5, 0.25, 0.2, 0.05])
    got = importance_resample(draws, np.zeros(4), log_w, np.zeros(4), rng, n=100)
    assert np.bincount(got.draws[:, 0].astype(int)).tolist() == [50, 25, 20, 5]


def test_hopeless_and_misshapen_input_is_named(rng):
    draws, *logs = biased(rng)
    with pytest.raises(ValueError, match="does not overlap"):
        importance_resample(draws, logs[0], np.full(S, -np.inf), logs[2], rng)
    with pytest.raises(ValueError, match="must be"):
        importance_resample(draws[:, 0], *logs, rng)
