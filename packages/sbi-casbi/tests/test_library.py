from dataclasses import replace

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_casbi.abundances import SOLAR, abundances, hydrogen_of, metals_of, offsets
from sbi_casbi.library import histograms, make_templates, read_library, split_stems, write_library
from sbi_casbi.plane import Plane
from sbi_core import ConfigError, DataFileError


def test_a_file_gives_back_the_same_library(library, tmp_path):
    some = library.take(np.arange(50))
    again = read_library(write_library(some, tmp_path / "a.h5"))
    assert again.hash == some.hash
    assert (again.galaxy_name == some.galaxy_name).all()
    assert (again.theta == some.theta).all()
    assert again.plane == some.plane
    assert (again.templates != some.templates).nnz == 0


def test_an_altered_file_is_refused(library, tmp_path):
    path = write_library(library.take(np.arange(20)), tmp_path / "a.h5")
    with h5py.File(path, "r+") as f:
        f["tau"][0] += 1.0
    with pytest.raises(DataFileError, match="altered"):
        read_library(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataFileError, match="does not exist"):
        read_library(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DataFileError, match="damaged"):
        read_library(tmp_path / "text.h5")


def test_stems_never_cross_splits(library):
    for a in range(3):
        for b in range(a):
            assert not set(library.stem[library.split == a]) & set(library.stem[library.split == b])
    shared = library.split.copy()
    twice = np.flatnonzero(library.stem == library.stem[0])
    assert len(twice) > 1
    shared[twice[0]] = (shared[twice[0]] + 1) % 3
    with pytest.raises(DataFileError, match="several splits"):
        replace(library, split=shared)


def test_two_spellings_of_a_stem_are_one_galaxy(library):
    stem = np.array([f"g{k}.00e10" for k in range(1, 10)] + ["g1.10e11", "g1.20e11", "1.00e10"])
    split = split_stems(stem, np.arange(12.0), 1)
    assert split[-1] == split[0]
    few = library.take(np.arange(12))
    replace(few, stem=stem, split=split)
    split[-1] = (split[-1] + 1) % 3
    with pytest.raises(DataFileError, match="1.00e10', 'g1.00e10"):
        replace(few, stem=stem, split=split)


def test_splits_have_their_shares_in_every_mass_stratum(rng):
    stem = np.array([f"g{k}" for k in range(500)]).repeat(3)
    mass = np.arange(500).repeat(3) / 100.0
    split = split_stems(stem, mass, 1)
    assert_allclose(np.bincount(split) / len(split), (0.8, 0.1, 0.1), atol=0.01)
    light = split[mass < 1.0]
    assert np.bincount(light, minlength=3).min() > 0
    assert (split != split_stems(stem, mass, 2)).any()


def test_too_few_stems_are_refused():
    with pytest.raises(ConfigError, match="at least 10"):
        split_stems(np.array(["a", "b"]), np.zeros(2), 1)


def test_cuts_that_leave_nothing_are_refused(library):
    with pytest.raises(DataFileError, match="leave no snapshot"):
        library.take(library.log_mstar > 20)


def test_templates_leave_out_what_is_outside():
    plane = Plane()
    fe, o = np.array([[-1.0, 50.0]]), np.array([[0.2, 0.2]])
    made = make_templates(plane, fe, o, np.full((1, 2), 0.5))
    assert made.sum() == pytest.approx(0.5)


def test_histograms_are_sums_of_fine_bins(rng):
    plane = Plane()
    fe, o = rng.normal(-1.5, 0.5, 3000), rng.normal(0.2, 0.15, 3000)
    counts, outside = plane.histogram(fe, o)
    assert counts.sum() + outside == 3000
    made = make_templates(plane, fe[None], o[None], np.full((1, 3000), 1 / 3000))
    from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs

    one = build_dwarfs(DwarfConfig(stems=12, cuts=1)).take(np.array([0]))
    got = histograms(replace(one, templates=made, n_star=np.array([3000])))[0]
    assert_allclose(got, counts, atol=1e-2)


def test_abundances_are_those_that_made_the_mass_fractions():
    sun = SOLAR["asplund09"]
    fe_h, o_fe = np.array([-2.0, 0.1]), np.array([0.4, -0.1])
    ratio_fe, ratio_o = 10**fe_h * sun.fe / sun.h, 10 ** (fe_h + o_fe) * sun.o / sun.h
    h = 0.764 / (1 + 3.1 * metals_of(ratio_fe, ratio_o))
    fe, o = ratio_fe * h, ratio_o * h
    got = abundances(fe, o, hydrogen_of(metals_of(fe, o)), sun)
    assert_allclose(got, (fe_h, o_fe), atol=1e-12)
    d_fe, d_o = offsets("asplund09", "pynbody")
    moved = abundances(fe, o, hydrogen_of(metals_of(fe, o)), SOLAR["pynbody"])
    assert_allclose(moved, (fe_h + d_fe, o_fe + d_o), atol=1e-12)


def test_stars_without_iron_have_no_abundance():
    fe_h, o_fe = abundances(np.zeros(1), np.ones(1) * 1e-3, np.ones(1), SOLAR["pynbody"])
    assert np.isnan(fe_h).all()
    assert np.isnan(o_fe).all()
