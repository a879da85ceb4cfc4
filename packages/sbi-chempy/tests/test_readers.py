"""Reading stars: what is understood, and one sentence for every file that is not."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_chempy.constants import T_END_GYR
from sbi_chempy.parameters import observables
from sbi_chempy.readers import npz_table, stars_of
from sbi_core import DataFileError, ObservationError, read_table
from sbi_core.cli import main

NAMES = tuple(o.name for o in observables())  # c_fe fe_h he_fe mg_fe n_fe ne_fe o_fe si_fe


def good(n=5):
    rng = np.random.default_rng(3)
    table = Table({"id": [f"s{k}" for k in range(n)]})
    for name in NAMES:
        table[name] = rng.normal(0, 0.2, n)
        table[f"e_{name}"] = np.full(n, 0.05)
    return table


def put(table, tmp_path, name="stars.ecsv"):
    path = tmp_path / name
    table.write(path, overwrite=True)
    return path


def read(path, **options):
    table = npz_table(path) if path.suffix == ".npz" else read_table(path)
    options = {"default_error": 0.05, "ages": True, **options}
    return stars_of(table, str(path), observables(), **options)


# -- what is understood ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ecsv", ".csv", ".fits"])
def test_tables_give_abundances_in_the_order_of_the_simulator(suffix, tmp_path):
    table = good()
    got = read(put(table[list(reversed(table.colnames))], tmp_path, f"stars{suffix}"))
    assert got.id.tolist() == ["s0", "s1", "s2", "s3", "s4"]
    for k, name in enumerate(NAMES):
        assert_allclose(got.batch.x[:, k], table[name], rtol=1e-5)
    assert_array_equal(got.batch.context, np.zeros((5, 3)))
    assert got.notes == ()


def test_bracket_names_and_units_in_dex_are_understood(tmp_path):
    table = good()
    for name in NAMES:
        element, reference = (w.capitalize() for w in name.split("_"))
        table.rename_column(name, f"[{element}/{reference}]")
        table.rename_column(f"e_{name}", f"{name.upper()}_ERR")
        table[f"[{element}/{reference}]"].unit = "dex"
    assert_allclose(read(put(table, tmp_path)).batch.x[:, 3], good()["mg_fe"], rtol=1e-5)


def test_x_h_is_converted_with_fe_h(tmp_path):
    table = good()
    table["mg_h"] = np.asarray(table["mg_fe"]) + np.asarray(table["fe_h"])
    table["e_mg_h"] = 0.03
    table["e_fe_h"] = 0.04
    table.remove_columns(["mg_fe", "e_mg_fe"])
    got = read(put(table, tmp_path))
    assert_allclose(got.batch.x[:, 3], good()["mg_fe"], atol=1e-6)
    assert_allclose(got.batch.x_err[:, 3], 0.05, rtol=1e-5)  # 3, 4, 5
    assert got.notes == ("'mg_h' converted to [X/Fe] with 'fe_h'",)


def test_x_h_without_errors_takes_the_default(tmp_path):
    table = good()
    table["mg_h"] = 0.1
    table.remove_columns(["mg_fe", "e_mg_fe"])
    got = read(put(table, tmp_path), default_error=0.07)
    assert_allclose(got.batch.x_err[:, 3], 0.07, rtol=1e-6)
    assert any("0.07 assumed: mg_fe" in note for note in got.notes)


def test_x_h_is_missing_where_fe_h_is(tmp_path):
    table = good()
    table["mg_h"] = 0.1
    table["fe_h"][2] = np.nan
    table.remove_columns(["mg_fe", "e_mg_fe"])
    got = read(put(table, tmp_path))
    assert got.batch.observed[:, 3].tolist() == [True, True, False, True, True]


def test_x_fe_is_preferred_to_x_h(tmp_path):
    table = good()
    table["mg_h"] = 5.0
    assert_allclose(read(put(table, tmp_path)).batch.x[:, 3], table["mg_fe"], rtol=1e-5)


def test_elements_that_were_not_measured_are_missing(tmp_path):
    table = good()
    table["ne_fe"] = MaskedColumn(table["ne_fe"], mask=[True] + 4 * [False])
    table["c_fe"][3] = np.nan
    table.remove_columns(["he_fe", "e_he_fe"])
    got = read(put(table, tmp_path))
    observed = got.batch.observed.numpy()
    assert not observed[0, NAMES.index("ne_fe")]
    assert not observed[3, NAMES.index("c_fe")]
    assert not observed[:, NAMES.index("he_fe")].any()
    assert observed.sum() == 40 - 7
    assert np.isnan(got.batch.x.numpy()[~observed]).all()
    assert got.notes == ("not in the table, treated as unobserved: he_fe",)


def test_stars_without_errors_take_the_default_and_say_so(tmp_path):
    table = good()[["id", *NAMES]]
    got = read(put(table, tmp_path))
    assert_allclose(got.batch.x_err, 0.05, rtol=1e-6)
    assert got.notes[0].startswith("no errors given, 0.05 assumed: c_fe, fe_h")


def test_errors_outside_those_of_training_are_counted(tmp_path):
    table = good()
    table["e_o_fe"][[1, 2]] = 0.5
    table["e_o_fe"][3] = 0.001
    got = read(put(table, tmp_path))
    assert got.notes == (
        "1 error of abundances below 0.002 dex, the smallest of training: raised to 0.002",
        "2 stars with errors above the 0.3 dex of training: extrapolated",
    )
    assert_allclose(got.batch.x_err[:, NAMES.index("o_fe")], [0.05, 0.5, 0.5, 0.002, 0.05])


def test_groups_are_kept(tmp_path):
    table = good()
    table["galaxy"] = ["MW", "MW", "LMC", "LMC", "MW"]
    assert read(put(table, tmp_path)).group.tolist() == ["MW", "MW", "LMC", "LMC", "MW"]


# -- ages -----------------------------------------------------------------------------------------


def test_birth_times_are_used(tmp_path):
    table = good()
    table["t_birth"] = [1.0, 5.0, 10.0, np.nan, 13.0]
    table["t_birth"].unit = "Gyr"
    table["e_t_birth"] = 0.5
    got = read(put(table, tmp_path))
    want = [[1, 0.5, 1], [5, 0.5, 1], [10, 0.5, 1], [0, 0, 0], [13, 0.5, 1]]
    assert_allclose(got.batch.context, want)
    assert got.context_names == ("t_obs", "e_t_obs", "t_observed")
    assert "4 values of 't_birth' used as birth times" in got.notes


def test_ages_are_turned_into_birth_times(tmp_path):
    table = good()
    table["age"] = 4500.0
    table["age"].unit = "Myr"
    table["age_err"] = 1.0
    got = read(put(table, tmp_path))
    assert_allclose(got.batch.context[:, 0], T_END_GYR - 4.5, rtol=1e-6)
    assert_allclose(got.batch.context[:, 1], 1.0)


def test_ages_without_errors_have_twenty_percent_and_say_so(tmp_path):
    table = good()
    table["t_birth"] = 10.0
    got = read(put(table, tmp_path))
    assert_allclose(got.batch.context[:, 1], 2.0)
    assert "'t_birth' has no errors; 20 % of the birth time assumed" in got.notes


def test_ages_can_be_left_unused(tmp_path):
    table = good()
    table["t_birth"] = 10.0
    assert_array_equal(read(put(table, tmp_path), ages=False).batch.context, np.zeros((5, 3)))


# -- npz ------------------------------------------------------------------------------------------


def arrays(n=4):
    rng = np.random.default_rng(5)
    return {
        "abundances": rng.normal(0, 0.2, (n, 8)),
        "abundance_errs": np.full((n, 8), 0.05),
        "elements": np.array(["C", "Fe", "He", "Mg", "N", "Ne", "O", "Si"]),
        "obs_time": np.full(n, 6.0),
        "obs_time_err": np.full(n, 1.2),
    }


def test_the_npz_layout_of_the_mocks_is_understood(tmp_path):
    np.savez(tmp_path / "mock.npz", **arrays())
    got = read(tmp_path / "mock.npz")
    assert_allclose(got.batch.x, arrays()["abundances"], rtol=1e-5)
    assert_allclose(got.batch.context, [[6.0, 1.2, 1.0]] * 4, rtol=1e-6)


def test_elements_of_an_npz_may_come_in_any_order(tmp_path):
    data = arrays()
    order = [7, 0, 3, 1, 2, 5, 4, 6]
    for key in ("abundances", "abundance_errs"):
        data[key] = data[key][:, order]
    data["elements"] = data["elements"][order]
    np.savez(tmp_path / "mock.npz", **data)
    assert_allclose(read(tmp_path / "mock.npz").batch.x, arrays()["abundances"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": None}, r"lacks elements; its arrays are abundances"),
        ({"abundances": np.zeros((4, 7))}, r"abundances \(4, 7\), errors \(4, 8\) and 8 elements"),
        ({"abundances": np.zeros(4)}, r"abundances \(4,\)"),
        ({"abundances": np.zeros((0, 8)), "abundance_errs": np.zeros((0, 8))}, "has no rows"),
        ({"elements": np.array([str(k) for k in range(8)])}, "none of the columns c_fe"),
        ({"obs_time": np.zeros(3)}, "obs_time"),
        ({"abundances": np.array([["a"] * 8] * 4)}, "'abundances' does not hold numbers"),
    ],
)
def test_an_npz_of_another_layout_is_refused(change, message, tmp_path):
    data = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(tmp_path / "mock.npz", **data)
    with pytest.raises((ObservationError, DataFileError), match=message):
        read(tmp_path / "mock.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip file at all"])
def test_a_damaged_npz_is_refused(content, tmp_path):
    (tmp_path / "mock.npz").write_bytes(content)
    with pytest.raises(DataFileError, match=r"mock.npz' (is empty|cannot be read)"):
        read(tmp_path / "mock.npz")


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    trace = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    np.savez(tmp_path / "mock.npz", abundances=np.array([Hostile()], dtype=object))
    with pytest.raises(DataFileError, match="cannot be read"):
        read(tmp_path / "mock.npz")
    assert not trace.exists()


def test_the_published_mock_stars_are_read(chempy_data):
    got = read(chempy_data / "Mock_Data_TNG.npz")
    with np.load(chempy_data / "Mock_Data_TNG.npz", allow_pickle=False) as f:
        names = [str(e).lower() for e in f["elements"]]
        columns = [names.index(n.partition("_")[0]) for n in NAMES]
        assert_allclose(got.batch.x, f["abundances"][:, columns], rtol=1e-5, atol=1e-6)
    assert len(got) == 1000
    assert (got.batch.context[:, 2] == 1).all()


# -- the list of bad files: through the command line, nothing left behind ------------------------


def _csv(change):
    def make(path):
        table = good()
        change(table)
        table.write(path, overwrite=True)

    return make


def _set(column, rows, value):
    def change(table):
        table[column][rows] = value

    return _csv(change)


def _unit(column, unit):
    def change(table):
        table[column].unit = unit

    return _csv(change)


def _columns(*names):
    return lambda path: good()[list(names)].write(path)


def _linear(table):
    for name in NAMES:
        table[name] = 10 ** (np.asarray(table[name]) + 3.5)


def _only_mg_h(table):
    table["mg_h"] = 0.1
    table.remove_columns(["fe_h", "mg_fe", "e_mg_fe", "e_fe_h"])


BAD = {
    "missing": ("stars.ecsv", lambda path: None, "'{path}' does not exist"),
    "empty": ("stars.ecsv", lambda path: path.touch(), "'{path}' is empty"),
    "empty npz": ("stars.npz", lambda path: path.touch(), "'{path}' is empty"),
    "directory": ("stars.ecsv", lambda path: path.mkdir(), "'{path}' is a directory"),
    "unknown format": (
        "stars.docx",
        lambda path: path.write_text("x"),
        "unknown format '.docx' of '{path}'; known suffixes: .ecsv, .csv",
    ),
    "garbage": (
        "stars.fits",
        lambda path: path.write_bytes(b"garbage" * 99),
        "'{path}' cannot be read as fits: ",
    ),
    "no rows": ("stars.ecsv", lambda path: good()[:0].write(path), "'{path}' has no rows"),
    "no abundances": (
        "stars.csv",
        _columns("id"),
        "{path}: none of the columns c_fe, fe_h, he_fe, mg_fe, n_fe, ne_fe, o_fe, si_fe found; "
        "the file has id",
    ),
    "negative errors": (
        "stars.ecsv",
        _set("e_mg_fe", [1, 4], -0.05),
        "{path}: error column 'e_mg_fe' must be positive, but is -0.05 in row 1 (2 rows: 1, 4",
    ),
    "NaN errors": (
        "stars.ecsv",
        _set("e_o_fe", [2], np.nan),
        "{path}: error column 'e_o_fe' must be positive, but is nan in row 2",
    ),
    "infinite value": ("stars.ecsv", _set("o_fe", [2], np.inf), "{path}: 'o_fe' is inf in row 2"),
    "all missing": (
        "stars.ecsv",
        _csv(lambda t: [t.replace_column(n, np.full(5, np.nan)) for n in NAMES]),
        "{path}: nothing to infer: 5 rows cannot be inferred (nothing_observed)",
    ),
    "wrong unit": (
        "stars.ecsv",
        _unit("mg_fe", "km"),
        "{path}: column 'mg_fe' has unit 'km', expected 'dex'",
    ),
    "wrong unit of errors": (
        "stars.ecsv",
        _unit("e_mg_fe", "mag"),
        "{path}: column 'e_mg_fe' has unit 'mag', expected 'dex'",
    ),
    "duplicate ids": (
        "stars.ecsv",
        _set("id", [3], "s1"),
        "{path}: 1 row cannot be inferred (repeated_id): row 3; 's1' appears again in row 3",
    ),
    "linear abundances": (
        "stars.ecsv",
        _csv(_linear),
        "expected in dex relative to the Sun",
    ),
    "words": (
        "stars.csv",
        _csv(lambda t: t.replace_column("c_fe", ["0.1", "high", "0.2", "0.1", "0.3"])),
        "{path}: column 'c_fe' is not numeric ('high') in row 1",
    ),
    "[X/H] without [Fe/H]": (
        "stars.ecsv",
        _csv(_only_mg_h),
        "{path}: column 'mg_h' is [X/H], which needs a column 'fe_h' to become 'mg_fe'",
    ),
    "negative age errors": (
        "stars.ecsv",
        _csv(lambda t: t.add_columns([np.full(5, 3.0), np.full(5, -1.0)], names=["age", "e_age"])),
        "{path}: error of 'age' must be positive, but is -1 in row 0 (5 rows",
    ),
    "impossible ages": (
        "stars.ecsv",
        _csv(lambda t: t.add_column([3.0, 4500.0, 1, 1, 1], name="age")),
        "{path}: 'age' is 4500 Gyr in row 1 (1 row",
    ),
    "ages in another unit": (
        "stars.ecsv",
        _csv(lambda t: t.add_column(Table.Column([3.0] * 5, unit="kpc"), name="age")),
        "{path}: column 'age' has unit 'kpc', expected 'Gyr'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_costs_one_sentence_and_leaves_no_run(case, tmp_path, capsys):
    name, make, message = BAD[case]
    path = tmp_path / name
    make(path)
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as raised:
        main(["--plugin", "chempy", "--preset", "quick", "--observations", str(path), "--out",
              str(out), "--strict"])  # fmt: skip
    assert raised.value.code == 2
    err = capsys.readouterr().err.strip()
    assert message.format(path=path) in err
    assert err.startswith("sbi-run: ")
    assert "\n" not in err
    assert not out.exists()


def test_a_star_is_named_by_its_id_when_rows_were_left_out(tmp_path):
    table = good()
    for name in NAMES:
        table[name][0] = np.nan
    table["o_fe"][3] = 1000.0
    got = read(put(table, tmp_path))
    assert [(e.row, e.id) for e in got.excluded] == [(0, "s0"), (3, "s3")]
    assert got.excluded[1].reason == "impossible:o_fe"
    assert "'o_fe' is 1000 dex in row 3" in got.reasons[1]


@pytest.mark.parametrize(
    "name",
    ["CNAME", "_2MASS", "Gaia", "Gaia DR3", "GaiaEDR3", "dr3_source_id", "TYC", "kepid",
     "SimbadName", "starID", "recno", "Seq", "obsid", "specid", "uid"],
)  # fmt: skip
def test_stars_are_identified_under_the_names_of_catalogues(name, tmp_path):
    table = good()
    table.rename_column(table.colnames[0], name)
    table[name] = [f"{2**62 + k // 2}" for k in range(5)]
    path = tmp_path / "t.csv"
    table.write(path)
    got = read(path)
    assert got.id.tolist() == [f"{2**62 + k}" for k in range(3)]
    assert [e.reason for e in got.excluded] == ["repeated_id"] * 2


def test_a_mark_in_an_error_column_costs_one_value_and_marks_are_counted_once(tmp_path):
    table = good()
    table["e_mg_fe"][1] = -9.99
    table["mg_fe"][2:4] = -999, 99.9
    got = read(put(table, tmp_path))
    assert got.batch.observed[:, 3].tolist() == [True, False, False, False, True]
    marks = [note for note in got.notes if "at a mark" in note]
    assert marks == ["2 values of 'mg_fe' at a mark of missing values: treated as unobserved"]
