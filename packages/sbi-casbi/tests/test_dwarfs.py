import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_casbi.cosmology import redshift
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs, grumpy_eta
from sbi_casbi.relations import MASS_RANGE, dark_mass, mean_fe_h


def test_same_options_give_the_same_library():
    a, b = (build_dwarfs(DwarfConfig(stems=30)) for _ in range(2))
    assert a.hash == b.hash
    assert a.hash != build_dwarfs(DwarfConfig(stems=30, seed=2)).hash


def test_names_say_stem_and_step(library):
    stem, step = np.char.partition(library.galaxy_name, ".")[:, [0, 2]].T
    assert (stem == library.stem).all()
    assert_allclose(step.astype(int) / 1024 * 13.8127, library.tau, atol=1e-9)
    assert len(np.unique(library.galaxy_name)) == len(library)


def test_all_cuts_follow_the_mass_metallicity_relation(library):
    delta = library.log_mdm - dark_mass(library.log_mstar)
    want = mean_fe_h(library.log_mstar, library.z, delta, 0.25)
    rest = library.moments[:, 0] - want
    assert abs(rest.mean()) < 0.05
    assert np.sqrt((rest**2).mean()) < 0.2


def test_infall_time_shows_in_oxygen_at_given_mass(library):
    near = np.abs(library.log_mstar - 7.5) < 0.7
    assert np.corrcoef(library.moments[near, 1], library.tau[near])[0, 1] < -0.7


def test_templates_are_shares_of_one_galaxy(library):
    total = np.asarray(library.templates.sum(1)).ravel()
    assert (library.templates.data >= 0).all()
    assert total.max() <= 1 + 1e-5
    assert total.min() > 0.95


def test_masses_and_times_stay_in_range(library):
    assert library.log_mstar.min() > MASS_RANGE[0]
    assert library.log_mstar.max() < MASS_RANGE[1]
    assert library.tau.min() >= 1.0
    assert_allclose(library.z, redshift(library.tau))


def test_dark_mass_matters_only_through_the_coupling():
    a = build_dwarfs(DwarfConfig(stems=150, dm_coupling=0.0))
    b = build_dwarfs(DwarfConfig(stems=150, dm_coupling=0.5))
    assert (a.log_mdm == b.log_mdm).all()
    delta = a.log_mdm - dark_mass(a.log_mstar)
    assert np.corrcoef(delta, b.moments[:, 0] - a.moments[:, 0])[0, 1] > 0.95


def test_the_other_backend_has_another_plane():
    a = build_dwarfs(DwarfConfig(stems=60))
    b = build_dwarfs(DwarfConfig(stems=60, backend="grumpy"))
    assert (a.theta == b.theta).all()
    assert np.abs(a.moments[:, 0] - b.moments[:, 0]).mean() > 0.1
    assert grumpy_eta(np.array([1e10]))[0] == 0
    assert grumpy_eta(np.array([1e6]))[0] == pytest.approx(1.8 * 1e-4**-0.45 - 4.5)
