"""Yield tables: validation, identity and files."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sbi_chempy.constants import AGB_RANGE_MSUN, ELEMENTS
from sbi_chempy.yields import (
    YieldRows,
    YieldSet,
    YieldTable,
    YieldTableError,
    read_yields,
    row_edges,
    write_yields,
)


@pytest.fixture
def rows() -> YieldRows:
    mass = np.array([1.0, 2.0, 5.0])
    remnant = np.array([0.6, 0.3, 0.2])
    yields = np.zeros((3, 9))
    yields[:, ELEMENTS.index("C")] = 0.01
    yields[:, ELEMENTS.index("H")] = -0.01
    return YieldRows.from_columns(mass, remnant, 1 - remnant, yields, AGB_RANGE_MSUN)


@pytest.fixture
def table(rows) -> YieldTable:
    return YieldTable("agb", "toy", np.array([0.001, 0.02]), (rows, rows), net=True)


def test_edges_are_midpoints_between_the_limits():
    edges = row_edges(np.array([1.0, 2.0, 5.0]), (1.0, 8.0))
    assert_array_equal(edges, [1.0, 1.5, 3.5, 8.0])


def test_rows_outside_the_range_are_dropped_and_the_rest_sorted():
    mass = np.array([5.0, 0.5, 2.0])
    column = np.full(3, 0.5)
    rows = YieldRows.from_columns(mass, column, column, np.zeros((3, 9)), (1.0, 8.0))
    assert_array_equal(rows.mass, [2.0, 5.0])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("remnant", np.array([0.6, 0.4, 0.2]), r"Z=0.02, row 1 \(2 Msun\): remnant \+ wind"),
        ("remnant", np.array([0.6, np.nan, 0.2]), "row 1: remnant is not finite"),
        ("remnant", np.array([-0.6, 0.3, 0.2]), "row 0: remnant is negative"),
        ("mass", np.array([1.0, 1.0, 5.0]), "row 1: masses are unsorted or duplicate"),
        ("mass", np.array([1.0, 5.0, 2.0]), "row 2: masses are unsorted or duplicate"),
        ("edges", np.array([0.5, 1.5, 3.5, 8.0]), "row 0: edges leave the range"),
        ("yields", np.zeros((3, 8)), "missing element"),
        ("wind", np.array([0.4, 0.7]), "columns differ in length"),
    ],
)
def test_errors_name_table_metallicity_and_row(table, rows, column, value, message):
    broken = replace(rows, **{column: value})
    with pytest.raises(YieldTableError, match=message) as error:
        replace(table, rows=(rows, broken))
    assert "'toy' (agb), Z=0.02" in str(error.value)


def test_gross_tables_count_the_yields(rows):
    gross = replace(
        rows, wind=np.zeros(3), yields=np.full((3, 9), 1.0) * (1 - rows.remnant)[:, None] / 9
    )
    YieldTable("agb", "toy", np.array([0.02]), (gross,), net=False)
    with pytest.raises(YieldTableError, match="remnant \\+ wind is"):
        YieldTable("agb", "toy", np.array([0.02]), (gross,), net=True)


def test_metallicities_must_ascend(table):
    with pytest.raises(YieldTableError, match="sorted and unique"):
        replace(table, metallicity=np.array([0.02, 0.001]))


def test_a_table_cannot_serve_another_channel(table, default_yields):
    with pytest.raises(YieldTableError, match="cannot be used as sn2"):
        YieldSet(default_yields.sn1a, table, default_yields.agb)


def test_hash_follows_the_numbers_only(table, rows):
    assert table.hash == replace(table, name="other", study="someone").hash
    changed = replace(rows, yields=rows.yields * 1.001)
    assert table.hash != replace(table, rows=(rows, changed)).hash


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_files_keep_numbers_and_provenance(tmp_path, default_yields, suffix):
    path = tmp_path / f"mine{suffix}"
    write_yields(path, sn1a=default_yields.sn1a, tables=[default_yields.sn2, default_yields.agb])
    again = YieldSet(**read_yields(path))
    assert again.hash == default_yields.hash
    assert again.agb.citation == default_yields.agb.citation
    assert again.sn2.source == default_yields.sn2.source


def test_elements_are_matched_by_name(tmp_path, table):
    path = tmp_path / "shuffled.npz"
    write_yields(path, tables=[table])
    content = dict(np.load(path))
    order = np.arange(9)[::-1]
    content["elements"] = content["elements"][order]
    for k in range(2):
        content[f"agb_{k}_yield"] = content[f"agb_{k}_yield"][:, order]
    np.savez(path, **content)
    assert read_yields(path)["agb"].hash == table.hash


def test_missing_element_or_array_is_named(tmp_path, table):
    path = tmp_path / "broken.npz"
    write_yields(path, tables=[table])
    content = dict(np.load(path))
    np.savez(path, **(content | {"elements": content["elements"][1:]}))
    with pytest.raises(YieldTableError, match="missing element C"):
        read_yields(path)
    del content["agb_1_wind"]
    np.savez(path, **content)
    with pytest.raises(YieldTableError, match="agb_1_wind"):
        read_yields(path)


def test_pickled_files_are_refused(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, elements=np.array(ELEMENTS, dtype=object))
    with pytest.raises(ValueError, match="nothing is unpickled"):
        read_yields(path)
