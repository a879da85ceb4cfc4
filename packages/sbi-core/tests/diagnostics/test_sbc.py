import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sbi_core.diagnostics import sbc_ecdf, sbc_ecdf_band, sbc_ranks, sbc_uniformity

DRAWS = 500


def test_the_exact_posterior_is_accepted(problem, rng):
    ranks = sbc_ranks(problem.draw(DRAWS, rng), problem.theta, rng)
    # False alarms: 3 quantities at 1e-4 each.
    assert sbc_uniformity(ranks, DRAWS).min() > 1e-4


@pytest.mark.parametrize(
    "fault", [{"shift": 0.3}, {"width": 0.7}, {"width": 1.4}], ids=["shift", "narrow", "wide"]
)
def test_planted_faults_are_rejected_in_every_parameter(problem, rng, fault):
    ranks = sbc_ranks(problem.draw(DRAWS, rng, **fault), problem.theta, rng)
    assert sbc_uniformity(ranks, DRAWS).max() < 1e-4


def test_the_prior_returned_as_posterior_passes(problem, rng):
    # Guards the guard: SBC alone cannot see this, so nobody may rely on it alone.
    prior_draws = rng.standard_normal((DRAWS, *problem.theta.shape))
    ranks = sbc_ranks(prior_draws, problem.theta, rng)
    assert sbc_uniformity(ranks, DRAWS).min() > 1e-4  # false alarms: 3e-4


def test_order_of_draws_does_not_matter_and_objects_keep_their_place(problem, rng):
    samples = problem.draw(50, rng)
    ranks = sbc_ranks(samples, problem.theta, rng)
    assert_array_equal(ranks, sbc_ranks(rng.permutation(samples, axis=0), problem.theta, rng))
    order = rng.permutation(len(problem.theta))
    assert_array_equal(ranks[order], sbc_ranks(samples[:, order], problem.theta[order], rng))
    assert_array_equal(sbc_uniformity(ranks, 50), sbc_uniformity(ranks[order], 50))


def test_ties_are_broken_evenly(rng):
    # An integer parameter with three values: nearly all comparisons are ties.
    theta = rng.integers(0, 3, size=(4000, 1))
    samples = rng.integers(0, 3, size=(20, 4000, 1))
    ranks = sbc_ranks(samples, theta, rng)
    assert set(np.unique(ranks)) == set(range(21))
    assert sbc_uniformity(ranks, 20) > 1e-4  # false alarms: 1e-4


@pytest.mark.parametrize(("n", "draws"), [(7, 1), (12, 3), (40, 9)])
def test_p_is_exact_for_few_discrete_ranks(rng, n, draws):
    # Against brute force: 20,000 experiments of n uniform ranks.
    trials = rng.integers(0, draws + 1, size=(20_000, n))
    t = np.arange(1, draws + 1) / (draws + 1)
    ecdf = (trials[:, :, None] <= np.arange(draws)).mean(axis=1)
    statistic = np.abs(ecdf - t).max(axis=1)
    for ranks, seen in zip(trials[:5], statistic[:5], strict=True):
        brute = (statistic >= seen - 1e-12).mean()
        # 5 sigma of the brute-force fraction: false alarms below 1e-5.
        assert_allclose(sbc_uniformity(ranks, draws), brute, atol=5 * 0.5 / np.sqrt(20_000))


def test_p_agrees_with_scipy_where_ranks_are_nearly_continuous(rng):
    draws = 20_000
    ranks = rng.integers(0, draws + 1, size=200)
    want = stats.kstest((ranks + 0.5) / (draws + 1), "uniform").pvalue
    assert_allclose(sbc_uniformity(ranks, draws), want, rtol=0.02)


def test_p_falls_steadily_across_the_change_to_the_bound():
    # 60 ranks moved further and further to one side.
    p = [sbc_uniformity(np.arange(60) * k // 60, 100) for k in range(100, 10, -5)]
    assert np.all(np.diff(p) <= 1e-12)
    assert p[-1] < 1e-10 < p[0]


def test_band_holds_simultaneously_at_its_level(rng):
    band = sbc_ecdf_band(300, 99, level=0.9)
    ranks = rng.integers(0, 100, size=(300, 2000))
    ecdf = sbc_ecdf(ranks, 99, band.t)
    inside = (ecdf >= band.lower[:, None] - 1e-9) & (ecdf <= band.upper[:, None] + 1e-9)
    held = inside.all(axis=0).mean()
    # Discreteness makes the band slightly conservative; 4 sigma of 2000 trials is 0.027.
    assert 0.9 - 0.027 < held < 0.94


def test_ecdf_ends_at_one_and_is_the_identity_for_even_ranks():
    t = np.linspace(0, 1, 7)
    assert_allclose(sbc_ecdf(np.arange(10), 9, t), t, atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "theta", "message"),
    [
        (np.zeros((5, 4)), np.zeros((4, 1)), "samples must be"),
        (np.zeros((5, 4, 2)), np.zeros((4, 3)), "samples must be"),
        (np.zeros((0, 4, 2)), np.zeros((4, 2)), "nothing to diagnose"),
        (np.zeros((5, 2, 1)), np.array([[0.0], [np.nan]]), r"theta are not finite.*\[1\]"),
        (np.full((5, 2, 1), np.inf), np.zeros((2, 1)), r"samples are not finite.*\[0, 1\]"),
    ],
)
def test_bad_input_is_named(rng, samples, theta, message):
    with pytest.raises(ValueError, match=message):
        sbc_ranks(samples, theta, rng)


def test_ranks_outside_the_number_of_draws_are_refused():
    with pytest.raises(ValueError, match="0..10"):
        sbc_uniformity(np.array([0, 11]), 10)
    with pytest.raises(ValueError, match="integers"):
        sbc_uniformity(np.array([0.5]), 10)
