import numpy as np
import pytest
from scipy import stats

from sbi_casbi.sets.diagnostics import (
    in_probability_set,
    ospa,
    pmf_of_draws,
    pp_deviation,
    randomised_ranks,
)


def calibrated(rng, n=4000):
    mean = rng.uniform(20, 80, n)
    values = np.arange(2, 101)
    pmf = stats.norm.pdf(values, mean[:, None], 8.0) + 1e-6
    pmf /= pmf.sum(1, keepdims=True)
    u = rng.random((n, 1))
    return pmf, (pmf.cumsum(1) < u).sum(1)


def test_the_most_probable_set_covers_what_it_says(rng):
    pmf, place = calibrated(rng)
    # 4 sigma of 4000 trials is 0.019
    assert in_probability_set(pmf, place, 0.9, rng).mean() == pytest.approx(0.9, abs=0.019)
    narrow = pmf**4 / (pmf**4).sum(1, keepdims=True)
    assert in_probability_set(narrow, place, 0.9, rng).mean() < 0.8


def test_a_coarse_distribution_is_covered_exactly_by_chance(rng):
    pmf = np.tile([0.6, 0.4], (20000, 1))
    place = (rng.random(20000) < 0.4).astype(int)
    assert in_probability_set(pmf, place, 0.9, rng).mean() == pytest.approx(0.9, abs=0.01)


def test_ranks_of_ties_are_uniform(rng):
    truth = rng.integers(0, 3, 3000)
    samples = rng.integers(0, 3, (99, 3000))
    ranks = randomised_ranks(samples, truth, rng)
    assert stats.kstest(ranks, "uniform").pvalue > 1e-4
    assert pp_deviation(ranks) < 0.04
    assert pp_deviation(randomised_ranks(samples + 1, truth, rng)) > 0.2


def test_frequencies_of_draws(rng):
    draws = np.array([[2, 5], [3, 5], [2, 4]])
    np.testing.assert_allclose(
        pmf_of_draws(draws, 2, 5)[:, [0, 1, 2, 3]], [[2 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 2 / 3]]
    )


def test_the_distance_of_sets(rng):
    a = rng.random((5, 2)) * 10
    one = np.ones(2)
    assert ospa(a, a[::-1], one) == 0
    assert ospa(a, a[:4], one) == pytest.approx(np.sqrt(1 / 5))
    assert ospa(a, a[:0], one) == 1.0
    assert ospa(a, a + 0.1, one) == pytest.approx(np.hypot(0.1, 0.1))
