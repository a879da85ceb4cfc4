"""Distance from simulated points: uniform percentiles for like points, blind to linear maps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sbi_core.diagnostics import distance_percentile

KINDS = pytest.mark.parametrize("neighbours", [0, 1, 10])


@KINDS
def test_points_like_the_simulated_have_uniform_percentiles(neighbours, rng):
    simulated, reference, points = rng.normal(size=(3, 4000, 5))
    found = distance_percentile(points, simulated, reference, neighbours=neighbours)
    assert stats.ks_2samp(found / 100, rng.random(100_000)).pvalue > 1e-4


def test_the_distance_of_gaussian_points_from_the_centre_is_chi_squared(rng):
    simulated, reference, points = rng.normal(size=(3, 4000, 5))
    expected = 100 * stats.chi2(5).cdf((points**2).sum(1))
    # both empirical: 1.63/sqrt(4000) = 2.6 % at 99 %, and the estimated moments
    assert np.abs(distance_percentile(points, simulated, reference) - expected).max() < 6


@KINDS
def test_a_linear_map_changes_nothing(neighbours, rng):
    simulated, points = rng.normal(size=(2, 500, 4))
    turn, shift = rng.normal(size=(4, 4)), rng.normal(size=4)
    assert_allclose(
        distance_percentile(points @ turn + shift, simulated @ turn + shift, neighbours=neighbours),
        distance_percentile(points, simulated, neighbours=neighbours),
        atol=0.5,  # ranks of 500 may swap with rounding
    )


@KINDS
def test_far_points_score_100(neighbours, rng):
    simulated = rng.normal(size=(300, 3))
    far = simulated.mean(0, keepdims=True) + 100
    assert_array_equal(distance_percentile(far, simulated, neighbours=neighbours), [100.0])


def test_the_centre_scores_0(rng):
    simulated = rng.normal(size=(300, 3))
    assert_array_equal(distance_percentile(simulated.mean(0, keepdims=True), simulated), [0.0])


def test_only_neighbours_see_a_hole(rng):
    simulated = rng.normal(size=(2000, 2))
    simulated /= np.linalg.norm(simulated, axis=1, keepdims=True)  # a ring, empty inside
    middle = np.zeros((1, 2))
    assert distance_percentile(middle, simulated)[0] < 1
    assert distance_percentile(middle, simulated, neighbours=5)[0] == 100


def test_points_of_the_simulations_are_not_their_own_neighbours(rng):
    simulated, points = rng.normal(size=(2, 2000, 2))
    found = distance_percentile(points, simulated, neighbours=1)
    assert abs(found.mean() - 50) < 4  # 100 if each were its own: sd 29/sqrt(2000) = 0.65


@KINDS
def test_columns_that_do_not_vary_carry_nothing(neighbours, rng):
    simulated, points = rng.normal(size=(2, 300, 3))
    wider = [np.hstack([a, np.full((300, 1), c)]) for a, c in ((points, 7.0), (simulated, 2.0))]
    plain = distance_percentile(points, simulated, neighbours=neighbours)
    assert_allclose(distance_percentile(*wider, neighbours=neighbours), plain, atol=0.5)


def test_repeated_columns_count_once(rng):
    simulated, points = rng.normal(size=(2, 300, 2))
    twice = [np.hstack([a, a[:, :1]]) for a in (points, simulated)]
    assert_allclose(distance_percentile(*twice), distance_percentile(points, simulated), atol=0.5)


def test_one_column(rng):
    simulated = rng.normal(size=(200, 1))
    found = distance_percentile(np.array([[0.0], [9.0]]), simulated)
    assert found[0] < 15
    assert found[1] == 100


def test_few_simulations_need_a_reference(rng):
    """60 points in 30 dimensions: all others look strange beside these points."""
    simulated, reference, points = rng.normal(size=(3, 60, 30))
    assert distance_percentile(points, simulated).mean() > 80
    assert 30 < distance_percentile(points, simulated, reference).mean() < 70


@pytest.mark.parametrize(
    ("points", "simulated", "neighbours", "words"),
    [
        (np.zeros((2, 3)), np.zeros((9, 4)), 0, r"points \(2, 3\), simulated \(9, 4\)"),
        (np.zeros(3), np.zeros((9, 3)), 0, r"points \(3,\)"),
        (np.zeros((2, 3)), np.zeros((1, 3)), 0, "at least 2 simulated points and one of"),
        (np.zeros((2, 3)), np.zeros((9, 3)), 9, "at least 10 simulated points"),
        (np.zeros((2, 3)), np.zeros((9, 3)), -1, "neighbours = -1"),
        (np.full((2, 3), np.nan), np.zeros((9, 3)), 0, "points holds values that are not finite"),
    ],
)
def test_bad_arrays_are_named(points, simulated, neighbours, words):
    with pytest.raises(ValueError, match=words):
        distance_percentile(points, simulated, neighbours=neighbours)
