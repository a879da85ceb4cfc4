"""Distance from a cloud: uniform percentiles for like points, blind to linear maps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sbi_core.diagnostics import cloud_percentile

KINDS = pytest.mark.parametrize("neighbours", [0, 1, 10])


@KINDS
def test_points_like_the_cloud_have_uniform_percentiles(neighbours, rng):
    cloud, reference, points = rng.normal(size=(3, 4000, 5))
    found = cloud_percentile(points, cloud, reference, neighbours=neighbours)
    assert stats.ks_2samp(found / 100, rng.random(100_000)).pvalue > 1e-4


def test_the_distance_of_gaussian_points_from_the_centre_is_chi_squared(rng):
    cloud, reference, points = rng.normal(size=(3, 4000, 5))
    expected = 100 * stats.chi2(5).cdf((points**2).sum(1))
    # both empirical: 1.63/sqrt(4000) = 2.6 % at 99 %, and the estimated moments
    assert np.abs(cloud_percentile(points, cloud, reference) - expected).max() < 6


@KINDS
def test_a_linear_map_changes_nothing(neighbours, rng):
    cloud, points = rng.normal(size=(2, 500, 4))
    turn, shift = rng.normal(size=(4, 4)), rng.normal(size=4)
    assert_allclose(
        cloud_percentile(points @ turn + shift, cloud @ turn + shift, neighbours=neighbours),
        cloud_percentile(points, cloud, neighbours=neighbours),
        atol=0.5,  # ranks of 500 may swap with rounding
    )


@KINDS
def test_far_points_score_100(neighbours, rng):
    cloud = rng.normal(size=(300, 3))
    far = cloud.mean(0, keepdims=True) + 100
    assert_array_equal(cloud_percentile(far, cloud, neighbours=neighbours), [100.0])


def test_the_centre_scores_0(rng):
    cloud = rng.normal(size=(300, 3))
    assert_array_equal(cloud_percentile(cloud.mean(0, keepdims=True), cloud), [0.0])


def test_only_neighbours_see_a_hole(rng):
    cloud = rng.normal(size=(2000, 2))
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)  # a ring, empty inside
    middle = np.zeros((1, 2))
    assert cloud_percentile(middle, cloud)[0] < 1
    assert cloud_percentile(middle, cloud, neighbours=5)[0] == 100


def test_points_of_the_cloud_are_not_their_own_neighbours(rng):
    cloud, points = rng.normal(size=(2, 2000, 2))
    found = cloud_percentile(points, cloud, neighbours=1)
    assert abs(found.mean() - 50) < 4  # 100 if each were its own: sd 29/sqrt(2000) = 0.65


@KINDS
def test_columns_that_do_not_vary_carry_nothing(neighbours, rng):
    cloud, points = rng.normal(size=(2, 300, 3))
    wider = [np.hstack([a, np.full((300, 1), c)]) for a, c in ((points, 7.0), (cloud, 2.0))]
    plain = cloud_percentile(points, cloud, neighbours=neighbours)
    assert_allclose(cloud_percentile(*wider, neighbours=neighbours), plain, atol=0.5)


def test_repeated_columns_count_once(rng):
    cloud, points = rng.normal(size=(2, 300, 2))
    twice = [np.hstack([a, a[:, :1]]) for a in (points, cloud)]
    assert_allclose(cloud_percentile(*twice), cloud_percentile(points, cloud), atol=0.5)


def test_one_column(rng):
    cloud = rng.normal(size=(200, 1))
    found = cloud_percentile(np.array([[0.0], [9.0]]), cloud)
    assert found[0] < 15
    assert found[1] == 100


def test_a_small_cloud_needs_a_reference(rng):
    """60 points in 30 dimensions: all others look strange beside the cloud itself."""
    cloud, reference, points = rng.normal(size=(3, 60, 30))
    assert cloud_percentile(points, cloud).mean() > 80
    assert 30 < cloud_percentile(points, cloud, reference).mean() < 70


@pytest.mark.parametrize(
    ("points", "cloud", "neighbours", "words"),
    [
        (np.zeros((2, 3)), np.zeros((9, 4)), 0, r"points \(2, 3\), cloud \(9, 4\)"),
        (np.zeros(3), np.zeros((9, 3)), 0, r"points \(3,\)"),
        (np.zeros((2, 3)), np.zeros((1, 3)), 0, "at least 2 points in the cloud and one of"),
        (np.zeros((2, 3)), np.zeros((9, 3)), 9, "at least 10 points"),
        (np.zeros((2, 3)), np.zeros((9, 3)), -1, "neighbours = -1"),
        (np.full((2, 3), np.nan), np.zeros((9, 3)), 0, "points holds values that are not finite"),
    ],
)
def test_bad_arrays_are_named(points, cloud, neighbours, words):
    with pytest.raises(ValueError, match=words):
        cloud_percentile(points, cloud, neighbours=neighbours)
