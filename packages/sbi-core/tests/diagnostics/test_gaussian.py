import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import calibrate_gaussian, chi_squared, z_rms, z_scores


def _posteriors(problem, *, shift=0.0, width=1.0):
    mean = problem.mean + shift * np.sqrt(np.diag(problem.cov))
    cov = np.broadcast_to(width**2 * problem.cov, (len(mean), *problem.cov.shape))
    return mean, cov, problem.theta


def test_the_exact_posterior_has_unit_scores_and_68_per_cent(problem):
    got = calibrate_gaussian(*_posteriors(problem))
    n = len(problem.theta)
    # 4 sigma everywhere: false alarms below 1e-3 of seeds.
    assert_allclose(got.z_mean, 0.0, atol=4 / np.sqrt(n))
    assert_allclose(got.z_rms, 1.0, atol=4 / np.sqrt(2 * n))
    assert_allclose(got.z_rms_joint, 1.0, atol=4 / np.sqrt(2 * n * 3))
    assert_allclose(got.coverage_68, 0.68, atol=4 * np.sqrt(0.68 * 0.32 / n))
    assert_allclose(got.coverage_68_joint, 0.68, atol=4 * np.sqrt(0.68 * 0.32 / n))
    assert_allclose(got.coverage_95, 0.95, atol=4 * np.sqrt(0.95 * 0.05 / n))
    assert (got.sbc_p > 1e-3).all()
    assert got.repeats == n


@pytest.mark.parametrize("width", [0.7, 1.4])
def test_wrong_widths_scale_the_scores(problem, width):
    got = calibrate_gaussian(*_posteriors(problem, width=width))
    exact = calibrate_gaussian(*_posteriors(problem))
    assert_allclose(got.z_rms, exact.z_rms / width, rtol=1e-12)
    assert_allclose(got.z_rms_joint, exact.z_rms_joint / width, rtol=1e-12)
    assert np.all(np.sign(got.coverage_68 - 0.68) == np.sign(width - 1))
    assert np.all(np.sign(got.coverage_95 - 0.95) == np.sign(width - 1))
    assert abs(got.coverage_68_joint - 0.68) > 0.1
    assert (got.sbc_p < 1e-3).all()


def test_a_shift_moves_the_mean_score_by_itself(problem):
    got = calibrate_gaussian(*_posteriors(problem, shift=0.3))
    exact = calibrate_gaussian(*_posteriors(problem))
    assert_allclose(got.z_mean - exact.z_mean, 0.3, rtol=1e-9)


def test_wrong_correlations_are_seen_only_by_the_joint_scores(problem):
    mean, cov, truth = _posteriors(problem)
    diagonal = cov * np.eye(3)
    joint = calibrate_gaussian(mean, diagonal, truth)
    exact = calibrate_gaussian(mean, cov, truth)
    assert_allclose(joint.z_rms, exact.z_rms)
    assert not np.allclose(joint.coverage_68_joint, exact.coverage_68_joint)


def test_chi_squared_of_a_diagonal_is_the_sum_of_squared_scores(rng):
    mean, truth = rng.standard_normal((2, 5, 3))
    cov = np.einsum("rj,jk->rjk", rng.uniform(0.5, 2, (5, 3)), np.eye(3))
    z = z_scores(mean, cov, truth)
    assert_allclose(chi_squared(mean, cov, truth), (z**2).sum(axis=1), rtol=1e-12)
    assert_allclose(z_rms(z) ** 2, (z**2).mean(axis=0))


def test_order_and_linear_maps_do_not_matter(problem, rng):
    mean, cov, truth = _posteriors(problem)
    order = rng.permutation(len(mean))
    want = chi_squared(mean, cov, truth)
    assert_allclose(chi_squared(mean[order], cov[order], truth[order]), want[order])
    a = rng.standard_normal((3, 3)) + 3 * np.eye(3)
    assert_allclose(chi_squared(mean @ a.T, a @ cov @ a.T, truth @ a.T), want, rtol=1e-8)


def test_one_truth_for_all_repeats_is_allowed():
    mean, cov = np.array([[1.0], [3.0]]), np.ones((2, 1, 1))
    assert_allclose(z_scores(mean, cov, np.array([2.0])), [[-1.0], [1.0]])


def test_bad_input_is_named():
    mean, cov = np.zeros((2, 2)), np.stack([np.eye(2), -np.eye(2)])
    with pytest.raises(ValueError, match=r"repeats \[1\] are not positive definite"):
        z_scores(mean, cov, mean)
    with pytest.raises(ValueError, match="mean, cov and truth must be"):
        z_scores(mean, np.eye(2), mean)
    with pytest.raises(ValueError, match="finite"):
        z_scores(mean * np.nan, cov, mean)
    with pytest.raises(ValueError, match="no repeats"):
        z_scores(np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(2))
