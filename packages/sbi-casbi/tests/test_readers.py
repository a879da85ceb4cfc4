import h5py
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from numpy.testing import assert_allclose

from sbi_casbi.config import CasbiConfig
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.readers import halo_of_stars, read_halo
from sbi_casbi.simulator import LOG_N, OVERFLOW, SIGMA_FE, SIGMA_O
from sbi_casbi.star_tables import library_of_stars
from sbi_core import ConfigError, DataFileError, ObservationError
from sbi_core.data.reading import Reading, using

SHAPE = CasbiConfig(counts="shape")
COMPLETE = CasbiConfig(counts="absolute")


def stars(n=400, seed=1, **more):
    rng = np.random.default_rng(seed)
    return Table(
        {
            "fe_h": rng.normal(-1.5, 0.4, n),
            "o_fe": rng.normal(0.3, 0.1, n),
            "e_fe_h": np.full(n, 0.1),
            "e_o_fe": np.full(n, 0.05),
            **more,
        }
    )


def written(table, path):
    table.write(path, overwrite=True)
    return path


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".csv"])
def test_star_lists_become_planes(library, tmp_path, suffix):
    obs = read_halo(written(stars(), tmp_path / f"halo{suffix}"), library, SHAPE)
    x = obs.batch.x[0].numpy()
    assert x[: OVERFLOW + 1].sum() == 400
    assert_allclose(x[[LOG_N, SIGMA_FE, SIGMA_O]], (np.log10(400), 0.1, 0.05), rtol=1e-6)
    want, _ = library.plane.histogram(*(np.asarray(stars()[k]) for k in ("fe_h", "o_fe")))
    assert (x[:OVERFLOW].reshape(64, 64) == want).all()
    assert obs.id.tolist() == ["halo"]


def test_columns_of_surveys_and_of_the_user(library, tmp_path):
    t = stars()
    t.rename_columns(["fe_h", "o_fe", "e_fe_h", "e_o_fe"], ["FE_H", "O_FE", "FE_H_ERR", "O_FE_ERR"])
    a = read_halo(written(t, tmp_path / "a.fits"), library, SHAPE)
    t.rename_columns(["FE_H", "FE_H_ERR"], ["iron", "iron_err"])
    path = written(t, tmp_path / "b.fits")
    with pytest.raises(ObservationError, match=r"\[Fe/H\]"):
        read_halo(path, library, SHAPE)
    named = SHAPE.model_copy(update={"columns": {"fe_h": "iron", "e_fe_h": "iron_err"}})
    assert (read_halo(path, library, named).batch.x == a.batch.x).all()


def test_what_is_left_out_is_counted(library, tmp_path):
    t = stars(source_id=np.arange(400) // 2 * 2)
    t["fe_h"][:5] = np.nan
    notes = " ".join(read_halo(written(t, tmp_path / "a.ecsv"), library, SHAPE).notes)
    assert "5 stars without" in notes
    assert "197 stars with a repeated 'source_id'" in notes


@pytest.mark.parametrize("name", ["source_id", "Name"])
def test_of_a_repeated_star_the_first_complete_row_is_used(name, library, tmp_path):
    """The first row of star 7 has no [Fe/H], the second has; stars without identifier differ."""
    ids = MaskedColumn(["7", "7", "8", "9", "", ""], mask=[0, 0, 0, 0, 1, 1])
    t = stars(6, **{name: ids})
    t["fe_h"][0] = np.nan
    options = SHAPE.model_copy(update={"columns": {"id": "Name"}} if name == "Name" else {})
    halo = read_halo(written(t, tmp_path / "a.ecsv"), library, options)
    assert 10 ** float(halo.batch.x[0, LOG_N]) == pytest.approx(5)
    assert not any("repeated" in note for note in halo.notes)


def test_identifiers_of_gaia_are_found_and_their_lack_is_a_note(library, tmp_path):
    t = stars(**{"Gaia DR3 source_id": np.arange(400) // 2})
    assert read_halo(written(t, tmp_path / "a.csv"), library, SHAPE).batch.x[0, :4096].sum() == 200
    notes = read_halo(written(stars(), tmp_path / "b.csv"), library, SHAPE).notes
    assert "no identifier" in " ".join(notes)
    assert "--column id=NAME" in " ".join(notes)


def test_flags_that_are_set_are_a_note(library, tmp_path):
    """Of the 399 stars with both abundances; masked flags are not set."""
    t = stars(ASPCAPFLAG=np.arange(400) % 4 == 1, starflag=np.zeros(400, int))
    t["fe_h"][1] = np.nan
    t["flag_o_fe"] = MaskedColumn(np.arange(400) % 2, mask=np.arange(400) > 9)
    said = " ".join(read_halo(written(t, tmp_path / "a.fits"), library, SHAPE).notes)
    assert "not zero in 'ASPCAPFLAG' (99 stars), 'flag_o_fe' (4 stars)" in said
    assert "starflag" not in said


def test_messages_name_what_to_do(library, tmp_path):
    t = stars()
    t.rename_columns(["o_fe", "e_o_fe"], ["O_H", "O_H_ERR"])
    with pytest.raises(ObservationError, match=r"add a column o_fe with 'O_H' - \[Fe/H\]"):
        read_halo(written(t, tmp_path / "a.fits"), library, SHAPE)
    t = stars()
    t.remove_column("e_o_fe")
    with pytest.raises(ObservationError, match=r"no errors of \[O/Fe\].*--column e_o_fe=NAME"):
        read_halo(written(t, tmp_path / "b.fits"), library, SHAPE)
    said = " ".join(read_halo(tmp_path / "b.fits", library, COMPLETE).notes)
    assert "0 is assumed; name their column with --column e_o_fe=NAME" in said
    t["eofe"] = 0.05
    assert read_halo(written(t, tmp_path / "c.fits"), library, SHAPE).batch.x[0, SIGMA_O] > 0.04


@pytest.mark.parametrize("columns", [["fe_h", "o_fe"], ["o_fe"]])
def test_zeros_that_mark_missing_values_are_no_stars(columns, library, tmp_path):
    """80 of 400 stars; three zeros, or values rounded to 0.1 dex, are stars."""
    t = stars()
    for name in columns:
        t[name][:80] = 0.0
    halo = read_halo(written(t, tmp_path / "a.csv"), library, SHAPE)
    assert 10 ** float(halo.batch.x[0, LOG_N]) == pytest.approx(320)
    assert f"80 stars with 0 in '{columns[0]}' as a mark of missing values excluded" in halo.notes
    t = stars()
    t["fe_h"], t["o_fe"] = (t["fe_h"] + 1.5).round(1), (t["o_fe"] - 0.3).round(1)
    t["fe_h"][:3] = 0.0
    halo = read_halo(written(t, tmp_path / "b.csv"), library, SHAPE)
    assert 10 ** float(halo.batch.x[0, LOG_N]) == pytest.approx(400)


@pytest.mark.parametrize("mark", [-5.0, 77.7])
def test_values_that_no_star_has_are_marks_where_they_are_frequent(mark, library, tmp_path):
    t = stars()
    t["o_fe"][:20] = mark
    halo = read_halo(written(t, tmp_path / "a.csv"), library, SHAPE)
    assert 10 ** float(halo.batch.x[0, LOG_N]) == pytest.approx(380)
    assert f"20 stars with {mark:g} in 'o_fe' as a mark of missing values excluded" in halo.notes
    t["o_fe"][2:20] = 0.3
    halo = read_halo(written(t, tmp_path / "b.csv"), library, SHAPE)
    assert halo.batch.x[0, OVERFLOW] == 2


@pytest.mark.parametrize("scale", [1.0, 1.4e-3])
def test_metallicities_that_are_not_logarithmic_are_refused(scale, library, tmp_path):
    """Fe/Fe_sun and mass fractions; of a few stars, all may be positive."""
    t = stars()
    t["fe_h"] = scale * 10 ** t["fe_h"]
    with pytest.raises(ObservationError, match=r"all values of 'fe_h' are positive .*in dex"):
        read_halo(written(t, tmp_path / "a.csv"), library, SHAPE)
    assert read_halo(written(t[:5], tmp_path / "b.csv"), library, SHAPE).batch.x[0, LOG_N] > 0


@pytest.mark.parametrize("mark", [-9999.99, -9999.0, -999.0, 9.99, 99.0, 99.99, -9.99, -999.9])
def test_marks_of_missing_values_are_no_stars(mark, library, tmp_path):
    t = stars()
    t["o_fe"][:50] = mark
    halo = read_halo(written(t, tmp_path / "a.fits"), library, SHAPE)
    assert 10 ** float(halo.batch.x[0, LOG_N]) == pytest.approx(350)
    assert halo.batch.x[0, OVERFLOW] == 0
    assert any("50 values of 'o_fe' at a mark" in note for note in halo.notes)


@pytest.mark.parametrize("name", ["mg_fe", "alpha_fe", "afe"])
def test_errors_of_a_proxy_are_used(name, library, tmp_path):
    t = stars()
    t.rename_columns(["o_fe", "e_o_fe"], [name, f"e_{name}"])
    allowed = SHAPE.model_copy(update={"alpha_proxy": True})
    halo = read_halo(written(t, tmp_path / "a.csv"), library, allowed)
    assert float(halo.batch.x[0, SIGMA_O]) == pytest.approx(0.05)


@pytest.fixture(scope="module")
def magnesium():
    return build_dwarfs(DwarfConfig(stems=200, alpha="mg"))


def test_magnesium_is_read_for_templates_of_magnesium(library, magnesium, tmp_path):
    """APOGEE columns; the same stars as oxygen are in the same pixels."""
    t = stars()
    want = read_halo(written(t, tmp_path / "o.fits"), library, SHAPE).batch.x
    t.rename_columns(["fe_h", "e_fe_h"], ["FE_H", "FE_H_ERR"])
    t.rename_columns(["o_fe", "e_o_fe"], ["MG_FE", "MG_FE_ERR"])
    t["O_FE"] = 0.7
    halo = read_halo(written(t, tmp_path / "mg.fits"), magnesium, SHAPE)
    assert (halo.batch.x == want).all()
    assert "400 stars, columns FE_H and MG_FE" in halo.notes
    t.remove_column("MG_FE")
    with pytest.raises(ObservationError, match=r"\[Mg/Fe\].*'O_FE'.*simulator.alpha=o"):
        read_halo(written(t, tmp_path / "no.fits"), magnesium, SHAPE)
    t.rename_column("O_FE", "oxygen")
    with pytest.raises(ObservationError, match=r"\[Mg/Fe\].*--column mg_fe=NAME"):
        read_halo(written(t, tmp_path / "none.fits"), magnesium, SHAPE)


def test_a_list_of_magnesium_names_the_option_of_the_library(library, tmp_path):
    t = stars()
    t.rename_column("o_fe", "mg_fe")
    with pytest.raises(ObservationError, match="'mg_fe'.*simulator.alpha=mg.*alpha_proxy=true"):
        read_halo(written(t, tmp_path / "a.csv"), library, SHAPE)


def test_a_word_costs_one_star_and_strict_reading_refuses_it(library, tmp_path):
    t = stars()
    t["fe_h"] = ["poor", *t["fe_h"][1:].astype(str)]
    path = written(t, tmp_path / "a.csv")
    assert "1 star with a word in fe_h excluded" in read_halo(path, library, SHAPE).notes
    with (
        using(Reading(strict=True)),
        pytest.raises(ObservationError, match=r"'fe_h' is not numeric \('poor'\) in row 0"),
    ):
        read_halo(path, library, SHAPE)


def test_the_number_of_stars_is_that_of_a_complete_sample_only_by_choice(library, tmp_path):
    path = written(stars(), tmp_path / "a.ecsv")
    with pytest.raises(ConfigError, match=r"preset survey.*counts=shape.*absolute.*mass 8\.78"):
        read_halo(path, library, CasbiConfig())
    counts = library.plane.histogram(stars()["fe_h"], stars()["o_fe"])[0]
    np.save(tmp_path / "a.npy", counts)
    with pytest.raises(ConfigError, match="preset survey"):
        read_halo(tmp_path / "a.npy", library, CasbiConfig())
    notes = read_halo(path, library, CasbiConfig(counts="absolute")).notes
    assert any("its 400 stars as a halo of log mass 8.78" in note for note in notes)
    assert not any("complete" in note for note in read_halo(path, library, SHAPE).notes)


def test_a_proxy_needs_permission(library, tmp_path):
    t = stars()
    t.rename_column("o_fe", "alpha_m")
    path = written(t, tmp_path / "a.ecsv")
    with pytest.raises(ObservationError, match="alpha_proxy"):
        read_halo(path, library, SHAPE)
    allowed = SHAPE.model_copy(update={"alpha_proxy": True})
    assert any("is used instead of [O/Fe]" in n for n in read_halo(path, library, allowed).notes)


def test_stars_outside_the_plane(library, tmp_path):
    t = stars()
    t["o_fe"][:60] = 3.0
    notes = read_halo(written(t, tmp_path / "a.ecsv"), library, SHAPE).notes
    assert any("more than 10 %" in n and "60" in n for n in notes)
    t["o_fe"][:300] = 3.0
    with pytest.raises(ObservationError, match="300 of 400"):
        read_halo(written(t, tmp_path / "b.ecsv"), library, SHAPE)


def test_solar_scales_are_converted_and_unknown_ones_refused(library):
    fe, o = np.full(10, -1.0), np.full(10, 0.2)
    _, notes = halo_of_stars(fe, o, library, solar="asplund09")
    assert "converted" in notes[0]
    with pytest.raises(ConfigError, match="solar scale"):
        halo_of_stars(fe, o, library, solar="mine")


def test_spread_errors_and_sizes_beyond_training_warn(library, tmp_path):
    t = stars(100)
    t["e_fe_h"] = np.linspace(0.01, 0.4, 100)
    notes = " ".join(read_halo(written(t, tmp_path / "a.ecsv"), library, SHAPE).notes)
    assert "range from" in notes
    assert "number of stars 100" in notes
    assert "error of [Fe/H] 0.205 dex is not that of the simulations (" in notes


def test_no_stars_and_no_columns_are_refused(library, tmp_path):
    t = stars(20)
    t["fe_h"] = np.nan
    with pytest.raises(ObservationError, match="no star"):
        read_halo(written(t, tmp_path / "a.ecsv"), library, SHAPE)
    with pytest.raises(DataFileError):
        read_halo(tmp_path / "none.ecsv", library, SHAPE)
    t.rename_column("o_fe", "oxygen")
    with pytest.raises(ObservationError, match=r"no column of \[O/Fe\].*--column o_fe=NAME"):
        read_halo(written(t, tmp_path / "a.ecsv"), library, SHAPE)


def test_histograms_are_read(library, tmp_path):
    counts = np.zeros((64, 64))
    counts[10, 20] = 7
    e = library.plane.edges
    np.savez(
        tmp_path / "a.npz",
        counts=counts,
        edges_fe_h=e[0],
        edges_o_fe=e[1],
        sigma_fe=0.1,
        sigma_o=0.05,
    )
    x = read_halo(tmp_path / "a.npz", library, SHAPE).batch.x[0]
    assert x[10 * 64 + 20] == 7
    np.savez(tmp_path / "b.npz", counts=counts, edges_fe_h=e[0] + 0.1, edges_o_fe=e[1])
    with pytest.raises(ObservationError, match="edges_fe_h"):
        read_halo(tmp_path / "b.npz", library, SHAPE)


def test_histograms_of_hdf5_are_those_of_npz(library, tmp_path):
    counts = library.plane.histogram(stars()["fe_h"], stars()["o_fe"])[0]
    arrays = {"counts": counts, "sigma_fe": 0.1, "sigma_o": 0.05}
    arrays |= dict(zip(("edges_fe_h", "edges_o_fe"), library.plane.edges, strict=True))
    np.savez(tmp_path / "a.npz", **arrays)
    store(tmp_path / "a.h5", arrays)
    one, two = (read_halo(tmp_path / f"a.{s}", library, SHAPE) for s in ("npz", "h5"))
    assert (one.batch.x == two.batch.x).all()
    assert one.notes == two.notes
    assert "histogram of 400 stars: rows [Fe/H], mean -1.5" in one.notes[0]
    stars().write(tmp_path / "b.h5", path="stars")  # a table in HDF5 is a list of stars
    assert (read_halo(tmp_path / "b.h5", library, SHAPE).batch.x[0] == one.batch.x[0]).all()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("counts", (32, 64), r"'counts' has shape \(32, 64\), expected \(64, 64\): rows \[Fe/H\]"),
        ("halo/counts", (64, 64), r"has halo/counts, but no array 'counts' \(64, 64\)"),
        ("hist", (64, 64), r"has hist, but no array 'counts'.*edges_fe_h and edges_o_fe \(65,\)"),
        ("fe_h", (400,), r"has fe_h, but no array 'counts'.*a list of stars is a table"),
    ],
)
def test_hdf5_of_another_layout_says_what_is_expected(name, shape, words, library, tmp_path):
    store(tmp_path / "a.h5", {name: np.ones(shape)})
    with pytest.raises((ObservationError, DataFileError), match=words):
        read_halo(tmp_path / "a.h5", library, SHAPE)


def store(path, arrays):
    with h5py.File(path, "w") as f:
        for name, value in arrays.items():
            f[name] = value


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.zeros((32, 32)), "shape"),
        (np.full((64, 64), -1.0), "negative"),
        (np.full((64, 64), np.nan), "not finite"),
        (np.full((64, 64), 0.5), "whole number"),
        (np.zeros((64, 64)), "empty"),
    ],
)
def test_histograms_that_are_none_are_refused(library, tmp_path, counts, words):
    np.save(tmp_path / "a.npy", counts)
    with pytest.raises(ObservationError, match=words):
        read_halo(tmp_path / "a.npy", library, SHAPE)


def test_a_table_of_stars_of_many_galaxies_becomes_a_library(tmp_path):
    rng = np.random.default_rng(1)
    n = 12 * 60
    name = np.array([f"g{k % 9}.{10 + k}e10.01024" for k in range(12)]).repeat(60)
    arrays = {
        "feh": rng.normal(-1.5, 0.3, n),
        "ofe": rng.normal(0.3, 0.1, n),
        "star_mass": (10 ** (6 + np.arange(12) / 6)).repeat(60),
        "infall_time": np.linspace(3, 12, 12).repeat(60),
        "Galaxy_name": name,
    }
    np.savez(tmp_path / "a.npz", **arrays)
    lib, notes = library_of_stars(tmp_path / "a.npz")
    assert len(lib) == 12
    assert not lib.has_dark_mass
    assert "dark mass is not inferred" in " ".join(notes)
    assert_allclose(np.asarray(lib.templates.sum(1)).ravel(), 1.0, rtol=1e-5)
    del arrays["ofe"]
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(DataFileError, match="ofe"):
        library_of_stars(tmp_path / "b.npz")


@pytest.mark.parametrize("suffix", ["fits", "csv"])
def test_any_table_of_ones_own_simulations_becomes_a_library(tmp_path, rng, suffix):
    """Two outputs of each of eleven simulations; names of any form; magnesium; dark masses."""
    n = 22 * 30
    galaxy = np.arange(22).repeat(30)
    t = Table({"Galaxy": np.char.add("snap", galaxy.astype(str))})
    t["simulation"] = np.char.add("dwarf ", (galaxy // 2).astype(str))
    t["fe_h"], t["mg_fe"] = rng.normal(-1.5, 0.3, n), rng.normal(0.2, 0.1, n)
    t["mstar"], t["mdm"], t["tau"] = 10 ** (6 + galaxy / 10), 1e10, 3.0 + galaxy % 2
    lib, notes = library_of_stars(written(t, tmp_path / f"stars.{suffix}"), alpha="mg")
    assert (len(lib), len(np.unique(lib.stem)), lib.alpha) == (22, 11, "mg")
    assert_allclose(np.sort(lib.log_mstar), 6 + np.arange(22) / 10)
    assert lib.has_dark_mass
    assert not notes
    with pytest.raises(DataFileError, match="lacks ofe.*--alpha mg"):
        library_of_stars(tmp_path / f"stars.{suffix}")
    t.remove_column("simulation")
    with pytest.raises(DataFileError, match="--stem-regex.*column 'simulation'"):
        library_of_stars(written(t, tmp_path / f"b.{suffix}"), alpha="mg")


def test_a_folder_of_one_galaxy_files_becomes_a_library(tmp_path, rng):
    for k in range(12):
        np.savez(
            tmp_path / f"g{k % 9 + 1}.{k // 9}0e10.01024_parameters.npz",
            feh=rng.normal(-1.5, 0.3, 100 + k),
            ofe=rng.normal(0.3, 0.1, 100 + k),
            star_mass=1e8 + k,
            infall_time=5.0,
            Galaxy_name=f"g{k % 9 + 1}.{k // 9}0e10.01024",
        )
    np.savez(tmp_path / "g9.90e10.00016_load_error.npz", emppty=np.array([0]))
    lib, notes = library_of_stars(tmp_path)
    assert len(lib) == 12
    assert sorted(lib.n_star) == list(range(100, 112))
    assert "1 file (g9.90e10.00016_load_error.npz) not read" in " ".join(notes)
    for name, n in (("g9.90e10.00032", 3), ("g9.90e10.00048", 0)):
        np.savez(
            tmp_path / f"{name}.npz", feh=np.full(n, np.nan), ofe=np.zeros(n), star_mass=1e8,
            infall_time=5.0, Galaxy_name=name,
        )  # fmt: skip
    again, notes = library_of_stars(tmp_path)
    assert again.hash == lib.hash
    said = " ".join(notes)
    assert "1 galaxy (g9.90e10.00032) without a usable star left out" in said
    assert "1 file (g9.90e10.00048.npz) without stars" in said
    with pytest.raises(ConfigError, match="1 stem"):
        library_of_stars(next(tmp_path.glob("*_parameters.npz")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="no file of a galaxy"):
        library_of_stars(tmp_path / "empty")


def galaxies(**changes):
    """A table of twelve galaxies with 20 stars each; changes are functions of a column."""
    k = np.arange(12).repeat(20)
    t = Table({"feh": -1.5 + 0.01 * k, "ofe": 0.3 - 0.001 * k})
    t["star_mass"], t["dm_mass"], t["infall_time"] = (
        10 ** (6 + k / 6),
        10 ** (9 + k / 9),
        3 + 0.5 * k,
    )
    t["Galaxy_name"], t["simulation"] = (
        np.char.add("s", k.astype(str)),
        np.char.add("d", k.astype(str)),
    )
    for name, change in changes.items():
        t[name] = change(t[name])
    return t


def first_galaxy(value):
    return lambda column: np.where(np.arange(len(column)) < 20, value, column)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"star_mass": lambda m: m * np.linspace(1, 2, len(m))},
            "star_mass is 1e.06.*of 's0'.*same",
        ),
        ({"star_mass": lambda m: np.full(len(m), 1e3)}, "1e.03 for all 12 galaxies"),
        ({"star_mass": np.log10}, "expected Msun"),
        ({"star_mass": first_galaxy(np.nan)}, "star_mass of 1 galaxy is not usable.*'s0'"),
        ({"infall_time": lambda t: t * 1e9}, "infall_time of 12 galaxies is not.*expected Gyr"),
        ({"infall_time": first_galaxy(-1.0)}, "infall_time of 1 galaxy"),
        ({"infall_time": first_galaxy(25.0)}, "25 of 's0': expected Gyr, 0 to 14.1"),
        ({"simulation": first_galaxy("")}, "'simulation' is empty for 20 stars"),
        ({"feh": lambda f: f + 7.5}, "240 of 240 stars outside the plane"),
    ],
)
def test_values_that_galaxies_cannot_have_are_refused(tmp_path, changes, said):
    with pytest.raises(DataFileError, match=said):
        library_of_stars(written(galaxies(**changes), tmp_path / "a.csv"))


def test_stars_outside_the_plane_and_missing_dark_masses_are_named(tmp_path):
    t = galaxies(dm_mass=first_galaxy(0.0))
    t["feh"][[0, 25]] = 3.0
    lib, notes = library_of_stars(written(t, tmp_path / "a.csv"))
    said = " ".join(notes)
    assert "2 of 240 stars outside the plane" in said
    assert "1 galaxy (s0) without dm_mass" in said
    assert not lib.has_dark_mass
    assert sorted(lib.n_over) == [0] * 10 + [1, 1]


def test_a_damaged_file_in_a_folder_is_left_out(tmp_path):
    written(galaxies(), tmp_path / "a.csv")
    (tmp_path / "b.npz").write_bytes(b"no archive")
    lib, notes = library_of_stars(tmp_path)
    assert len(lib) == 12
    assert "1 file (b.npz) cannot be used" in " ".join(notes)
    assert "neither an npz" in " ".join(notes)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DataFileError, match="b.npz"):
        library_of_stars(tmp_path)


def run_import(*words):
    from click.testing import CliRunner

    from sbi_casbi.cli import import_stars

    return CliRunner().invoke(import_stars, [str(w) for w in words])


def test_a_library_is_written_over_nothing_but_a_library(tmp_path):
    table = tmp_path / "a.csv"
    written(galaxies(), table)
    before = table.read_bytes()
    for out in (table, tmp_path):
        result = run_import(table, "--out", out)
        assert result.exit_code == 2
        assert "exists and is" in result.output
    assert table.read_bytes() == before
    for _ in range(2):
        assert run_import(table, "--out", tmp_path / "new" / "lib.h5").exit_code == 0


@pytest.mark.parametrize(("regex", "said"), [("((", "not a regular"), ("(.*)", "1 group, but")])
def test_patterns_without_two_groups_are_refused(tmp_path, regex, said):
    result = run_import(tmp_path / "a.csv", "--out", tmp_path / "b.h5", "--stem-regex", regex)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("sigma", [np.array([0.1, 0.2]), -0.1, np.nan, "small"])
def test_errors_of_a_histogram_are_numbers(library, tmp_path, sigma):
    path = tmp_path / "h.npz"
    np.savez(path, counts=np.ones((64, 64), int), sigma_fe=sigma, sigma_o=0.1)
    with pytest.raises(ObservationError, match="sigma_fe .*one non-negative number"):
        read_halo(path, library, CasbiConfig(counts="shape"))


def test_one_star_is_one_star_and_metallicity_is_not_iron(library, tmp_path):
    path = tmp_path / "one.csv"
    written(Table({"m_h": [-1.0], "o_fe": [0.3], "e_m_h": [0.1], "e_o_fe": [0.1]}), path)
    notes = " ".join(read_halo(path, library, CasbiConfig(counts="shape")).notes)
    assert "1 star, columns" in notes
    assert "'m_h' is used for [Fe/H]" in notes
    chosen = CasbiConfig(counts="shape", columns={"fe_h": "m_h"})
    assert "is used for" not in " ".join(read_halo(path, library, chosen).notes)


@pytest.mark.parametrize("name", ["halo", "haloID", "Galaxy_name", "substructure"])
def test_several_halos_in_one_list_are_named(name, library, tmp_path):
    t = stars(**{name: np.repeat(["M31", "Milky Way"], 200)})
    notes = " ".join(read_halo(written(t, tmp_path / "a.csv"), library, SHAPE).notes)
    assert f"'{name}' has 2 values, and all stars are taken as one halo" in notes
    t[name] = "M31"
    notes = " ".join(read_halo(written(t, tmp_path / "a.csv"), library, SHAPE).notes)
    assert "one halo" not in notes


@pytest.mark.parametrize("wrong", ["percent", "zero"])
def test_errors_in_percent_are_refused_and_errors_of_zero_are_said(wrong, library, tmp_path):
    t = stars()
    t["e_fe_h"] = 10.0 if wrong == "percent" else 0.0
    path = written(t, tmp_path / "a.csv")
    if wrong == "percent":
        with pytest.raises(ObservationError, match="'e_fe_h' have a median of 10; expected dex"):
            read_halo(path, library, SHAPE)
    else:
        assert "errors of [Fe/H] in 'e_fe_h' are 0" in " ".join(
            read_halo(path, library, SHAPE).notes
        )


def test_a_column_that_does_not_name_stars_is_refused(library, tmp_path):
    t = stars()
    t["id"] = np.where(np.arange(len(t)) < 100, "A", "B")
    with pytest.raises(ObservationError, match="398 of 400 stars repeat an identifier"):
        read_halo(written(t, tmp_path / "a.csv"), library, SHAPE)


def test_histograms_of_magnesium_have_its_name_and_other_arrays_are_refused(magnesium, tmp_path):
    edges = magnesium.plane.edges
    arrays = {"counts": np.ones((64, 64), int), "edges_fe_h": edges[0], "sigma_fe": 0.1}
    path = tmp_path / "mg.npz"
    np.savez(path, **arrays, edges_mg_fe=edges[1], sigma_mg=0.04)
    halo = read_halo(path, magnesium, SHAPE)
    assert float(halo.batch.x[0, SIGMA_O]) == pytest.approx(0.04)
    assert not [n for n in halo.notes if "no e" in n]
    np.savez(path, **arrays, edges_mg_fe=edges[1] + 0.1)
    with pytest.raises(ObservationError, match="edges_o_fe runs from"):
        read_halo(path, magnesium, SHAPE)
    np.savez(path, **arrays)
    notes = " ".join(read_halo(path, magnesium, SHAPE).notes)
    assert "no edges_o_fe in the file" in notes
    assert "no error (sigma_o) in the file" in notes
    np.savez(path, **arrays, name="m31")
    assert "arrays not read: name" in read_halo(path, magnesium, SHAPE).notes
    np.savez(path, **arrays, sigma_si=0.04)
    with pytest.raises(ObservationError, match="array sigma_si is not known"):
        read_halo(path, magnesium, SHAPE)
