"""Files that promise more than they hold, or than this machine does, are refused with numbers."""

import gzip
import io
import os
import zipfile

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from sbi_core.data import limits
from sbi_core.data.observations import Observations
from sbi_core.data.tables import read_table
from sbi_core.errors import ConfigError, DataFileError


def member(shape, dtype="<f8", data=b""):
    f = io.BytesIO()
    head = {"shape": shape, "fortran_order": False, "descr": dtype}
    np.lib.format.write_array_header_1_0(f, head)
    return f.getvalue() + data


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as f:
        for name, content in members.items():
            f.writestr(f"{name}.npy", content)
    return path


def test_memory_is_known():
    assert 2**20 < limits.available_memory() < 2**50


def test_sizes_are_words():
    assert limits.gib(3 * 2**30) == "3.0 GiB"
    assert limits.gib(2**19) == "0.5 MiB"


def test_what_exceeds_memory_or_disk_is_refused_with_numbers(tmp_path):
    limits.check_memory("a little", 1000, "")
    limits.check_disk("a little", 1000, tmp_path / "not" / "there", "")
    with pytest.raises(
        ConfigError, match=r"^it would take 9\d+.* GiB of memory, .* are free; less$"
    ):
        limits.check_memory("it", 1e18, "less")
    with pytest.raises(ConfigError, match=r"^it would take 9\d+.* GiB of disk, .* are free there"):
        limits.check_disk("it", 1e18, tmp_path, "less")


def test_honest_arrays_come_back(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(3), words=np.array(["a"]))
    found = limits.load_npz(tmp_path / "a.npz")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["words"].tolist() == ["a"]


def test_a_zip_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_SMALL", 2**20)
    zeros = bytes(2**23)
    path = write_zip(tmp_path / "bomb.npz", x=member((2**20,), data=zeros))
    with pytest.raises(DataFileError, match=r"would inflate from 0.0 MiB to 8.0 MiB"):
        limits.load_npz(path)


def test_a_header_that_promises_more_than_the_member_holds_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.npz", x=member((10**15,)))
    with pytest.raises(DataFileError, match=r"header of 'x.npy' promises \d+\.\d GiB"):
        limits.load_npz(path)


def test_objects_are_not_unpickled(tmp_path, hostile):
    np.savez(tmp_path / "a.npz", x=np.array([hostile], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        limits.load_npz(tmp_path / "a.npz")


def test_data_sets_that_promise_terabytes_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("x", (10**9, 1000), "f8", chunks=(1000, 1000))
    with pytest.raises(DataFileError, match=r"a.h5' \(0.0 MiB\) would take 7\d+.* GiB in memory"):
        limits.check_hdf5(tmp_path / "a.h5")
    for read in (read_table, Observations.read):
        with pytest.raises(DataFileError, match="a.h5"):
            read(tmp_path / "a.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as f:
        f["x"] = [1.0]
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = h5py.ExternalLink("secret.h5", "/x")
    with pytest.raises(DataFileError, match="'x' is a link to another file"):
        limits.check_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as f:
        f.create_dataset("x", (1,), "f8", external=[(str(tmp_path / "secret.h5"), 0, 8)])
    with pytest.raises(DataFileError, match="'x' keeps its data in other files"):
        limits.check_hdf5(tmp_path / "b.h5")


def test_a_fits_header_that_promises_more_rows_is_refused(tmp_path):
    Table({"a": np.arange(10.0)}).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="readonly") as hdus:
        head = hdus[1].header.tostring()
    content = (tmp_path / "a.fits").read_bytes()
    grown = head.replace("NAXIS2  =                   10", "NAXIS2  =        1000000000000")
    assert grown != head
    (tmp_path / "a.fits").write_bytes(content.replace(head.encode(), grown.encode()))
    with pytest.raises(
        DataFileError, match="promises 1000000000000 rows of 8 bytes, the file ends"
    ):
        limits.check_fits(tmp_path / "a.fits")
    with pytest.raises(DataFileError, match="a.fits"):
        read_table(tmp_path / "a.fits")


def test_a_gzip_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_SMALL", 2**20)
    with gzip.open(tmp_path / "a.fits.gz", "wb") as f:
        f.write(bytes(2**25))
    with pytest.raises(DataFileError, match="would inflate"):
        read_table(tmp_path / "a.fits.gz")
    (tmp_path / "b.fits.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    with pytest.raises(DataFileError, match="b.fits.gz"):
        read_table(tmp_path / "b.fits.gz")


def test_a_text_is_a_regular_file_with_or_without_a_mark(tmp_path):
    (tmp_path / "a.toml").write_text("x = 1\n", encoding="utf-8-sig")
    assert limits.read_text(tmp_path / "a.toml") == "x = 1\n"
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(DataFileError, match="is not a regular file"):
            limits.read_text(path)


@pytest.mark.parametrize(
    ("card", "value", "message"),
    [
        ("TFIELDS", 10**12, "promises 1000000000000 columns"),
        ("NAXIS1", 10**12, "promises 10 rows of 1000000000000 bytes"),
        ("PCOUNT", 10**12, "the file ends"),
        ("NAXIS", 10**6, "a.fits"),
        ("NAXIS2", -1, "a.fits"),
    ],
)
def test_nothing_is_built_from_a_fits_header_that_lies(card, value, message, tmp_path):
    """Building a table of 1e12 columns would fill the memory before it failed."""
    Table({"a": np.arange(10.0)}).write(tmp_path / "a.fits")
    raw = (tmp_path / "a.fits").read_bytes()
    at = raw.index(b"%-8s=" % card.encode(), 2880)
    (tmp_path / "a.fits").write_bytes(
        raw[: at + 10] + str(value).rjust(20).encode() + raw[at + 30 :]
    )
    with pytest.raises(DataFileError, match=message):
        read_table(tmp_path / "a.fits")


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a, b,a\n1,2,3\n")
    with pytest.raises(DataFileError, match="column 'a' appears 2 times; keep one"):
        read_table(tmp_path / "a.csv")
