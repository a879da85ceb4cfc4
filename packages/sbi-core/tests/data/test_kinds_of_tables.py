"""Each kind of table that strangers brought, as one test."""

import bz2
import gc
import gzip
import io
import lzma
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from astropy import units
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import open_slices, read_observations, read_table
from sbi_core.data.observations import Observable, Observations, text_of
from sbi_core.data.reading import Reading
from sbi_core.data.tables import ColumnReader, as_table, observations_from_columns, prepared
from sbi_core.errors import ConfigError, DataFileError, ObservationError
from sbi_core.pipeline.reading import objects_of, open_objects, read_objects

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from table_files import Plain

OBSERVABLES = (Observable("fe_h", unit="dex"),)


def put(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_text(text, encoding=encoding, newline="")
    return path


def both(source, **options):
    """Read whole and in parts of one row; both must agree."""
    reading = Reading(**options)
    whole = read_objects(Plain(), source, reading)
    parts = open_objects(Plain(), source, 1, reading)
    chunks = [objects_of(Plain(), parts, k) for k in range(len(parts))]
    assert [i for c in chunks for i in c.id] == whole.id.tolist()
    assert [g for c in chunks for g in c.group] == whole.group.tolist()
    assert_array_equal(np.concatenate([c.batch.x for c in chunks]), whole.batch.x)
    return whole


def of_table(table, **options):
    reader = ColumnReader(prepared(table, Reading(**options), "t"), "t")
    return observations_from_columns(reader, OBSERVABLES, default_error=0.1)


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize("ids", [["007", "7"], ["1E5", "1e5"], ["1.10", "1.1"], ["0x1", "1"]])
def test_identifiers_of_text_stay_as_they_are_written(name, ids, tmp_path):
    delimiter = {".csv": ",", ".tsv": "\t", ".txt": " "}[Path(name).suffix]
    rows = [["id", "group", "fe_h"], [ids[0], "01", "0.1"], [ids[1], "1.0", "0.2"]]
    got = both(put(tmp_path, "\n".join(map(delimiter.join, rows)) + "\n", name))
    assert got.id.tolist() == ids
    assert got.group.tolist() == ["01", "1.0"]


def test_a_column_that_the_user_calls_id_holds_words_too(tmp_path):
    got = both(put(tmp_path, "Nr,fe_h\n007,0.1\n7,0.2\n"), columns={"id": "Nr"})
    assert got.id.tolist() == ["007", "7"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_line_ends_of_every_system(name, end, tmp_path):
    delimiter = {".csv": ",", ".tsv": "\t", ".txt": " "}[Path(name).suffix]
    lines = [delimiter.join(row) for row in (["id", "fe_h"], ["a", "0.1"], ["b", "0.2"])]
    assert both(put(tmp_path, end.join(lines) + end, name)).id.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("\ufeffid,fe_h", ""),
        ("# id,fe_h", ""),
        ("# made by a survey\n# 2026, May\nid,fe_h", ""),
        ("#id,fe_h", "#5,0.3\n"),  # the header is a comment, an identifier looks like one
        ('"id","fe_h"', '"c ""d""",0.3\n'),
        ("id,fe_h", "# the end\n"),
        ("id,fe_h,", ""),
    ],
)
def test_headers_comments_and_quotes(head, rows, tmp_path):
    got = both(put(tmp_path, f"{head}\na,0.1\nb,0.2\n{rows}"))
    assert got.id.tolist()[:2] == ["a", "b"]
    assert_allclose(got.batch.x[:2, 1], [0.1, 0.2], rtol=1e-6)
    assert len(got) == 2 + ("0.3" in rows)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_separators_are_found(delimiter, tmp_path):
    text = "id,fe_h,e_fe_h\na,0.1,0.01\n".replace(",", delimiter)
    assert_allclose(both(put(tmp_path, text)).batch.x_err[0, 1], 0.01, rtol=1e-6)


def test_decimal_commas_are_points_where_semicolons_separate(tmp_path):
    got = both(put(tmp_path, "id;fe_h\n1,10;0,25\nb;-1,5\n"))
    assert got.id.tolist() == ["1,10", "b"]
    assert_allclose(got.batch.x[:, 1], [0.25, -1.5])
    assert "decimal commas are read as decimal points" in got.notes


@pytest.mark.parametrize("packed", [gzip, bz2, lzma])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "ecsv", "txt", "fits", "vot", "mrt"])
def test_compressed_files(packed, suffix, tmp_path):
    table = Table({"id": ["a", "b"], "fe_h": [0.1, 0.2]})
    form = {"txt": "ascii.basic", "vot": "votable", "fits": "fits", "tsv": "ascii.tab"}.get(suffix)
    table.write(tmp_path / f"t.{suffix}", format=form or f"ascii.{suffix}")
    path = tmp_path / f"t.{suffix}.{ {gzip: 'gz', bz2: 'bz2', lzma: 'xz'}[packed] }".replace(
        " ", ""
    )
    with packed.open(path, "wb") as f:
        f.write((tmp_path / f"t.{suffix}").read_bytes())
    assert both(path).id.tolist() == ["a", "b"]


def test_a_row_with_too_many_or_too_few_cells_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="row 'a,1,2' has more cells than the header"):
        read_table(put(tmp_path, "id,fe_h\na,1,2\n"))
    with pytest.raises(DataFileError, match=r"row 'b,.2' has fewer .* \(2 of 3; row 1, counted"):
        read_table(put(tmp_path, "id,e_fe_h,fe_h\na,.1,1\nb,.2\n"))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("t.tsv", "#Column\tid\n\nid\tfe_h\tage\n \t[Sun]\tMyr\n-\t-----\t---\n"),
        ("t.csv", "id,fe_h,age\n,dex,Myr\n"),
        ("t.txt", "id\tfe_h\tage\n \t[Sun]\tMyr\n---\t-----\t---\n"),
    ],
)
def test_lines_of_units_and_dashes_are_no_objects(name, head, tmp_path):
    delimiter = "," if name == "t.csv" else "\t"
    rows = "".join(delimiter.join([str(k), "-0.1", "2000"]) + "\n" for k in range(3))
    path = put(tmp_path, head + rows, name)
    assert both(path).id.tolist() == ["0", "1", "2"]
    reader = ColumnReader(read_table(path), "t")
    assert_allclose(reader.values("age", "Gyr"), 2)
    assert_allclose(reader.values("fe_h", "dex"), -0.1)


@pytest.mark.parametrize("row", ["m,,,", ",m,,x", "a,,0.1,", "--,--,--,--", ",,1.2D+01,3.45D-01"])
def test_a_first_row_that_is_an_object_is_no_line_of_units(row, tmp_path):
    path = put(tmp_path, f"id,kind,fe_h,other\n{row}\nb,m,0.1,0.2\n")
    assert len(read_table(path)) == 2


def test_files_of_text_are_closed(tmp_path, recwarn):
    both(put(tmp_path, "id,fe_h\na,0.1\n"))
    gc.collect()
    assert not [w for w in recwarn if w.category is ResourceWarning]


@pytest.mark.parametrize("form", ["ascii.ecsv", "ascii.tab", "ascii.csv"])
@pytest.mark.parametrize("ids", [["#5", "b"], ["# 5", "#"], ['#5"', "#a,b"]])
def test_words_that_begin_with_a_hash_are_rows_to_every_reader(form, ids):
    table = Table({"id": ids, "fe_h": [0.1, 0.2]})
    back = Table.read(text_of(table, form), format=form)
    assert [str(v) for v in back["id"]] == ids


@pytest.mark.parametrize("first", ["#5", "# 5"])
def test_rows_of_ecsv_that_begin_with_a_hash_are_read(first, tmp_path):
    text = io.StringIO()
    Table({"id": [first, "b"], "fe_h": [0.1, 0.2]}).write(text, format="ascii.ecsv")
    assert both(put(tmp_path, text.getvalue(), "t.ecsv")).id.tolist() == [first, "b"]


def test_observations_are_written_so_that_they_come_back(tmp_path):
    names = ["#1", "x" * 300, '5"', "a b"]
    one = Observations.from_batch(
        Batch.of_arrays(x=[[0.1]] * 4, x_err=[[0.1]] * 4), id=names, observables=OBSERVABLES
    )
    for suffix in ("ecsv", "csv", "tsv", "fits", "vot"):
        one.write(tmp_path / f"o.{suffix}")
        assert both(tmp_path / f"o.{suffix}").id.tolist() == names


# -- identifiers and groups ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "vot", "h5", "parquet"])
def test_missing_identifiers_and_groups_have_names_and_are_counted(suffix, tmp_path):
    mask = np.asarray([False, True, True, False])
    table = Table({"fe_h": np.arange(4.0) / 10})
    table["id"] = MaskedColumn(["a", "b", "c", "d"], mask=mask)
    table["group"] = MaskedColumn(["g", "g", "h", "h"], mask=mask[::-1])
    path = tmp_path / f"t.{suffix}"
    options = {"h5": {"path": "t", "serialize_meta": True}, "vot": {"format": "votable"}}
    table.write(path, **options.get(suffix, {}))
    got = both(path)
    assert got.id.tolist() == ["a", "row-1-without-id", "row-2-without-id", "d"]
    assert got.group.tolist() == ["g", "ungrouped", "ungrouped", "h"]
    assert "2 rows without identifier, called row-N-without-id" in got.notes
    assert any(note.startswith("2 rows without 'group'") for note in got.notes)


def test_rows_without_an_identifier_column_are_counted_through_the_file(tmp_path):
    assert both(put(tmp_path, "fe_h\n" + "0.1\n" * 5)).id.tolist() == ["0", "1", "2", "3", "4"]


def test_rows_with_all_values_of_another_are_noted():
    names = [f"{x}_fe" for x in "cnom"]
    columns = {n: [0.12, 0.12, 0.3] for n in names} | {f"e_{n}": [0.1] * 3 for n in names}
    observables = tuple(map(Observable, names))
    for n, count in ((3, 1), (1, 0)):
        reader = ColumnReader(Table(columns)[-n:], "t")
        notes = observations_from_columns(reader, observables).notes
        assert (
            sum(note.startswith("1 row with all values of another row") for note in notes) == count
        )


# -- columns and values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["__Fe_H_", "[Fe/H]", "FE_H", "Fe-H", " fe h ", "(Fe/H)", "_fe__h_"]
)
@pytest.mark.parametrize("error", ["e_{}", "{}_err", "E_{}", "{}_ERROR", "{}_std"])
def test_names_of_survey_tables(name, error):
    table = Table({name: [0.1], error.format(name.strip()): [0.02]})
    got = of_table(table)
    assert_allclose(got.batch.x_err, 0.02, rtol=1e-6)


@pytest.mark.parametrize(
    "pair", [("E_{}", "e_{}"), ("{}_err_up", "{}_err_low"), ("{}_err1", "{}_err2")]
)
def test_upper_and_lower_errors_are_averaged_and_said_so(pair):
    upper, lower = (form.format("fe_h") for form in pair)
    got = of_table(Table({"fe_h": [0.1, 0.2], upper: [0.1, 0.2], lower: [-0.3, -0.2]}))
    assert_allclose(got.batch.x_err[:, 0], [0.2, 0.2], rtol=1e-6)
    assert f"asymmetric errors '{upper}' and '{lower}': their mean is used" in got.notes


@pytest.mark.parametrize("unit", ["[Sun]", "[-]", "[---]", "---", "-", "", "dex(---)", "dex(Sun)"])
def test_units_that_mean_dex(unit):
    table = Table({"fe_h": [0.25]})
    table["fe_h"].unit = units.Unit(unit, parse_strict="silent") if unit else None
    assert of_table(table).batch.x[0, 0] == 0.25


@pytest.mark.parametrize(
    "mark", [-9999, -9999.99, -999.0, -99999, 1e20, np.float32(-1e30), np.float32(-9999.99)]
)
def test_marks_of_missing_values_are_missing_and_counted(mark):
    got = of_table(Table({"fe_h": np.asarray([0.1, mark, 0.3]), "e_fe_h": [0.1, mark, 0.1]}))
    assert got.rows.tolist() == [0, 2]
    assert got.excluded[0].reason == "nothing_observed"
    assert any(n.startswith("1 value of 'fe_h' at a mark") for n in got.notes)


def test_the_marks_are_an_option():
    table = Table({"fe_h": [0.1, 9.99, -9999.0]})
    assert of_table(table).rows.tolist() == [0, 1]
    assert of_table(table, missing=(9.99,)).rows.tolist() == [0, 2]
    assert of_table(table, missing=()).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("limit", ["<", ">"])
def test_limits_are_missing_and_counted(limit):
    flagged = of_table(Table({"fe_h": [0.1, 0.2], "l_fe_h": [limit, ""]}))
    in_cell = of_table(Table({"fe_h": [f"{limit}0.1", "0.2"]}))
    for got in (flagged, in_cell):
        assert got.rows.tolist() == [1]
        assert any(n.startswith("1 limit of 'fe_h'") for n in got.notes)


def test_words_for_missing_values_are_missing():
    words = ["N/A", "nan", "", "--", "null", "None", "<NA>", "...", "?", "*", "****", "INDEF"]
    words += ["#N/A", "masked", "nodata", "0.1"]
    got = of_table(Table({"id": words, "fe_h": words}))
    assert got.rows.tolist() == [15]
    assert got.reasons[0].startswith("15 rows cannot be inferred (nothing_observed)")
    same = of_table(Table({"id": words, "fe_h": np.full(len(words), 0.1)}))
    assert same.id.tolist() == [*(f"row-{k}-without-id" for k in range(15)), "0.1"]


@pytest.mark.parametrize("cell", ["\N{MINUS SIGN}0.2", "-2.0D-01", "-2d-1"])
def test_numbers_as_typesetters_and_fortran_write_them(cell, tmp_path):
    path = put(tmp_path, f"id,fe_h\na,{cell}\nb,0.1\n")
    assert_allclose(both(path).batch.x[:, 1], [-0.2, 0.1])


def test_one_value_per_row_may_have_an_axis_of_one():
    table = Table({"fe_h": np.asarray([[0.1], [0.2]]), "id": [["a"], ["b"]]})
    got = of_table(table)
    assert got.id.tolist() == ["a", "b"]
    assert_allclose(got.batch.x[:, 0], [0.1, 0.2], rtol=1e-6)


def test_formats_of_the_display_change_nothing():
    table = Table({"fe_h": [0.123456], "id": [12.0]})
    table["fe_h"].format, table["id"].format = ".1f", ".3e"
    got = of_table(table)
    assert_allclose(got.batch.x, 0.123456, rtol=1e-6)
    assert got.id.tolist() == ["12"]


# -- columns that the user names ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        (["e_met"], ["e_fe_h"]),
        (["met_err"], ["fe_h_err"]),
        (["E_met", "e_met"], ["E_fe_h", "e_fe_h"]),
        (["l_met"], ["l_fe_h"]),
        (["e_met", "e_fe_h"], ["e_fe_h"]),  # the error of the column that is not read goes with it
        (["e_other"], ["e_other"]),
    ],
)
def test_errors_and_limits_of_a_column_are_renamed_with_it(beside, expected):
    table = Table({"met": [1.0], "fe_h": [2.0], **{name: [0.1] for name in beside}})
    out = prepared(table, Reading({"fe_h": "met"}), "t")
    assert out.colnames == ["fe_h", *expected]
    assert out["fe_h"][0] == 1.0


def test_a_name_that_is_given_to_an_error_is_kept():
    table = Table({"met": [1.0], "e_met": [0.1], "sigma": [0.2]})
    out = prepared(table, Reading({"fe_h": "met", "e_fe_h": "sigma"}), "t")
    assert out["e_fe_h"][0] == 0.2
    assert out["e_met"][0] == 0.1


def test_columns_are_renamed_at_once():
    table = Table({"a": [1.0], "b": [2.0], "fe_h": [3.0]})
    out = prepared(table, Reading({"a": "b", "b": "a"}), "t")
    assert (out["a"][0], out["b"][0]) == (2.0, 1.0)
    assert prepared(table, Reading({"[Fe/H]": "a"}), "t").colnames == ["[Fe/H]", "b"]
    assert table.colnames == ["a", "b", "fe_h"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"fe_h": "x"}, "no column 'x'"),
        ({"fe_h": "a", "m_h": "a"}, "column 'a' is read as both 'fe_h' and 'm_h'"),
        ({"fe_h": "a", "[Fe/H]": "b"}, "'a' and 'b' are both read as 'fe_h'"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns, message):
    with pytest.raises(ObservationError, match=message):
        prepared(Table({"a": [1.0], "b": [2.0]}), Reading(columns), "t")


# -- tables in memory ---------------------------------------------------------------------------

FRAME = pd.DataFrame({"id": ["a", "b", "c"], "fe_h": [0.1, 0.2, None]})
IN_MEMORY = {
    "Table": Table({"id": ["a", "b"], "fe_h": [0.1, 0.2]}),
    "Row": Table({"id": ["a"], "fe_h": [0.1]})[0],
    "QTable": QTable({"id": ["a", "b"], "fe_h": [0.1, 0.2] * units.dimensionless_unscaled}),
    "DataFrame": FRAME,
    "index": FRAME.set_index("id"),
    "nullable": FRAME.convert_dtypes(),
    "categories": FRAME.astype({"id": "category"}),
    "numbers as words": FRAME.astype({"fe_h": "string"}),
    "objects": pd.DataFrame({"id": ["a", "b"], "fe_h": ["0.1", 0.2]}, dtype=object),
    "dict": {"id": ["a", "b", "c"], "fe_h": [0.1, 0.2, None]},
    "arrays": {"id": np.asarray(["a", "b"]), "fe_h": np.ma.masked_invalid([0.1, 0.2])},
    "single values": {"id": "a", "fe_h": 0.1},
    "single group": {"id": ["a", "b"], "fe_h": [0.1, 0.2], "group": "M67"},
    "records": np.asarray([("a", 0.1), ("b", 0.2)], [("id", "U1"), ("fe_h", float)]),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_tables_in_memory(kind):
    got = read_objects(Plain(), IN_MEMORY[kind])
    n = 1 if kind in ("Row", "single values") else 2
    assert got.id.tolist() == ["a", "b"][:n]
    assert_allclose(got.batch.x[:, 1], [0.1, 0.2][:n], rtol=1e-6)


def test_integers_with_nulls_keep_all_digits():
    frame = pd.DataFrame({"source_id": [2**62 + 1, None], "fe_h": [0.1, 0.2]}).astype(
        {"source_id": "Int64"}
    )
    frame.loc[0, "source_id"] = 2**62 + 1
    assert read_objects(Plain(), frame).id.tolist() == [str(2**62 + 1), "row-1-without-id"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"id": ["a"], "fe_h": [0.1, 0.2, 0.3], "x": [1, 2]},
            "columns differ in length: id 1, fe_h 3",
        ),
        ({"fe_h": [0.1, 0.2], "x": [0.3]}, "columns differ in length: fe_h 2, x 1"),
        ({}, "no rows"),
        (Table({"fe_h": np.empty(0)}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column 'a' appears more than once"),
    ],
)
def test_a_table_in_memory_that_is_none_is_refused_in_one_sentence(table, message):
    with pytest.raises(ObservationError, match=message):
        read_objects(Plain(), table)


def test_what_is_no_table_is_refused_in_one_sentence():
    for source in (3, None, object()):
        assert as_table(source) is None
        with pytest.raises(ConfigError, match="observations must be a file name, a table"):
            read_objects(Plain(), source)


def test_an_array_has_a_column_per_observable():
    names = [o.name for o in Plain.observables]
    rows = np.arange(2.0 * len(names)).reshape(2, -1)
    for source in (rows, rows.tolist(), torch.as_tensor(rows)):
        np.testing.assert_allclose(read_objects(Plain(), source).batch.x, rows)
    row = pd.Series(rows[1], index=names)
    for source in (rows[1], rows[1].tolist(), row, row[::-1]):
        np.testing.assert_allclose(read_objects(Plain(), source).batch.x, rows[1:])
    for source in ([0.1], pd.Series([1.0]), rows[:, :1]):
        with pytest.raises(ObservationError, match="'plain' reads"):
            read_objects(Plain(), source)


def test_the_table_of_the_user_is_not_changed():
    table = Table({"fe_h": [0.1], "E_fe_h": [0.1], "e_fe_h": [0.2]})
    read_objects(Plain(), table, Reading({"mg_fe": "fe_h"}))
    assert table.colnames == ["fe_h", "E_fe_h", "e_fe_h"]
    assert not table.meta


# -- strict -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a,word,0.1", "not_a_number:fe_h"),
        ("a,inf,0.1", "not_finite:fe_h"),
        ("a,1e39,0.1", "not_finite:fe_h"),
        ("a,0.1,0", "not_positive:e_fe_h"),
        ("a,0.1,", "not_positive:e_fe_h"),
        ("a,,0.1", "nothing_observed"),
        ("b,0.1,0.1", "repeated_id"),
    ],
)
def test_a_bad_row_is_left_out_with_its_reason_or_refused(rows, reason, tmp_path):
    path = put(tmp_path, f"id,fe_h,e_fe_h\nb,0.2,0.1\n{rows}\nc,0.3,0.1\n")
    got = read_objects(Plain(), path)
    assert got.id.tolist() == ["b", "c"]
    assert [(e.row, e.reason) for e in got.excluded] == [(1, reason)]
    for source in (path, read_table(path)):
        with pytest.raises(ObservationError, match="1 row") as raised:
            read_objects(Plain(), source, Reading(strict=True))
        assert "\n" not in str(raised.value)
    with pytest.raises(ObservationError, match="1 row"):
        objects_of(Plain(), open_slices(path, 10, Reading(strict=True)), 0)


def test_a_file_with_several_tables_says_which_one_is_read(tmp_path):
    one, two = Table({"id": ["a"], "fe_h": [0.1]}), Table({"id": ["b"], "fe_h": [0.2]})
    hdus = [fits.PrimaryHDU(), fits.table_to_hdu(one), fits.table_to_hdu(two)]
    hdus[2].name = "OTHER"
    fits.HDUList(hdus).writeto(tmp_path / "t.fits")
    with h5py.File(tmp_path / "t.h5", "w") as f:
        f["b/x"], f["c"] = one.as_array().astype("S1,f8"), np.zeros(1)
        f["a"] = one.as_array().astype([("id", "S1"), ("fe_h", "f8")])
    note = r"the file has 2 tables \({}\): '{}' is read; .*\('{}', {}\)\.write\('other\.fits'\)"
    for name, tables, first, option in (
        ("t.fits", "1, OTHER", "1", "hdu=2"),
        ("t.h5", "a, b/x", "a", "path='b/x'"),
    ):
        got = both(tmp_path / name)
        assert got.id.tolist() == ["a"]
        pattern = note.format(tables, first, name, option)
        assert sum(bool(re.match(pattern, n)) for n in got.notes) == 1, got.notes


def test_a_table_in_a_group_is_read_and_single_columns_are_explained(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as f:
        f["group/stars"] = np.asarray([(b"a", 0.1)], [("id", "S1"), ("fe_h", "f8")])
    assert both(tmp_path / "t.h5").id.tolist() == ["a"]
    with h5py.File(tmp_path / "c.h5", "w") as f:
        f["id"], f["fe_h"] = np.asarray([b"a"]), np.zeros(1)
    with pytest.raises(DataFileError, match="has no table, but fe_h, id; columns that are data"):
        read_table(tmp_path / "c.h5")


def test_a_name_that_is_made_up_is_nobody_elses():
    got = of_table(Table({"id": ["row-2", "row-1", ""], "fe_h": [0.1, 0.2, 0.3]}))
    assert got.id.tolist() == ["row-2", "row-1", "row-2-without-id"]


@pytest.mark.parametrize("ids", [[4295806720.0 * 2**30, 1.0], ["4.61168601e+18", "4.61168602e+18"]])
def test_identifiers_that_lost_digits_are_refused(ids):
    with pytest.raises(ObservationError, match="'source_id' holds identifiers that lost digits"):
        of_table(Table({"source_id": ids, "fe_h": [0.1, 0.2]}))


def test_whole_numbers_keep_all_digits_under_any_name(tmp_path):
    digits = "9223372036854775808"
    table = read_table(put(tmp_path, f"other,fe_h\n{digits},0.1\n"))
    assert table["other"][0] == digits


def test_an_index_of_words_names_the_objects():
    frame = pd.DataFrame({"fe_h": [0.1, 0.2]}, index=["a", "b"])
    assert read_objects(Plain(), frame).id.tolist() == ["a", "b"]
    numbered = frame.reset_index(drop=True)
    assert read_objects(Plain(), numbered).id.tolist() == ["0", "1"]


def test_bytes_after_the_last_table_are_ignored(tmp_path, recwarn):
    Table({"id": ["a"], "fe_h": [0.1]}).write(tmp_path / "t.fits")
    with (tmp_path / "t.fits").open("ab") as f:
        f.write(b"x" * 2880)
    assert both(tmp_path / "t.fits").id.tolist() == ["a"]
    assert not [w for w in recwarn if "HDU" in str(w.message)]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_in_another_encoding_is_explained(encoding, tmp_path):
    for name in ("t.csv", "t.txt"):
        with pytest.raises(DataFileError, match="it is not text in UTF-8; save it as UTF-8"):
            read_table(put(tmp_path, "id,fe_h\n\u00c9,0.1\n", name, encoding))


def test_the_last_comment_may_be_the_header_of_free_text(tmp_path):
    path = put(tmp_path, "# mine\n# 2024\n#id fe_h\n007 0.1\n7 0.2\n", "t.txt")
    assert both(path).id.tolist() == ["007", "7"]


@pytest.mark.parametrize(
    "text",
    ["star   fe_h  age\nHD 1   -0.10  4.5\nHD 2          5.5\n"]
    + [f"id{d}e_fe_h{d}fe_h\na{d}.1{d}1\nb{d}.2\n" for d in ",;\t| "],
)
def test_free_text_without_a_layout_gets_advice(text, tmp_path):
    with pytest.raises(DataFileError, match="no columns can be told apart; do all rows have"):
        read_table(put(tmp_path, text, "t.txt"))


def test_observations_are_read_from_a_table_in_memory():
    table = QTable({"id": ["a"], "fe_h": [0.1], "e_fe_h": [0.1]})
    assert read_observations(table, OBSERVABLES).id.tolist() == ["a"]
