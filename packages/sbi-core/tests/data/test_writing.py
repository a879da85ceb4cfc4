"""Files are whole, on the disk, and where they were meant to be; words do no harm."""

import csv
import os

import numpy as np
import pytest
from astropy.table import Table

from sbi_core.data import writing
from sbi_core.data.chunks import read_table
from sbi_core.errors import RunDirectoryError
from sbi_core.files.table_file import STREAMED, write_parts

IDS = ["#abc", "=1+1", "+x", "-y", "@z", "a\nb", "a\rb", "a\x00b", "\x1b[31m", "L" * 300, 'q"x',
       "c,x", "tab\tx", "ünï", "'q", "-12", "\x85", "\u2028x"]  # fmt: skip


def test_the_order_on_the_disk_is_file_then_name_then_folder(tmp_path, monkeypatch):
    """A power cut between any two steps leaves the old file or the new one."""
    steps = []
    replace, fsync = os.replace, os.fsync

    def syncing(opened):
        steps.append(os.readlink(f"/proc/self/fd/{opened}"))
        fsync(opened)

    def replacing(old, new):
        steps.append(f"{old} -> {new}")
        replace(old, new)

    monkeypatch.setattr(writing.os, "fsync", syncing)
    monkeypatch.setattr(writing.os, "replace", replacing)
    writing.write_atomic(tmp_path / "a.json", b"{}")
    temporary = steps[0]
    assert steps == [temporary, f"{temporary} -> {tmp_path / 'a.json'}", str(tmp_path)]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    for name in ("a.json", "a.json.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    writing.write_atomic(tmp_path / "a.json", b"{}")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "a.json").read_bytes() == b"{}"
    assert not (tmp_path / "a.json").is_symlink()


def test_a_failure_leaves_the_old_file_and_a_fence_that_fell_prevents_the_new_one(tmp_path):
    class Fence:
        valid = False

        def check(self):
            raise RunDirectoryError("lost")

    writing.write_atomic(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), writing.atomic_write(tmp_path / "a", "wb") as f:
        f.write(b"%d" % (1 // 0))
    with pytest.raises(RunDirectoryError, match="lost"), writing.fenced(Fence()):
        writing.write_atomic(tmp_path / "a", b"new")
    writing.write_atomic(tmp_path / "b", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old", "b": b"new"}


def test_only_our_own_leftovers_are_removed(tmp_path):
    ours = [".a.csv.tmp-0123456789abcdef.csv", ".landmark-" + "0" * 32]
    theirs = ["a.csv", ".a.csv", ".a.csv.tmp-notes", "a.csv.tmp-0123456789abcdef"]
    other = ".a.csv.h5.tmp-0123456789abcdef.h5"  # another process writes a.csv.h5 now
    for name in (*ours, *theirs, other):
        (tmp_path / name).touch()
    (tmp_path / ".b.tmp-0123456789abcdef").symlink_to(tmp_path / "a.csv")
    writing.remove_leftovers(tmp_path, "a.csv")
    assert not (tmp_path / ours[0]).exists()
    assert (tmp_path / other).exists()
    (tmp_path / ".[a]*.tmp-0123456789abcdef").touch()
    writing.remove_leftovers(tmp_path, "[a]*")
    assert not (tmp_path / ".[a]*.tmp-0123456789abcdef").exists()
    writing.remove_leftovers(tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {*theirs, ".b.tmp-0123456789abcdef"}


def test_a_private_file_stays_private(tmp_path):
    writing.write_atomic(tmp_path / "a", b"old")
    public = (tmp_path / "a").stat().st_mode & 0o777
    for mode in (0o600, 0o640, 0o400, 0o777):
        (tmp_path / "a").chmod(mode)
        writing.write_atomic(tmp_path / "a", b"new")
        assert (tmp_path / "a").stat().st_mode & 0o777 == (mode | 0o600) & public


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_a_formula_is_quoted_in_csv(sign):
    assert writing.harmless([f"{sign}SUM(1)"], ".csv")[0] == f"'{sign}SUM(1)"


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(FileExistsError, match="pipe"):
        writing.write_atomic(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", STREAMED)
def test_identifiers_survive_every_writer(suffix, tmp_path):
    def parts():
        for k in range(0, len(IDS), 7):
            words = np.array(IDS[k : k + 7])
            flags = np.array(["=HYPERLINK(1)" if i % 2 else "" for i in range(len(words))])
            yield Table({"id": words, "v": np.full(len(words), -1.2), "flags": flags})

    path = tmp_path / f"x{suffix}"
    write_parts(path, parts, len(IDS))
    table = read_table(path)
    got = [v.decode() if isinstance(v, bytes) else str(v) for v in table["id"]]
    exact = suffix in (".fits", ".h5", ".parquet")
    assert got == (IDS if exact else writing.harmless(np.array(IDS), suffix).tolist())
    assert len(set(got)) == len(IDS)
    assert table["v"].tolist() == [-1.2] * len(IDS)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_a_spreadsheet_finds_no_formula(suffix, delimiter, tmp_path):
    table = Table({"id": IDS, "v": np.full(len(IDS), -1.2), "n": ["-1.2"] * len(IDS)})
    write_parts(tmp_path / f"x{suffix}", lambda: iter([table]), len(IDS))
    with (tmp_path / f"x{suffix}").open(newline="") as f:
        rows = list(csv.reader(f, delimiter=delimiter))
    assert len(rows) == 1 + len(IDS)
    for row in rows:
        assert [c for c in row if c[:1] in tuple("=+-@") and c not in ("-1.2", "-12")] == []
    assert rows[1][1:] == ["-1.2", "-1.2"]


def test_a_folder_under_the_name_of_a_file_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "a.json").mkdir()
    with (
        pytest.raises(IsADirectoryError, match="a.json"),
        writing.atomic_write(tmp_path / "a.json"),
    ):
        pytest.fail("written")
