"""Parametric histories and their mixture."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sbi_sfh import families
from sbi_sfh.config import MIXTURE, SfhConfig
from sbi_sfh.histories import draw_histories, history_spec, time_grid

TIME = time_grid(13.5)


@pytest.mark.parametrize("name", families.PARAMETRIC)
def test_growth_is_monotone_and_complete(name, rng):
    mass = families.growth(name, 300, TIME, rng)
    assert (np.diff(mass, axis=1) >= 0).all()
    assert_allclose(mass[:, -1], 1.0)
    assert np.isfinite(mass).all()


@pytest.fixture
def plain(monkeypatch):
    """Histories without random variability."""
    monkeypatch.setattr(families, "_variability", lambda n, time, rng: 1.0)


def test_constant_histories_are_straight_lines(plain, rng):
    mass = families.growth("constant", 50, TIME, rng)
    late = np.diff(mass[:, 850:], axis=1)  # all have started
    assert_allclose(late, np.broadcast_to(late[:, :1], late.shape), rtol=1e-9)


def test_bases_agree_with_their_rates():
    t = np.linspace(0, 13.5, 4001)
    kind = np.repeat(np.arange(len(families.BASES)), 5)
    mass, rate, start = families._base(kind, t, np.random.default_rng(3))
    off = np.abs(np.gradient(mass, t, axis=1) - rate) / rate.max(1, keepdims=True)
    assert off[(t > start + 2 * t[1]) & (t < t[-2])].max() < 0.01


def test_rising_histories_form_most_of_their_stars_late(plain, rng):
    mass = families.growth("rising", 200, TIME, rng)
    halves = np.abs(TIME[:, None] - 0.5 * TIME[-1]).argmin()
    assert (mass[:, halves] < 0.5).all()
    assert (np.diff(mass[:, 850:], 2, axis=1) >= -1e-12).all()  # all have started


def test_the_prior_hash_depends_on_the_bursts(monkeypatch):
    spec = history_spec(SfhConfig())
    monkeypatch.setitem(families.BURSTS, "bare", 0.5)
    assert history_spec(SfhConfig()) != spec


def test_quenched_histories_keep_their_rate_until_they_stop(plain):
    rng, again = np.random.default_rng(4), np.random.default_rng(4)
    quenched = families._quenching(200, TIME, rng)
    base = families._any_base(200, TIME, again)[0]
    assert_allclose(quenched[:, 1], base[:, 1], atol=1e-12)
    assert np.median(quenched[:, -1] / base[:, -1]) < 0.9


def test_bursts_without_a_base_leave_times_without_stars(plain, rng):
    mass = families.growth("bursts", 400, TIME, rng)
    idle = (np.diff(mass, axis=1) == 0).mean(1)
    assert 0.4 < (idle > 0.5).mean() < 0.9


def test_variability_has_a_mean_of_zero_in_the_logarithm(rng):
    log = np.log(families._variability(4000, TIME[::100], rng))
    assert_allclose(log.mean(0), 0.0, atol=0.03)
    assert 0.05 < log.std() < 0.6


def test_a_mixture_has_its_families_in_their_shares(rng):
    drawn = draw_histories(4000, SfhConfig(), rng)
    share = np.bincount(drawn.inputs["family"].astype(int), minlength=len(MIXTURE)) / 4000
    assert_allclose(share, list(MIXTURE.values()), atol=0.035)  # 4 standard errors
    gp = drawn.inputs["family"] == 0
    assert drawn.overshoot[gp].max() > 0 == drawn.overshoot[~gp].max()
    assert drawn.ok.all()


def test_rows_of_a_mixture_keep_curve_and_percentiles_together(rng):
    drawn = draw_histories(50, SfhConfig(), rng)
    at = [np.interp(t, time_grid(SfhConfig().t_end), m)
          for t, m in zip(drawn.percentiles[:, 4], drawn.cumulative, strict=True)]  # fmt: skip
    assert_allclose(at, 0.5, atol=1e-2)


def test_the_former_prior_stays_available():
    one = draw_histories(5, SfhConfig(family="gp"), np.random.default_rng(1))
    same = draw_histories(5, SfhConfig(family=("gp",)), np.random.default_rng(1))
    assert_array_equal(one.percentiles, same.percentiles)
    assert history_spec(SfhConfig(family="gp"))["family"] == "gp"
    assert history_spec(SfhConfig(family=("gp", "tau")))["family"] == {"gp": 0.5, "tau": 0.5}
    assert history_spec(SfhConfig()) != history_spec(SfhConfig(family="gp"))


@pytest.mark.parametrize("family", [(), ("gp", "gp"), ("lognormal",), "lognormal"])
def test_families_that_do_not_exist_are_refused(family):
    with pytest.raises(ValueError, match="family"):
        SfhConfig(family=family)
