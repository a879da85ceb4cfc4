import numpy as np
import pytest

from sbi_sfh.own_age import at_own_age, delays, possible_draws


def test_galaxies_without_a_redshift_are_seen_at_the_age_of_the_model():
    late = delays({"age_universe": np.array([12.0, np.nan])}, 2, 13.5)
    np.testing.assert_allclose(late, [1.5, 0.0])
    np.testing.assert_array_equal(delays({}, 2, 13.5), [0.0, 0.0])


def test_times_count_to_the_age_at_the_redshift():
    theta = np.array([[2.0, 9.0, -0.3], [1.0, 3.0, 0.1]])
    own = at_own_age(theta, 1.0, 2)
    np.testing.assert_allclose(own, [[1.0, 8.0, -0.3], [0.0, 2.0, 0.1]])
    np.testing.assert_allclose(at_own_age(own, -1.0, 2), theta)


def test_draws_older_than_the_universe_are_replaced(rng):
    first = rng.uniform(0.0, 10.0, 4000)
    rows, share = possible_draws(first, 4.0)
    assert share == pytest.approx((first >= 4.0).mean())
    kept = first[rows]
    assert kept.min() >= 4.0
    np.testing.assert_array_equal(kept[first >= 4.0], first[first >= 4.0])
    assert kept.mean() == pytest.approx(7.0, abs=0.15)  # uniform above 4


@pytest.mark.parametrize("delay", [0.0, 20.0])
def test_all_draws_stay_where_none_or_all_are_possible(rng, delay):
    first = rng.uniform(0.0, 10.0, 50)
    rows, share = possible_draws(first, delay)
    np.testing.assert_array_equal(rows, np.arange(50))
    assert share == (delay == 0.0)
