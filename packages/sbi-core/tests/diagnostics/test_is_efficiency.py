import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sbi_core.diagnostics import importance_weights, is_efficiency, judge_importance, pareto_k

S = 4000


def conjugate(rng, shift=0.0, width=1.0, x=1.3):
    """theta ~ N(0, 1), x ~ N(theta, 1): posterior N(x/2, 1/2); draws of a q beside it."""
    mean, sd = x / 2, np.sqrt(0.5)
    q = stats.norm(mean + shift * sd, width * sd)
    theta = q.rvs(S, random_state=rng)
    return stats.norm.logpdf(x, theta), stats.norm.logpdf(theta), q.logpdf(theta)


def test_the_exact_posterior_has_equal_weights_and_the_exact_evidence(rng):
    got = importance_weights(*conjugate(rng))
    assert_allclose(got.efficiency, 1.0)
    assert_allclose(got.weights, 1 / S)
    assert_allclose(got.log_evidence, stats.norm.logpdf(1.3, 0, np.sqrt(2)))
    assert judge_importance("star", got.efficiency[0], got.pareto_k[0]).level == "pass"


def test_efficiency_of_a_shift_is_the_exact_one(rng):
    # E_q[w^2] = exp(shift^2) for equal widths
    got = is_efficiency(*conjugate(rng, shift=0.7))
    assert_allclose(got, np.exp(-(0.7**2)), rtol=0.05)


def test_too_narrow_a_posterior_has_a_heavy_tail(rng):
    # k = 1 - width^2: for width 0.2 the mean of the weights hardly converges
    columns = [conjugate(rng, width=0.2) for _ in range(5)]
    narrow = importance_weights(*(np.stack(c, axis=1) for c in zip(*columns, strict=True)))
    wide = importance_weights(*conjugate(rng, width=1.5))
    assert np.median(narrow.pareto_k) > 0.7  # its scatter is 0.1
    assert wide.pareto_k[0] < 0.5
    assert judge_importance("star", narrow.efficiency[0], narrow.pareto_k[0]).level != "pass"
    # far off the posterior nothing is left to reweight
    far = importance_weights(*conjugate(rng, shift=8.0))
    assert judge_importance("star", far.efficiency[0], far.pareto_k[0]).level == "fail"


def test_the_index_of_a_pareto_distribution(rng):
    weights = rng.pareto(1 / np.array([0.3, 0.9, 1.5]), (20_000, 3))  # k = 1 / shape
    got = pareto_k(np.concatenate([weights, np.ones((20_000, 1)), np.zeros((20_000, 1))], 1))
    assert_allclose(got[:3], [0.3, 0.9, 1.5], atol=0.15)
    assert got[3] == 0
    assert np.isnan(got[4])


def test_constants_and_impossible_draws_do_not_matter(rng):
    likelihood, prior, q = conjugate(rng, shift=0.5)
    prior[:400] = -np.inf
    a = importance_weights(likelihood, prior, q)
    b = importance_weights(likelihood - 1e4, prior, q)
    assert_allclose(a.weights, b.weights)
    assert_allclose(a.log_evidence - 1e4, b.log_evidence)
    assert (a.weights[:400] == 0).all()


def test_objects_are_columns_and_hopeless_ones_get_zero(rng):
    one = conjugate(rng)
    dead = np.full(S, -np.inf)
    got = importance_weights(
        np.stack([one[0], dead], 1), np.stack([one[1]] * 2, 1), np.stack([one[2]] * 2, 1)
    )
    assert_allclose(got.efficiency, [1.0, 0.0])
    assert got.log_evidence[1] == -np.inf


@pytest.mark.filterwarnings("error")
def test_one_draw_that_outweighs_all_others_has_no_tail_to_fit(rng):
    steep = rng.uniform(-715, -705, S)  # weights around the smallest numbers there are
    steep[17] = 0.0
    got = importance_weights(steep, np.zeros(S), np.zeros(S))
    assert got.pareto_k[0] == np.inf
    assert_allclose(got.efficiency, 1 / S)


def test_bad_input_is_named(rng):
    likelihood, prior, q = conjugate(rng)
    with pytest.raises(ValueError, match="one shape"):
        importance_weights(likelihood[:5], prior, q)
    with pytest.raises(ValueError, match="log_q must be finite"):
        importance_weights(likelihood, prior, np.where(q > q[0], q, -np.inf))
    with pytest.raises(ValueError, match="log_likelihood is NaN"):
        importance_weights(np.where(q > q[0], likelihood, np.nan), prior, q)
