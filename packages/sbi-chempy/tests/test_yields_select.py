"""Yield sets by name, by channel and by path; published sets from the user's folder."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_chempy.yields import (
    RAW_SETS,
    YieldsNotFoundError,
    YieldTableError,
    load_yields,
    read_chempy_directory,
    write_yields,
)

HINT = "run `sbi-run data fetch chempy-yields`, or set SBI_DATA_DIR to a folder that holds them"


def test_default_needs_no_files_of_the_user(default_yields):
    assert load_yields().hash == default_yields.hash
    assert load_yields({}).hash == default_yields.hash


def test_names_may_be_combined():
    joined = load_yields("iwamoto99-wdd2+woosley95+karakas16")
    mapped = load_yields({"sn1a": "iwamoto99-wdd2", "sn2": "woosley95", "agb": "karakas16"})
    assert joined.hash == mapped.hash
    assert load_yields("woosley95").agb.name == "karakas10"


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("tgn", "tng"),
        ("woosley59", "woosley95"),
        ({"sn2": "nomoto13"}, "nomoto13-net"),
        ({"sn_2": "tng"}, "sn2"),
        ({"agb": "karakas11"}, "karakas10"),
    ],
)
def test_unknown_names_list_near_matches(spec, near):
    with pytest.raises(ValueError, match=near):
        load_yields(spec)


@pytest.mark.parametrize("spec", [*RAW_SETS, {"agb": "tng"}])
def test_absent_published_sets_say_how_to_get_them(tmp_path, spec):
    for folder in (None, tmp_path):
        with pytest.raises(YieldsNotFoundError) as error:
            load_yields(spec, folder)
        assert str(error.value).endswith(HINT)


def test_incomplete_raw_folder_names_the_missing_file(tmp_path):
    (tmp_path / "chempy-yields" / "TNG").mkdir(parents=True)
    with pytest.raises(YieldsNotFoundError, match="TNG/SNII.hdf5"):
        load_yields("tng", tmp_path)
    with pytest.raises(FileNotFoundError, match="incomplete, missing Thielemann2003/0.02.txt"):
        read_chempy_directory(tmp_path, "alternative")


def test_a_users_file_serves_one_channel(tmp_path, default_yields):
    path = tmp_path / "mine.npz"
    write_yields(path, tables=[default_yields.agb])
    assert load_yields({"agb": str(path)}).hash == default_yields.hash
    with pytest.raises(YieldTableError, match="no sn2 channel"):
        load_yields({"sn2": path})
    with pytest.raises(FileNotFoundError, match="no file"):
        load_yields({"agb": tmp_path / "absent.h5"})


def test_channels_of_published_sets_can_be_mixed(chempy_data):
    mixed = load_yields({"sn2": "alternative", "agb": "tng"}, chempy_data.parent)
    assert not mixed.sn2.net
    assert mixed.sn1a.name == "iwamoto99-w7"
    assert mixed.agb.hash == load_yields("tng", chempy_data.parent).agb.hash


@pytest.mark.parametrize("name", RAW_SETS)
def test_raw_directory_gives_the_tables_the_original_code_used(chempy_data, name):
    raw = read_chempy_directory(chempy_data / "raw", name)
    used = load_yields(name, chempy_data.parent)
    assert raw.sn1a.hash == used.sn1a.hash
    assert raw.sn2.hash == used.sn2.hash
    assert_allclose(raw.agb.metallicity, used.agb.metallicity)
    for got, want in zip(raw.agb.rows, used.agb.rows, strict=True):
        for column, value in got.arrays().items():
            # two initial compositions of Karakas 2016 are reconstructed
            assert_allclose(value, want.arrays()[column], atol=2e-6, err_msg=column)
    if name == "tng":
        assert raw.hash == used.hash


def test_raw_directory_is_found_in_the_data_folder(chempy_data, tmp_path):
    shutil.copytree(chempy_data / "raw" / "TNG", tmp_path / "chempy-yields" / "TNG")
    found = load_yields("tng", tmp_path)
    assert found.hash == load_yields("tng", chempy_data.parent).hash
    assert np.isclose(found.sn1a.total, 1.3743416)


def test_reconstruction_is_logged(chempy_data, caplog):
    with caplog.at_level("INFO", logger="sbi_chempy.yields.chempy_raw"):
        read_chempy_directory(chempy_data / "raw", "alternative")
    assert "reconstructed the initial composition of surf_z007.dat" in caplog.text
