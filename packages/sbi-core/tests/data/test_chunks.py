"""A file read in chunks holds what it holds read whole."""

import gzip
import shutil

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack
from numpy.testing import assert_array_equal

from sbi_core.data.chunks import WholeTable, open_slices, read_table
from sbi_core.data.observations import FORMATS, Observations
from sbi_core.data.tables import ColumnReader
from sbi_core.errors import DataFileError

STREAMED = ["ecsv", "csv", "tsv", "fits", "h5", "parquet"]


@pytest.fixture
def table(rng):
    """Names that need quotes, missing values, integers, a unit."""
    n = 23
    names = [f"star {k}" for k in range(n)]
    names[11] = 'the "one", they say'
    found = Table({"id": names, "mass": rng.normal(size=n), "hits": np.arange(n)})
    found["mass"].unit = units.kpc
    found["gap"] = MaskedColumn(rng.normal(size=n), mask=np.arange(n) % 4 == 0)
    return found


def written(table, path):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table.write(
        path, format=FORMATS[path.suffix], **({"path": "t"} if path.suffix == ".h5" else {})
    )
    return path


def values(table, name):
    return ColumnReader(table, "").values(name, "kpc" if name == "mass" else "")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", STREAMED)
@pytest.mark.parametrize("rows", [1, 7, 23, 100])
def test_the_chunks_of_a_file_are_its_rows(suffix, rows, table, tmp_path):
    path = written(table, tmp_path / f"t.{suffix}")
    source = open_slices(path, rows)
    assert not isinstance(source, WholeTable)
    assert (source.n, len(source)) == (23, -(-23 // rows))
    whole, parts = read_table(path), [source.read(k) for k in range(len(source))]
    for name in ("mass", "hits", "gap"):
        assert_array_equal(np.concatenate([values(p, name) for p in parts]), values(whole, name))
    assert [str(v) for p in parts for v in p["id"]] == [str(v) for v in whole["id"]]
    again = open_slices(path, rows)
    assert_array_equal(again.read(len(source) - 1)["id"], parts[-1]["id"])  # without the others


def test_identifiers_have_one_type_in_all_chunks(tmp_path):
    """Read whole, they are words; a chunk of numbers alone must not lose its zeros."""
    path = tmp_path / "t.csv"
    path.write_text("id,a\n007,1\n008,2\nX9,3\n010,4\n")
    source = open_slices(path, 2)
    assert [str(v) for k in range(2) for v in source.read(k)["id"]] == ["007", "008", "X9", "010"]


def test_a_quoted_line_break_ends_no_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,a\n"x\ny",1\nz,2\n')
    source = open_slices(path, 1)
    assert source.n == 2
    assert source.read(1)["id"][0] == "z"


def test_observations_of_any_shape_are_sliced(toy, rng, tmp_path):
    toy.example_observations(rng, 9).write(tmp_path / "o.h5")
    whole = Observations.read(tmp_path / "o.h5")
    source = open_slices(tmp_path / "o.h5", 4)
    parts = [source.read(k) for k in range(3)]
    assert [i for p in parts for i in p.id] == whole.id.tolist()
    assert_array_equal(np.concatenate([p.batch.x for p in parts]), whole.batch.x)
    assert parts[0].observables == whole.observables
    assert parts[0].truth_names == whole.truth_names


def test_what_cannot_be_cut_is_read_whole(table, tmp_path):
    path = written(table, tmp_path / "t.fits")
    with path.open("rb") as f, gzip.open(tmp_path / "t.fits.gz", "wb") as g:
        shutil.copyfileobj(f, g)
    for name in ("t.vot", "t.fits.gz"):
        if name == "t.vot":
            written(table, tmp_path / name)
        source = open_slices(tmp_path / name, 10)
        assert isinstance(source, WholeTable)
        assert len(vstack([source.read(k) for k in range(3)])) == 23


@pytest.mark.parametrize("suffix", STREAMED)
def test_a_truncated_file_is_named(suffix, table, tmp_path):
    big = vstack([table] * 400, metadata_conflicts="silent")
    path = written(big, tmp_path / f"t.{suffix}")
    content = path.read_bytes()
    half = content[: len(content) // 2]
    path.write_bytes(half + (b'\n"' if suffix in ("csv", "tsv", "ecsv") else b""))
    with pytest.raises(DataFileError, match=f"t.{suffix}"):
        read_all(path)


def read_all(path):
    source = open_slices(path, 1000)
    return [source.read(k) for k in range(len(source))]


def test_units_that_fits_does_not_know_are_read_without_a_word(tmp_path, recwarn):
    path = tmp_path / "stars.fits"
    Table({"id": ["a", "b", "c"], "Fe_H": np.zeros(3)}).write(path)
    fits.setval(path, "TUNIT2", value="dex", ext=1)
    assert str(read_table(path)["Fe_H"].unit) == "dex"
    assert str(open_slices(path, 2).read(1)["Fe_H"].unit) == "dex"
    assert not recwarn.list
