"""Percentiles of the Mahalanobis distance: uniform for like points, blind to linear maps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sbi_core.diagnostics import mahalanobis_percentile


def test_points_like_the_cloud_have_uniform_percentiles(rng):
    cloud, reference, points = rng.normal(size=(3, 4000, 5))
    found = mahalanobis_percentile(points, cloud, reference)
    assert stats.kstest(found / 100, "uniform").pvalue > 1e-4
    # Gaussian points: D^2 is chi-squared with d degrees of freedom
    expected = 100 * stats.chi2(5).cdf((points**2).sum(1))
    assert np.abs(found - expected).max() < 100 * 2.5 / np.sqrt(4000) + 3


def test_a_linear_map_changes_nothing(rng):
    cloud, points = rng.normal(size=(2, 500, 4))
    turn = rng.normal(size=(4, 4))
    shift = rng.normal(size=4)
    assert_allclose(
        mahalanobis_percentile(points @ turn + shift, cloud @ turn + shift),
        mahalanobis_percentile(points, cloud),
        atol=0.3,  # one rank of 500 may swap with rounding
    )


def test_far_points_score_100_and_the_centre_0(rng):
    cloud = rng.normal(size=(300, 3))
    points = np.stack([cloud.mean(0), cloud.mean(0) + 100])
    assert_array_equal(mahalanobis_percentile(points, cloud), [0.0, 100.0])


def test_columns_that_do_not_vary_carry_nothing(rng):
    cloud, points = rng.normal(size=(2, 300, 3))
    wider = [np.hstack([a, np.full((300, 1), c)]) for a, c in ((points, 7.0), (cloud, 2.0))]
    assert_array_equal(mahalanobis_percentile(*wider), mahalanobis_percentile(points, cloud))


def test_one_column(rng):
    cloud = rng.normal(size=(200, 1))
    found = mahalanobis_percentile(np.array([[0.0], [9.0]]), cloud)
    assert found[0] < 15
    assert found[1] == 100


def test_a_small_cloud_needs_a_reference(rng):
    """60 points in 30 dimensions: all others look strange beside the cloud itself."""
    cloud, reference, points = rng.normal(size=(3, 60, 30))
    assert mahalanobis_percentile(points, cloud).mean() > 80
    assert 30 < mahalanobis_percentile(points, cloud, reference).mean() < 70


@pytest.mark.parametrize(
    ("points", "cloud", "words"),
    [
        (np.zeros((2, 3)), np.zeros((9, 4)), r"points \(2, 3\), cloud \(9, 4\)"),
        (np.zeros(3), np.zeros((9, 3)), r"points \(3,\)"),
        (np.zeros((2, 3)), np.zeros((1, 3)), "a cloud of two points and a reference of one, not 1"),
        (np.full((2, 3), np.nan), np.zeros((9, 3)), "points holds values that are not finite"),
    ],
)
def test_bad_arrays_are_named(points, cloud, words):
    with pytest.raises(ValueError, match=words):
        mahalanobis_percentile(points, cloud)
