import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import accuracy, mae, median_ape, r2, rmse


def test_known_errors():
    truth = np.array([[1.0], [2.0], [4.0]])
    estimate = truth + np.array([[0.0], [1.0], [-2.0]])
    assert_allclose(mae(estimate, truth), [1.0])
    assert_allclose(rmse(estimate, truth), [np.sqrt(5 / 3)])
    assert_allclose(r2(estimate, truth), [1 - 5 / (14 / 3)])
    assert_allclose(median_ape(estimate, truth), [50.0])


def test_perfect_estimates(rng):
    truth = rng.standard_normal((20, 2))
    got = accuracy(truth, truth, ["a", "b"])
    assert got["b"] == {"mae": 0.0, "rmse": 0.0, "r2": 1.0, "median_ape": 0.0}
    assert list(got) == ["a", "b"]


def test_the_mean_truth_has_no_skill(rng):
    truth = rng.standard_normal((50, 3))
    estimate = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert_allclose(r2(estimate, truth), 0.0, atol=1e-12)


def test_order_of_objects_does_not_matter_and_parameters_stay_apart(rng):
    truth, estimate = rng.standard_normal((2, 30, 2))
    order = rng.permutation(30)
    for score in (mae, rmse, r2, median_ape):
        assert_allclose(score(estimate[order], truth[order]), score(estimate, truth))
        assert_allclose(score(estimate, truth)[1], score(estimate[:, 1], truth[:, 1]))


def test_a_shift_of_the_unit_leaves_all_but_the_percentage_error(rng):
    truth, estimate = rng.standard_normal((2, 30, 1))
    for score in (mae, rmse, r2):
        assert_allclose(score(estimate + 9, truth + 9), score(estimate, truth))
    assert median_ape(estimate + 9, truth + 9) < median_ape(estimate, truth)


def test_zero_truths_and_constant_truths_neither_warn_nor_lie():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert median_ape(np.array([1.0, 0.0, 1.0]), np.zeros(3)) == np.inf
        assert median_ape(np.zeros(3), np.zeros(3)) == 0.0
        assert np.isnan(r2(np.array([1.0, 2.0]), np.array([3.0, 3.0])))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="must have one shape"):
        mae(np.zeros((3, 2)), np.zeros(3))
