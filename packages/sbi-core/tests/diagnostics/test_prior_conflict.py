import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sbi_core.diagnostics import judge_prior_conflict, prior_conflict


def test_objects_of_the_prior_have_uniform_p_values(problem):
    cov = np.broadcast_to(problem.cov, (len(problem.mean), 3, 3))
    got = prior_conflict(problem.mean, cov)
    assert (got.dof == 3).all()
    assert stats.kstest(got.p, "uniform").pvalue > 1e-4  # false alarms: 1e-4
    assert judge_prior_conflict(got.p).level == "pass"  # false alarms: 1 %


def test_truths_in_the_tail_of_the_prior_are_found(problem, rng):
    theta = problem.theta.copy()
    theta[:20] = 6.0
    # the same posterior of data moved along with the truth
    gain = np.eye(3) - problem.cov
    mean = problem.mean + (theta - problem.theta) @ gain
    got = prior_conflict(mean, np.broadcast_to(problem.cov, (len(mean), 3, 3)))
    assert (got.p[:20] < 1e-5).all()
    verdict = judge_prior_conflict(got.p)
    assert verdict.level == "warn"
    assert "rows 0, 1, 2" in verdict.sentence


def test_directions_without_information_are_left_out():
    cov = np.diag([0.1, 1.0, 0.99])[None]
    got = prior_conflict(np.array([[1.0, 0.0, 0.2]]), cov)
    assert got.dof[0] == 1
    assert_allclose(got.chi2, 1 / 0.9)
    nothing = prior_conflict(np.zeros((1, 2)), np.eye(2)[None])
    assert nothing.p[0] == 1
    assert nothing.dof[0] == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="must be|cov"):
        prior_conflict(np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="finite"):
        prior_conflict(np.full((1, 1), np.nan), np.ones((1, 1, 1)))
