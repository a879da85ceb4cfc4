import numpy as np
import pytest
from scipy import stats

from sbi_core.diagnostics import pit_integer, pit_integer_draws, pit_uniformity, rps, rps_skill

B, K = 1000, 6
RATE = np.array([0.5, 1.0, 4.0])


@pytest.fixture
def model(rng):
    """n uniform on 0..5, x ~ N(n, 1): exact probabilities (B, 6), truths (B,)."""
    n = rng.integers(0, K, size=B)
    x = n + rng.standard_normal(B)
    p = stats.norm.pdf(x[:, None], np.arange(K))
    return p / p.sum(1, keepdims=True), n


def sharpened(p):
    return p**2 / (p**2).sum(1, keepdims=True)


def test_the_exact_posterior_is_accepted(model, rng):
    p, n = model
    u = pit_integer(p, n, rng)
    assert pit_uniformity(u) > 1e-4  # false alarms: 1e-4
    assert ((u >= 0) & (u <= 1)).all()


def test_overconfidence_and_a_shift_are_rejected(model, rng):
    p, n = model
    assert pit_uniformity(pit_integer(sharpened(p), n, rng)) < 1e-3
    assert pit_uniformity(pit_integer(np.roll(p, 1, axis=1), n, rng)) < 1e-6


def test_the_prior_returned_as_posterior_passes_but_has_no_skill(model, rng):
    p, n = model
    prior = np.full(K, 1 / K)
    flat = np.broadcast_to(prior, p.shape)
    assert pit_uniformity(pit_integer(flat, n, rng)) > 1e-4  # false alarms: 1e-4
    assert rps_skill(flat, n, prior) == pytest.approx(0.0)
    assert rps_skill(p, n, prior) > 0.5


def test_draws_give_uniform_values_even_when_they_are_few(model, rng):
    p, n = model
    draws = (rng.random((7, B, 1)) > np.cumsum(p, axis=1)).sum(-1)
    assert pit_uniformity(pit_integer_draws(draws[..., None], n[:, None], rng))[0] > 1e-4
    wrong = np.clip(draws + 1, 0, K - 1)
    assert pit_uniformity(pit_integer_draws(wrong[..., None], n[:, None], rng))[0] < 1e-6


def test_integers_may_start_anywhere(model, rng):
    p, n = model
    a = pit_integer(p, n, np.random.default_rng(1))
    np.testing.assert_array_equal(a, pit_integer(p, n + 7, np.random.default_rng(1), low=7))
    np.testing.assert_array_equal(rps(p, n), rps(p, n + 7, low=7))


def test_no_posterior_scores_better_than_the_exact_one(model):
    p, n = model
    exact = rps(p, n).mean()
    for wrong in (sharpened(p), np.sqrt(p) / np.sqrt(p).sum(1, keepdims=True), np.roll(p, 1, 1)):
        assert exact < rps(wrong, n).mean()


def test_certainty_scores_zero_and_distance_counts():
    one = np.eye(4)
    assert rps(one[[2]], np.array([2]))[0] == 0
    assert rps(one[[0]], np.array([3]))[0] == 3


@pytest.mark.parametrize("function", [rps, lambda p, n, **k: pit_integer(p, n, None, **k)])
def test_bad_input_is_named(function):
    with pytest.raises(ValueError, match="must sum to 1, not 0.9"):
        function(np.array([[0.5, 0.4]]), np.array([0]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        function(np.array([[0.5, 0.5]]), np.array([2]))
    with pytest.raises(ValueError, match="integers"):
        function(np.array([[0.5, 0.5]]), np.array([0.5]))
    with pytest.raises(ValueError, match="must be"):
        function(np.array([0.5, 0.5]), np.array([1]))
    with pytest.raises(ValueError, match="finite"):
        pit_uniformity(np.array([np.nan]))
