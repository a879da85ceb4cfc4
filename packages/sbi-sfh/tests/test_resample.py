import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_sfh.resample import air_to_vacuum, cardelli, edges_of, rebin, vacuum_to_air


def test_air_is_1_394_angstrom_shorter_at_5000():
    # Ciddor 1996 for standard air
    assert 5000.0 - vacuum_to_air(5000.0) == pytest.approx(1.394, abs=1e-3)


def test_air_and_vacuum_are_inverse():
    wave = np.linspace(3000, 10000, 500)
    assert_allclose(vacuum_to_air(air_to_vacuum(wave)), wave, atol=1e-8)


def test_rebinning_conserves_flux(rng):
    wave = np.sort(rng.uniform(4000, 5000, 700))
    wave = np.unique(np.round(wave, 2))
    flux = rng.uniform(1, 2, len(wave))
    target = np.arange(4100.0, 4900.0, 0.9)
    out, _, use = rebin(wave, flux, target)
    old, new = edges_of(wave), edges_of(target)
    total = np.interp(new[[0, -1]], old, np.concatenate([[0], np.cumsum(flux * np.diff(old))]))
    assert use.all()
    assert (out * np.diff(new)).sum() == pytest.approx(total[1] - total[0], rel=1e-10)


def test_variance_shrinks_when_pixels_are_joined():
    wave = np.arange(5000.0, 5100.0, 1.0)
    out, var, _ = rebin(wave, np.ones(100), np.arange(5010.0, 5080.0, 4.0), variance=np.ones(100))
    assert_allclose(out, 1.0)
    assert_allclose(var, 0.25, rtol=0.3)


def test_masked_pixels_do_not_leak():
    wave = np.arange(5000.0, 5100.0, 1.0)
    flux = np.ones(100)
    flux[50] = 1e6
    good = np.ones(100, bool)
    good[50] = False
    out, _, use = rebin(wave, flux, np.arange(5010.0, 5080.0, 0.9), good=good)
    assert out[use].max() == pytest.approx(1.0)
    assert not use.all()


def test_reddening_has_the_standard_slope():
    # A(B) - A(V) = E(B-V) at 4400 and 5500 Angstrom
    a_b, a_v = 2.5 * np.log10(cardelli(np.array([4400.0, 5500.0]), 0.3))
    assert a_b - a_v == pytest.approx(0.3, abs=0.02)
    assert a_v == pytest.approx(0.93, abs=0.02)
