import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import (
    LEVELS,
    coverage_band,
    coverage_central,
    coverage_hpd,
    coverage_sd,
    sbc_ranks,
)

DRAWS = 500


def _central(problem, rng, **fault):
    ranks = sbc_ranks(problem.draw(DRAWS, rng, **fault), problem.theta, rng)
    return coverage_central(ranks, DRAWS)


def _hpd(problem, rng, **fault):
    samples = problem.draw(DRAWS, rng, **fault)
    return coverage_hpd(problem.log_q(samples, **fault), problem.log_q(problem.theta, **fault))


def test_the_exact_posterior_covers_what_it_says(problem, rng):
    low, high = coverage_band(LEVELS, len(problem.theta), sigmas=4.5)
    # False alarms: 7e-6 for each of 4 levels of 4 quantities, about 1e-4 of seeds.
    central = _central(problem, rng)
    assert np.all((central > low[:, None]) & (central < high[:, None]))
    hpd = _hpd(problem, rng)
    assert np.all((hpd > low) & (hpd < high))


@pytest.mark.parametrize(("width", "sign"), [(0.7, -1), (1.4, 1)])
def test_wrong_widths_are_rejected_with_the_right_sign(problem, rng, width, sign):
    sd = coverage_sd(LEVELS, len(problem.theta))
    nominal = np.array(LEVELS)
    central = (_central(problem, rng, width=width) - nominal[:, None]) / sd[:, None]
    hpd = (_hpd(problem, rng, width=width) - nominal) / sd
    assert np.all(sign * central > 3)
    assert np.all(sign * hpd > 3)


def test_a_shift_lowers_coverage(problem, rng):
    # Coverage changes with the square of a shift: 0.3 sigma is the business of SBC, not of this.
    sd = coverage_sd(LEVELS, len(problem.theta))
    nominal = np.array(LEVELS)
    for coverage in (_hpd(problem, rng, shift=1.0), _central(problem, rng, shift=1.0).min(axis=1)):
        assert ((coverage - nominal) / sd).max() < -3


@pytest.mark.parametrize("draws", [1, 2, 10, 99])
def test_uniform_ranks_cover_exactly_for_any_number_of_draws(draws):
    every_rank_once = np.arange(draws + 1)
    assert_allclose(coverage_central(every_rank_once, draws), LEVELS, atol=1e-12)


def test_ties_count_in_parts():
    # A flat density: the region of level c contains the truth in a share c of cases.
    flat = coverage_hpd(np.zeros((9, 3)), np.zeros(3))
    assert_allclose(flat, LEVELS, atol=1e-12)


def test_excluded_truths_are_never_covered(rng):
    log_q = rng.standard_normal((99, 50))
    assert_allclose(coverage_hpd(log_q, np.full(50, -np.inf)), 0.0, atol=1e-12)


def test_a_constant_per_object_and_the_order_of_draws_do_not_matter(problem, rng):
    samples = problem.draw(60, rng)
    log_q, truth = problem.log_q(samples), problem.log_q(problem.theta)
    want = coverage_hpd(log_q, truth)
    constant = rng.integers(-5, 5, size=len(truth)) * 0.5
    assert_allclose(coverage_hpd(log_q[::-1], truth), want)
    assert_allclose(coverage_hpd(log_q + constant, truth + constant), want, atol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="strictly between"):
        coverage_central(np.array([1]), 2, [1.0])
    with pytest.raises(ValueError, match="NaN"):
        coverage_hpd(np.full((3, 2), np.nan), np.zeros(2))
    with pytest.raises(ValueError, match="log_q_samples"):
        coverage_hpd(np.zeros((3, 2)), np.zeros(3))
