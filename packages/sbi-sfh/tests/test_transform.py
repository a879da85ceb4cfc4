import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_sfh.constants import AUXILIARY, DECILES
from sbi_sfh.transform import SticksAndRanges

MAP = SticksAndRanges(DECILES, 13.0, ((-2.0, 0.4),))


def _theta(rng, n=200):
    times = np.sort(rng.uniform(0.01, 12.99, (n, 9)), axis=1)
    return np.concatenate([times, rng.uniform(-1.99, 0.39, (n, 1))], axis=1)


def test_round_trip_is_exact(rng):
    theta = _theta(rng)
    assert_allclose(MAP.decode(MAP.encode(theta)), theta, atol=1e-12)


def test_round_trip_with_times_of_the_last_tenth(rng):
    sticks = SticksAndRanges(DECILES + AUXILIARY, 13.0, ())
    theta = np.sort(rng.uniform(0.01, 12.99, (200, len(DECILES + AUXILIARY))), axis=1)
    assert_allclose(sticks.decode(sticks.encode(theta)), theta, atol=1e-9)


def test_t90_depends_on_one_number_and_others_on_those_before(rng):
    """Columns in the order of eta: no time moves with a later number."""
    eta = rng.normal(0, 1, (1, 10))
    theta = MAP.decode(eta)[0, list(MAP.columns)]
    assert MAP.columns[0] == 8
    assert sorted(MAP.columns) == list(range(10))
    for k in range(10):
        moved = eta.copy()
        moved[0, k] += 0.5
        same = MAP.decode(moved)[0, list(MAP.columns)] == theta
        assert same[:k].all()
        assert not same[k]


def test_zero_is_constant_star_formation():
    assert_allclose(MAP.decode(np.zeros((1, 10)))[0, :9], 1.3 * np.arange(1, 10), atol=1e-12)


def test_any_number_gives_ordered_times_in_range(rng):
    theta = MAP.decode(rng.normal(0, 15, (20, 500, 10)))
    assert (np.diff(theta[..., :9]) >= 0).all()
    assert ((theta[..., :9] >= 0) & (theta[..., :9] <= 13)).all()
    assert ((theta[..., 9] >= -2) & (theta[..., 9] <= 0.4)).all()


def test_log_volume_is_the_jacobian(rng):
    theta = _theta(rng, 4)
    step = 1e-6
    for row, expected in zip(theta, MAP.log_volume(theta), strict=True):
        jacobian = np.empty((10, 10))
        for k in range(10):
            up, down = row.copy(), row.copy()
            up[k] += step
            down[k] -= step
            jacobian[:, k] = (MAP.encode(up[None]) - MAP.encode(down[None]))[0] / (2 * step)
        assert np.linalg.slogdet(jacobian)[1] == pytest.approx(expected, abs=1e-3)


def test_disorder_is_outside(rng):
    theta = _theta(rng, 3)
    theta[1, [2, 3]] = theta[1, [3, 2]]
    theta[2, 9] = 0.5
    assert MAP.inside(theta).tolist() == [True, False, False]


def test_float32_edges_are_inside():
    theta = np.concatenate([1.3 * np.arange(1, 10), [0.4]])[None]
    assert MAP.inside(torch.tensor(theta, dtype=torch.float32).double().numpy()).all()
