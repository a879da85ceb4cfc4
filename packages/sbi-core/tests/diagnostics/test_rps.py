import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import rps, rps_skill


def test_it_is_the_sum_over_the_distribution_function():
    p = np.array([[0.2, 0.3, 0.5]])
    assert_allclose(rps(p, np.array([1])), 0.2**2 + 0.5**2)


def test_skill_is_one_for_certainty_and_undefined_for_a_certain_prior():
    n = np.array([0, 2, 1])
    assert rps_skill(np.eye(3)[n], n, np.full(3, 1 / 3)) == 1.0
    assert np.isnan(rps_skill(np.eye(3)[[1]], np.array([1]), np.array([0.0, 1.0, 0.0])))


def test_a_wrong_certainty_is_worse_than_the_prior():
    n = np.array([0, 0, 0])
    assert rps_skill(np.eye(3)[[2, 2, 2]], n, np.full(3, 1 / 3)) < 0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_in_expectation_the_true_distribution_wins(n):
    true = np.array([0.5, 0.3, 0.2])
    other = np.roll(true, n + 1)
    truths = np.arange(3)
    ours = (rps(np.tile(true, (3, 1)), truths) * true).sum()
    theirs = (rps(np.tile(other, (3, 1)), truths) * true).sum()
    assert ours <= theirs + 1e-12
