import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import PchipInterpolator

from sbi_sfh.constants import DECILES, T_UNIVERSE_GYR
from sbi_sfh.gaussian_process import draw_inputs, growth_curves, knots, monotone_cubic
from sbi_sfh.percentiles import crossing_times

# inputs (x1, x2, x3; log SFR at log M = 10) and deciles of an independent implementation, float64
TABLE = [
    ((0.3, 0.5, 0.7), -20.0,
     [2.3419, 3.5031, 4.5748, 5.6496, 6.7336, 7.8267, 8.9033, 9.9428, 11.0343]),
    ((0.2, 0.35, 0.5), -5.0,
     [1.5445, 2.3191, 3.0818, 3.8983, 4.7129, 5.4884, 6.2881, 7.2473, 8.6603]),
    ((0.25, 0.5, 0.75), -1.0,
     [1.8836, 2.8703, 3.9115, 5.2009, 6.7327, 8.2831, 9.5672, 10.5804, 11.5334]),
    ((0.3, 0.5, 0.7), 1.0,
     [2.8401, 4.7304, 6.3749, 7.3470, 8.3820, 12.5708, 12.8952, 13.1247, 13.3094]),
]  # fmt: skip


@pytest.mark.parametrize(("times", "log_sfr", "deciles"), TABLE)
def test_deciles_agree_with_the_reference_implementation(times, log_sfr, deciles):
    curves = growth_curves(np.array([times]), np.array([log_sfr - 10.0]), T_UNIVERSE_GYR)
    grid = np.linspace(0, T_UNIVERSE_GYR, 1000)
    assert_allclose(crossing_times(curves.cumulative, grid, DECILES)[0], deciles, atol=1e-4)


def test_recent_knots_follow_the_star_formation_rate():
    x, y, _ = knots(np.array([[0.25, 0.5, 0.75]] * 2), np.array([-11.0, -9.0]), T_UNIVERSE_GYR)
    assert_allclose(x[0, 5:8], [0.97, 0.98, 0.99])
    assert_allclose(y[0, 5:8], [0.9960, 0.9973, 0.9987], atol=5e-5)
    assert_allclose(x[1, 5:8], [0.9978, 0.9985, 0.9993], atol=5e-5)
    assert_allclose(y[1, 5:8], [0.97, 0.98, 0.99])


@pytest.mark.parametrize("interp", ["gp", "pchip"])
@pytest.mark.parametrize("prior", ["quenched", "iyer19"])
def test_growth_never_decreases_and_ends_at_one(rng, prior, interp):
    curves = growth_curves(*draw_inputs(300, prior, rng), T_UNIVERSE_GYR, interp=interp)
    assert curves.finite.all()
    assert (np.diff(curves.cumulative) >= 0).all()
    assert_allclose(curves.cumulative[:, -1], 1.0, atol=1e-12)
    assert (curves.overshoot >= 0).all()
    if interp == "pchip":
        assert curves.overshoot.max() < 1e-12


def test_overshoot_is_small_only_where_knots_are_apart(rng):
    times, ssfr = draw_inputs(3000, "quenched", rng)
    curves = growth_curves(times, ssfr, T_UNIVERSE_GYR)
    gaps = np.diff(np.pad(times, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))), axis=1)
    apart = gaps.min(1) > 0.1
    assert np.median(curves.overshoot[apart]) < 1e-3
    assert 0.1 < np.median(curves.overshoot) < 0.25
    # P(x3 > 0.97) = 1 - 0.97^3 = 0.087 for a flat Dirichlet; 4 sigma of 3000 draws are 0.021
    assert curves.knots_crossed.mean() == pytest.approx(0.0873, abs=0.021)


def test_histories_do_not_depend_on_their_company(rng):
    times, ssfr = draw_inputs(600, "quenched", rng)
    all_of_them = growth_curves(times, ssfr, T_UNIVERSE_GYR).cumulative
    one = growth_curves(times[555:556], ssfr[555:556], T_UNIVERSE_GYR).cumulative
    assert_allclose(all_of_them[555:556], one, atol=1e-7)


def test_monotone_cubic_agrees_with_scipy(rng):
    x = np.sort(rng.uniform(0, 1, (5, 8)), axis=1)
    y = np.sort(rng.uniform(0, 1, (5, 8)), axis=1)
    at = np.linspace(0, 1, 50)
    for k, row in enumerate(monotone_cubic(x, y, at)):
        inside = np.clip(at, x[k, 0], x[k, -1])
        assert_allclose(row, PchipInterpolator(x[k], y[k])(inside), atol=1e-12)


def test_priors_have_the_published_moments(rng):
    times, ssfr = draw_inputs(3000, "quenched", rng)
    grid = np.linspace(0, T_UNIVERSE_GYR, 1000)
    t = crossing_times(growth_curves(times, ssfr, T_UNIVERSE_GYR).cumulative, grid, DECILES)
    # 4 sigma of the mean of 3000 draws: 0.25 Gyr for t50
    assert_allclose(t.mean(0)[[0, 4, 8]], [2.43, 6.72, 10.83], atol=0.26)
