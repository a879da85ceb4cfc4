import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core import ConfigError
from sbi_sfh.config import SfhConfig
from sbi_sfh.libraries import load_library
from sbi_sfh.ssp import age_weights, compress, linear_weights


def test_weights_sum_to_one_and_are_clamped():
    grid = np.array([-1.0, 0.0, 0.5])
    w = linear_weights([-3.0, -1.0, -0.25, 0.5, 9.0], grid)
    assert_allclose(w.sum(1), 1.0)
    assert_allclose(w[2], [0.25, 0.75, 0.0])
    assert_allclose(w[[0, 4]], [[1, 0, 0], [0, 0, 1]])


def test_interpolation_is_continuous_across_the_grid():
    grid = np.array([0.1, 1.0, 10.0])
    left, right = (age_weights([1.0 + e], grid)[0] for e in (-1e-9, 1e-9))
    assert_allclose(left, right, atol=1e-8)


def test_clamped_ages_are_counted():
    _, clamped = age_weights([0.0, 0.5, 20.0], np.array([0.03, 14.0]))
    assert clamped.tolist() == [True, False, True]


def test_log_age_weights_halve_at_the_geometric_mean():
    w, _ = age_weights([1.0], np.array([0.1, 10.0]), "log")
    assert_allclose(w, [[0.5, 0.5]])


def test_compression_with_all_components_is_exact(rng):
    cube = rng.uniform(1, 2, (1, 3, 4, 40))
    basis, coeff = compress(cube, 11)
    assert_allclose(coeff @ basis, cube, rtol=1e-10)


def test_embedded_library_is_what_its_provenance_says(simulator):
    library = simulator.library
    assert library.coeff.shape == (1, 11, 53, 49)
    assert len(library.wave) == 4300
    assert library.meta["package"] == "fastar-astro 0.1.2"
    assert (library.spectra() > 0).all()


def test_old_metal_rich_stars_have_deeper_lines_than_young_ones(simulator):
    from sbi_sfh.indices import INDICES, equivalent_width

    library = simulator.library
    mgb = equivalent_width(library.wave, library.spectra()[0:, :], INDICES["Mgb"])
    hb = equivalent_width(library.wave, library.spectra(), INDICES["Hb"])
    solar = int(np.argmin(np.abs(library.mh - 0.06)))
    ten, half = (int(np.argmin(np.abs(library.age_gyr - a))) for a in (10.0, 0.5))
    assert mgb[solar, ten] > 3.0 > mgb[solar, half]
    assert hb[solar, half] > 4.0 > hb[solar, ten]


def test_matrix_product_is_the_sum_over_the_library(simulator, rng):
    library = simulator.library
    weights = rng.uniform(0, 1, (1, 53))
    found = library.coefficients(weights, [-0.1]) @ library.basis
    spectra = library.spectra()
    low = int(np.searchsorted(library.mh, -0.1)) - 1
    part = (-0.1 - library.mh[low]) / (library.mh[low + 1] - library.mh[low])
    expected = np.zeros(4300)
    for k in range(53):
        ssp = (1 - part) * spectra[low, k] + part * spectra[low + 1, k]
        expected += weights[0, k] * ssp
    assert_allclose(found[0], expected, rtol=1e-10)


def test_alpha_of_a_single_plane_is_refused(simulator):
    with pytest.raises(ConfigError, match="needs >= 2"):
        simulator.library.coefficients(np.ones((1, 53)), [0.0], [0.2])
    with pytest.raises(Exception, match="needs >= 2 .alpha/Fe. planes"):
        load_library(SfhConfig(afe=True))


def test_a_range_beyond_the_library_is_refused():
    with pytest.raises(ConfigError, match="covers 3540.5-7409.6"):
        load_library(SfhConfig(wave_range=(3000.0, 7000.0)))


def test_crop_keeps_the_ends():
    library = load_library(SfhConfig(wave_range="paper-etg"))
    assert library.wave[0] == pytest.approx(4023, abs=0.9)
    assert library.wave[-1] == pytest.approx(6000, abs=0.9)
