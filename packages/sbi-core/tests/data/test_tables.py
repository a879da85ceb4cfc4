"""Reading tables of objects: every format, and one sentence for every mistake."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.chunks import read_observations, read_table
from sbi_core.data.observations import Observable
from sbi_core.data.reading import Reading, normalise
from sbi_core.data.tables import ColumnReader, prepared
from sbi_core.errors import DataFileError, ObservationError

OBSERVABLES = (
    Observable("mg_fe", unit="dex", aliases=("alpha",)),
    Observable("flux", unit="Jy"),
)
FORMATS = (".ecsv", ".csv", ".tsv", ".fits", ".fits.gz", ".vot", ".xml", ".h5", ".hdf5")


def good(n=4):
    table = Table()
    table["id"] = [f"s{k}" for k in range(n)]
    table["mg_fe"] = np.linspace(0.1, 0.4, n)
    table["e_mg_fe"] = np.full(n, 0.05)
    table["flux"] = np.linspace(1, 2, n)
    table["flux_err"] = np.full(n, 0.1)
    table["group"] = ["a", "a", "b", "b"][:n]
    return table


def write(table, path):
    formats = {".tsv": "ascii.tab", ".vot": "votable", ".xml": "votable", ".h5": "hdf5"}
    name = formats.get(path.suffix)
    if path.suffix == ".hdf5":
        name = "hdf5"
    options = {"path": "stars"} if name == "hdf5" else {}
    table.write(path, format=name, overwrite=True, **options)
    return path


def read(table, tmp_path, suffix=".ecsv", **options):
    return read_observations(write(table, tmp_path / f"stars{suffix}"), OBSERVABLES, **options)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_objects(suffix, tmp_path):
    got = read(good(), tmp_path, suffix)
    assert got.id.tolist() == ["s0", "s1", "s2", "s3"]
    assert got.group.tolist() == ["a", "a", "b", "b"]
    assert_allclose(got.batch.x[:, 0], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert_allclose(got.batch.x_err, [[0.05, 0.1]] * 4, rtol=1e-6)
    assert got.batch.observed.all()
    assert got.notes == ()


def test_text_with_blanks_between_columns_is_read(tmp_path):
    path = tmp_path / "stars.txt"
    path.write_text("id mg_fe e_mg_fe flux flux_err\na 0.1 0.05 1 0.1\nb 0.2 0.05 2 0.1\n")
    assert_allclose(read_observations(path, OBSERVABLES).batch.x, [[0.1, 1], [0.2, 2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[Mg/Fe]", "mg_fe"),
        ("MG_FE", "mg_fe"),
        (" Mg Fe ", "mg_fe"),
        ("Mg-Fe", "mg_fe"),
        ("Mg/Fe", "mg_fe"),
    ],
)
def test_column_names_are_compared_after_normalisation(written, meant, tmp_path):
    assert normalise(written) == meant
    table = good()
    table.rename_column("mg_fe", written)
    table.rename_column("e_mg_fe", f"e_{written.strip()}")
    assert_allclose(read(table, tmp_path).batch.x_err[:, 0], 0.05, rtol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        "e_{}",
        "{}_err",
        "{}_ERROR",
        "{}_sigma",
        "err_{}",
        "sigma_{}",
        "E_{}",
        "{}_unc",
        "{}_sd",
        "delta_{}",
        "e{}",
    ],
)
def test_errors_are_found_under_the_usual_names(form, tmp_path):
    table = good()
    table.rename_column("e_mg_fe", form.format("mg_fe"))
    assert_allclose(read(table, tmp_path).batch.x_err[:, 0], 0.05, rtol=1e-6)


def test_an_alias_is_another_name(tmp_path):
    table = good()
    table.rename_column("mg_fe", "ALPHA")
    table.rename_column("e_mg_fe", "alpha_err")
    assert_allclose(read(table, tmp_path).batch.x_err[:, 0], 0.05, rtol=1e-6)


@pytest.mark.parametrize("column", ["object_id", "Star_ID", "APOGEE_ID", "name"])
def test_identifiers_are_found_under_the_usual_names(column, tmp_path):
    table = good()
    table.rename_column("id", column)
    assert read(table, tmp_path).id.tolist() == ["s0", "s1", "s2", "s3"]


def test_objects_without_identifiers_are_numbered_from_zero(tmp_path):
    table = good()
    table.remove_columns(["id", "group"])
    got = read(table, tmp_path)
    assert got.id.tolist() == ["0", "1", "2", "3"]
    assert got.group.tolist() == ["all"] * 4


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".vot"])
def test_masked_and_nan_values_are_not_observed(suffix, tmp_path):
    table = good()
    table["mg_fe"] = MaskedColumn(np.asarray(table["mg_fe"]), mask=[False, True, False, False])
    table["flux"][2] = np.nan
    got = read(table, tmp_path, suffix)
    assert_array_equal(got.batch.observed.numpy(), [[1, 1], [0, 1], [1, 0], [1, 1]])
    assert got.batch.x[1, 0].isnan()
    assert got.batch.x_err[2, 1].isnan()


def test_empty_cells_of_a_csv_are_not_observed(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text("mg_fe,e_mg_fe,flux,flux_err\n0.1,0.05,1,0.1\n,,2,0.1\n")
    assert_array_equal(read_observations(path, OBSERVABLES).batch.observed, [[1, 1], [0, 1]])


def test_an_error_of_an_unobserved_value_may_be_anything(tmp_path):
    table = good()
    table["flux"][1] = np.nan
    table["flux_err"][1] = -99.0
    assert not read(table, tmp_path).batch.observed[1, 1]


def test_units_are_converted(tmp_path):
    table = good()
    table["flux"].unit = "mJy"
    table["flux_err"].unit = "uJy"
    table["mg_fe"].unit = "dex"
    got = read(table, tmp_path)
    assert_allclose(got.batch.x[:, 1], np.asarray(good()["flux"]) * 1e-3, rtol=1e-6)
    assert_allclose(got.batch.x_err[:, 1], 0.1e-6, rtol=1e-6)


def test_rows_without_any_value_are_left_out_and_counted(tmp_path):
    table = good()
    table["mg_fe"][[0, 2]] = np.nan
    table["flux"][[0, 2]] = np.nan
    got = read(table, tmp_path)
    assert got.id.tolist() == ["s1", "s3"]
    assert got.reasons == ("2 rows cannot be inferred (nothing_observed): rows 0, 2",)
    assert got.rows.tolist() == [1, 3]


def test_a_missing_column_is_unobserved_and_said_so(tmp_path):
    table = good()
    table.remove_columns(["flux", "flux_err"])
    got = read(table, tmp_path)
    assert not got.batch.observed[:, 1].any()
    assert got.notes == ("not in the table, treated as unobserved: flux",)


def test_missing_errors_are_assumed_and_said_so(tmp_path):
    table = good()
    table.remove_column("e_mg_fe")
    got = read(table, tmp_path, default_error=0.07)
    assert_allclose(got.batch.x_err, [[0.07, 0.1]] * 4, rtol=1e-6)
    assert got.notes == ("no errors given, 0.07 assumed: mg_fe",)


def test_without_errors_and_without_default_there_are_none(tmp_path):
    table = good()
    table.remove_columns(["e_mg_fe", "flux_err"])
    assert read(table, tmp_path).batch.x_err is None


def test_errors_of_only_some_columns_are_not_dropped_in_silence(tmp_path):
    table = good()
    table.remove_column("e_mg_fe")
    with pytest.raises(ObservationError, match="mg_fe have no error column, but others have one"):
        read(table, tmp_path)


# -- mistakes -------------------------------------------------------------------------------------


def test_a_missing_file_lists_near_matches(tmp_path):
    write(good(), tmp_path / "stars.ecsv")
    with pytest.raises(DataFileError, match=r"does not exist; did you mean 'stars.ecsv'\?"):
        read_table(tmp_path / "star.ecsv")


@pytest.mark.parametrize("suffix", [*FORMATS, ".txt", ".parquet"])
def test_an_empty_file_is_called_empty(suffix, tmp_path):
    path = tmp_path / f"stars{suffix}"
    path.touch()
    with pytest.raises(DataFileError, match="stars.*is empty"):
        read_table(path)


@pytest.mark.parametrize("suffix", [".ecsv", ".csv", ".fits", ".vot", ".h5"])
def test_a_table_without_rows_is_refused(suffix, tmp_path):
    table = good()
    table["id"] = table["id"].astype("U4")
    with pytest.raises(DataFileError, match="has no rows"):
        read(table[:0], tmp_path, suffix)


@pytest.mark.parametrize("name", ["stars.docx", "stars", "stars.npy", "stars.pkl"])
def test_an_unknown_format_lists_the_known_ones(name, tmp_path):
    (tmp_path / name).write_text("x")
    with pytest.raises(DataFileError, match=r"unknown format.*known suffixes: .ecsv, .csv"):
        read_table(tmp_path / name)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="is a directory; pass one table file"):
        read_table(tmp_path)


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".fits.gz", ".vot", ".h5"])
def test_a_damaged_file_is_named_with_its_format(suffix, tmp_path):
    path = tmp_path / f"stars{suffix}"
    path.write_bytes(b"\x80\x04garbage" * 50)
    with pytest.raises(DataFileError, match=r"stars.* cannot be read as \w+") as raised:
        read_table(path)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_a_truncated_fits_file_is_refused(tmp_path):
    table = good()
    for k in range(300):
        table[f"extra{k}"] = 1.0
    path = write(table, tmp_path / "stars.fits")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataFileError, match="stars.fits"):
        read_table(path)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    path = write(good(), tmp_path / "stars.ecsv")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Table, "read", refuse)
    with pytest.raises(DataFileError, match="cannot be read as ascii.ecsv: .*Permission denied"):
        read_table(path)


def test_none_of_the_columns_found_lists_both_sides(tmp_path):
    table = Table({"ra": [1.0], "dec": [2.0]})
    with pytest.raises(ObservationError, match="none of the columns mg_fe, flux.*has ra, dec"):
        read(table, tmp_path)


def test_rows_all_empty_are_refused(tmp_path):
    table = good()
    table["mg_fe"] = np.nan
    table["flux"] = np.nan
    with pytest.raises(ObservationError, match="nothing to infer: 4 row"):
        read(table, tmp_path)


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.1, "-0.1"), (0.0, "0"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_bad_errors_are_named_with_column_row_and_value(value, shown, tmp_path):
    table = good()
    table["e_mg_fe"][[1, 3]] = value
    got = read(table, tmp_path)
    assert got.id.tolist() == ["s0", "s2"]
    assert {e.reason for e in got.excluded} == {"not_positive:e_mg_fe"}
    assert "(not_positive:e_mg_fe): rows 1, 3; error column 'e_mg_fe'" in got.reasons[0]
    with pytest.raises(ObservationError) as raised:
        read(table, tmp_path, strict=True)
    text = str(raised.value)
    assert f"error column 'e_mg_fe' must be positive, but is {shown} in row 1" in text
    assert "(2 rows: 1, 3; rows count from 0)" in text
    assert "stars.ecsv" in text


def test_an_infinite_value_is_named(tmp_path):
    table = good()
    table["flux"][2] = np.inf
    assert [(e.row, e.reason) for e in read(table, tmp_path).excluded] == [(2, "not_finite:flux")]
    with pytest.raises(ObservationError, match="'flux' is inf in row 2"):
        read(table, tmp_path, strict=True)


@pytest.mark.parametrize(
    ("column", "unit"), [("mg_fe", "km"), ("flux", "mag"), ("flux", "furlong")]
)
def test_a_wrong_unit_names_column_given_and_expected(column, unit, tmp_path):
    table = good()
    table[column].unit = unit
    expected = {"mg_fe": "dex", "flux": "Jy"}[column]
    message = f"column '{column}' has unit '{unit}', expected '{expected}'"
    with pytest.raises(ObservationError, match=message):
        read(table, tmp_path)


@pytest.mark.parametrize(("gap", "kept"), [(None, 1), (1, 2), (2, 1)])
def test_of_repeated_identifiers_the_first_complete_row_is_kept(gap, kept, tmp_path):
    table = good()
    table["id"] = ["s0", "s1", "s1", "s3"]
    if gap is not None:
        table["flux"][gap] = np.nan
    got = read(table, tmp_path)
    assert got.rows.tolist() == [0, kept, 3]
    assert [(e.row, e.id, e.reason) for e in got.excluded] == [(3 - kept, "s1", "repeated_id")]
    assert ("with more values, after" in got.excluded[0].detail) == (kept == 2)
    with pytest.raises(ObservationError, match=rf"1 row .*\(repeated_id\): row {3 - kept}.*'s1'"):
        read(table, tmp_path, strict=True)


def test_words_in_a_number_column_are_named(tmp_path):
    table = good()
    table["flux"] = ["1.0", "bright", "2.0", "3.0"]
    got = read(table, tmp_path, ".csv")
    assert [(e.row, e.reason) for e in got.excluded] == [(1, "not_a_number:flux")]
    with pytest.raises(ObservationError, match="column 'flux' is not numeric.*'bright'.* row 1"):
        read(table, tmp_path, ".csv", strict=True)
    table["flux"] = ["bright"] * 4
    with pytest.raises(ObservationError, match="nothing to infer.*column 'flux' is not numeric"):
        read(table, tmp_path, ".csv")


def test_several_values_per_row_are_refused(tmp_path):
    table = good()
    table["flux"] = np.ones((4, 3))
    with pytest.raises(ObservationError, match=r"column 'flux' has \(3,\) values per row"):
        read(table, tmp_path, ".fits")


def test_two_columns_that_mean_the_same_are_refused(tmp_path):
    table = good()
    table["[Mg/Fe]"] = 0.3
    with pytest.raises(ObservationError, match=r"columns 'mg_fe' and '\[Mg/Fe\]' are the same"):
        read(table, tmp_path)


def test_integer_columns_are_read_as_numbers():
    table = Table({"flux": np.array([1, 2], dtype=np.int16)})
    assert ColumnReader(table, "memory").values("flux").dtype == np.float64


@pytest.mark.parametrize("mark", ["\ufeff", "# ", "#"])
@pytest.mark.parametrize("first", ["mg_fe,id", "id,mg_fe"])
def test_a_mark_before_the_header_does_not_hide_the_first_column(mark, first, tmp_path):
    rows = {"mg_fe,id": "0.1,s1\n0.2,s2\n", "id,mg_fe": "s1,0.1\ns2,0.2\n"}[first]
    path = tmp_path / "stars.csv"
    path.write_text(f"{mark}{first}\n{rows}", encoding="utf-8")
    got = read_observations(path, OBSERVABLES, default_error=0.1)
    assert got.id.tolist() == ["s1", "s2"]
    assert_allclose(got.batch.x[:, 0], [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("form", ["l_{}", "ul_{}", "lim_{}", "{}_lim", "{}_ul", "{}_UpperLimit"])
@pytest.mark.parametrize("word", ["<", "≤", "U", "1", "True", "upper"])
def test_marks_of_limits_are_found_under_the_usual_names(form, word):
    table = Table({"x": [1.0, 2.0], form.format("x"): [word, ""]})
    reader = ColumnReader(table, "table")
    assert_array_equal(reader.values("x"), [np.nan, 2.0])
    assert reader.notes == ["1 limit of 'x': treated as unobserved"]


def test_a_mark_that_is_not_understood_is_named():
    reader = ColumnReader(Table({"x": [1.0, 2.0], "l_x": ["?!", "0"]}), "table")
    assert_array_equal(reader.values("x"), [1.0, 2.0])
    assert len(reader.notes) == 1
    assert "1 cell of 'l_x' not understood ('?!')" in reader.notes[0]


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        ("x_err_up", "x_err_lo"),
        ("x_errp", "x_errm"),
        ("e_x_high", "e_x_low"),
        ("e_x_up", "e_x_lo"),
        ("x_err_plus", "x_err_minus"),
        ("+e_x", "-e_x"),
        ("x_err_hi", "x_err_lo"),
        ("x_plus", "x_minus"),
    ],
)
def test_of_upper_and_lower_errors_the_mean_is_used_or_the_one_that_is_there(upper, lower):
    reader = ColumnReader(Table({"x": [1.0, 2.0], upper: [0.1, np.nan], lower: [-0.2, 0.3]}), "t")
    error = reader.find_error(("x",))
    assert error is not None
    assert_allclose(reader.values(error), [0.15, 0.3])
    assert reader.notes == [
        f"asymmetric errors '{upper}' and '{lower}': their mean is used",
        f"1 row with one of '{upper}' and '{lower}', which is used",
    ]


@pytest.mark.parametrize("name", ["sigma(x/y)", "err[x/y]"])
def test_errors_in_brackets_are_found(name):
    assert ColumnReader(Table({"x_y": [1.0], name: [0.1]}), "t").find_error(("x_y",)) == name


def test_of_two_columns_of_groups_the_one_not_used_is_named():
    reader = ColumnReader(Table({"cluster": ["a"], "galaxy": ["b"]}), "t")
    assert reader.groups() == ["b"]
    assert reader.notes == ["groups are those of 'galaxy'; 'cluster' is not used"]


def test_units_that_the_user_names_hold_for_one_column_or_those_without_one():
    table = Table({"a": [1.0], "MyB": [1.0], "c": [1.0]})
    table["c"].unit = "Gyr"
    reading = Reading({"b": "MyB"}, units={"": "Myr", "MyB": "kyr", "c": "s"})
    reader = ColumnReader(prepared(table, reading, "t"), "t")
    assert [reader.unit_of(c) for c in "abc"] == ["Myr", "kyr", "s"]
    assert [reader.values(c, "Myr")[0] for c in "ab"] == [1.0, pytest.approx(1e-3)]
    assert str(table["c"].unit) == "Gyr"
    with pytest.raises(ObservationError, match="no column 'MyD', whose unit is given"):
        ColumnReader(prepared(table, Reading(units={"MyD": "s"}), "t"), "t")
