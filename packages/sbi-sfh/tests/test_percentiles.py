import numpy as np
from numpy.testing import assert_allclose

from sbi_sfh.percentiles import crossing_times, keep_apart, names_of


def test_constant_star_formation_has_equal_steps():
    time = np.linspace(0, 10, 11)
    assert_allclose(crossing_times(time[None], time, (0.1, 0.55)), [[1.0, 5.5]])


def test_flat_stretches_take_the_first_crossing():
    mass = np.array([[0.0, 0.5, 0.5, 0.5, 1.0]])
    assert_allclose(crossing_times(mass, np.arange(5.0), (0.5,)), [[1.0]])


def test_bursts_stay_in_order_and_before_the_end():
    mass = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    times = crossing_times(mass, np.array([0.0, 1.0, 1.0 + 1e-12, 2.0]), (0.1, 0.5, 0.9))
    assert (np.diff(times) > 0).all()
    assert (times < 2.0).all()


def test_kept_apart_times_are_not_moved_when_they_are_apart():
    times = np.array([[1.0, 2.0, 3.0]])
    assert_allclose(keep_apart(times, 13.0), times, atol=1e-12)


def test_names_say_the_percentage():
    assert names_of((0.1, 0.5, 0.995)) == ("t10", "t50", "t99_5")
