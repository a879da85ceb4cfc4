"""Bases, filters, dust curves: exact cases and known numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core import ConfigError, DataFileError
from sbi_sedflow.bases import Bases, load_bases, parametric_bases, provabgs_bases, tng_bases
from sbi_sedflow.constants import AB_ZERO_POINT, C_ANGSTROM
from sbi_sedflow.dust import bump, calzetti
from sbi_sedflow.filters import Filter, load_filters, projection
from sbi_sedflow.nmf import Z_TOP, histories, metallicity_histories
from sbi_sedflow.ssp.rebin import pixel_edges


def test_shipped_bases_have_unit_mass_and_span_the_metallicities():
    bases = parametric_bases()
    assert bases.sfh.shape == (4, 50)
    assert_allclose(np.trapezoid(bases.sfh, bases.time, axis=1), 1)
    assert_allclose(1.5e-2 * bases.zh.max(1), Z_TOP)
    recent = bases.formed(np.array([3.0]))[:, 0]
    assert recent.max() > 0.6  # one basis belongs to the last gigayears


def test_integrals_of_bases_add_up_and_extrapolate():
    time = np.linspace(1.0, 13.0, 25)
    bases = Bases(time, (2 + 3 * time)[None], np.ones((1, 25)))
    t = np.array([0.0, 0.5, 4.0, 13.8])
    assert_allclose(bases.formed(t)[0], 2 * t + 1.5 * t**2, atol=1e-12)
    assert_allclose(bases.metallicity(t), np.ones((1, 4)))


def test_impossible_bases_are_refused():
    time = np.linspace(0, 13, 10)
    with pytest.raises(DataFileError, match="not negative"):
        Bases(time, -np.ones((2, 10)), np.ones((1, 10)))
    with pytest.raises(DataFileError, match="must increase"):
        Bases(time[::-1], np.ones((2, 10)), np.ones((1, 10)))
    with pytest.raises(DataFileError, match="unknown bases"):
        load_bases("nmf")
    with pytest.raises(DataFileError, match="no file"):
        load_bases("provabgs:nowhere")


def test_published_bases_are_turned_and_sorted(sedflow_data):
    bases = provabgs_bases(sedflow_data)
    assert_allclose(np.diff(bases.time), 0.27675, atol=1e-4)
    peaks = bases.time[bases.sfh.argmax(1)]
    assert_allclose(peaks, [1.17, 5.60, 8.37, 11.14], atol=0.3)
    assert tng_bases(sedflow_data).sfh.shape == (6, 55)


def test_generated_histories_are_not_negative_and_have_unit_mass(rng):
    x = histories(rng, each=50)
    assert x.shape == (200, 50)
    assert (x >= 0).all()
    assert (metallicity_histories(rng, 50) <= Z_TOP).all()


def test_pivots_are_those_of_the_surveys():
    pivots = [f.pivot for f in load_filters()]
    assert_allclose(pivots, [1536, 2299, 3589, 4701, 6177, 7497, 8904], atol=3)


def test_a_source_of_one_ab_maggy_has_one_maggy():
    """F_nu = 3631 Jy at all wavelengths, as F_lambda averaged over pixels."""
    edges = pixel_edges(1024)
    nodes, table = projection(load_filters(), edges)
    z = nodes[100]
    observed = edges * (1 + z)
    mean = AB_ZERO_POINT * C_ANGSTROM * (1 / observed[:-1] - 1 / observed[1:]) / np.diff(observed)
    # pixels are narrow beside every filter: 1e-4 is what their width costs
    assert_allclose(table[100] @ mean, np.ones(7), rtol=2e-4)


def test_a_filter_outside_the_spectra_is_refused():
    wave = np.linspace(15000, 17000, 50)
    far = Filter("H", wave, np.exp(-(((wave - 16000) / 300) ** 2)))
    with pytest.raises(ConfigError, match="not covered"):
        projection((far,), pixel_edges(128))


def test_sedpy_curves_are_close_but_not_the_same():
    pytest.importorskip("sedpy")
    pivots = [f.pivot for f in load_filters("sedpy")]
    assert_allclose(pivots, [1535, 2301, 3557, 4702, 6175, 7491, 8946], atol=5)


def test_the_starburst_curve_has_its_published_values():
    wave = np.array([1200.0, 5500.0, 6299.0, 6301.0, 30000.0])
    k = 4.05 * calzetti(wave)
    # A divided by E(B-V) of the gas times 0.44: R_V of the stars, 4.05, at V
    assert_allclose(k[1], 4.05, atol=0.05)
    assert_allclose(k[2], k[3], atol=0.05)
    assert (k >= 0).all()


def test_the_bump_is_centred_and_one_high():
    assert_allclose(4.05 * bump(np.array([2175.0])), 1)
    assert bump(np.array([5500.0])) < 0.02
