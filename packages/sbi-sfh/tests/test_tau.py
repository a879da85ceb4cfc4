import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core import ConfigError
from sbi_sfh.constants import DECILES
from sbi_sfh.percentiles import crossing_times
from sbi_sfh.tau import cumulative_mass, percentile_times, readme_grid

# exact deciles, computed with 50-digit arithmetic of F(u) = q F(U)
ORACLE = [
    ((0.0, 1.0, 14.0), [0.5318, 0.8244, 1.0973, 1.3764, 1.6783, 2.0223, 2.4392, 2.9942, 3.8896]),
    ((2.0, 3.0, 14.0), [3.5063, 4.3202, 5.0676, 5.8172, 6.6085, 7.4800, 8.4839, 9.7095, 11.3493]),
    (
        (0.5, 2.0, 13.467),
        [1.5563, 2.1361, 2.6760, 3.2266, 3.8203, 4.4937, 5.3040, 6.3690, 8.0323],
    ),
]


@pytest.mark.parametrize(("inputs", "deciles"), ORACLE)
def test_closed_form_gives_the_exact_deciles(inputs, deciles):
    t0, tau, end = inputs
    assert_allclose(percentile_times([t0], [tau], DECILES, end)[0], deciles, atol=5.1e-5)


@pytest.mark.parametrize(("inputs", "deciles"), ORACLE)
def test_interpolated_deciles_agree_to_a_thousandth_of_a_gyr(inputs, deciles):
    t0, tau, end = inputs
    time = np.linspace(0, end, round(end / 0.01) + 1)
    found = crossing_times(cumulative_mass([t0], [tau], time), time, DECILES)
    assert_allclose(found, percentile_times([t0], [tau], DECILES, end), atol=1e-3)


def test_bins_hold_all_of_the_mass(rng):
    t0, tau = rng.uniform(0, 5, 50), 10 ** rng.uniform(-0.5, 0.7, 50)
    mass = cumulative_mass(t0, tau, np.linspace(0, 13.4, 1000))
    assert_allclose(np.diff(mass, axis=1, prepend=0).sum(1), 1.0, atol=1e-14)
    assert (np.diff(mass) >= 0).all()


def test_a_burst_forms_everything_at_once():
    times = percentile_times([3.0], [1e-4], DECILES, 13.0)
    assert_allclose(times, 3.0, atol=1e-3)


@pytest.mark.parametrize(("t0", "tau"), [(14.0, 1.0), (1.0, 0.0), (1.0, -2.0), (-0.1, 1.0)])
def test_impossible_histories_are_refused_by_number(t0, tau):
    with pytest.raises(ConfigError, match="history 1"):
        cumulative_mass([0.0, t0], [1.0, tau], np.linspace(0, 13, 100))


def test_readme_grid_has_ten_thousand_histories():
    t0, tau = readme_grid()
    assert len(t0) == len(tau) == 10_000
    assert t0.max() == pytest.approx(4.95)
    assert tau.min() == pytest.approx(10**-0.5)
