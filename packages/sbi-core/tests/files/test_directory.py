"""Files that are whole or absent, and messages for those that are neither."""

import json
import os

import numpy as np
import pytest

from sbi_core.data.writing import atomic_write
from sbi_core.errors import RunDirectoryError
from sbi_core.files.directory import (
    RunDirectory,
    read_arrays,
    read_json,
    read_lines,
    sha256_of,
    write_json,
)


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as f:
        f.write("half")
        assert not path.exists()
        f.write(" and half")
    assert path.read_text() == "half and half"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path, "wb") as f:
            f.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_json_keeps_words_of_all_languages(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Müller α", "n": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"name": "Müller α", "n": [1, 2.5, None]}
    assert "Müller" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.json' is missing"),
        (b"{", "a.json' is damaged .*; restore it"),
        (b"\xff", "a.json' is damaged .*; restore it"),
    ],
)
def test_json_that_cannot_be_read_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=message):
        read_json(tmp_path / "a.json")


def test_a_run_without_run_toml_is_named(tmp_path):
    write_json(tmp_path / "provenance.json", {})
    with pytest.raises(RunDirectoryError, match=r"run.toml' is missing: .*; restore it from a cop"):
        RunDirectory(tmp_path).create()


def test_lines_and_arrays_come_back(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"epoch": 1}\n\n{"epoch": 2}\n')
    assert read_lines(tmp_path / "a.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("read", [read_lines, read_arrays])
@pytest.mark.parametrize("content", [None, b"\x80\x04{", b"PK\x03\x04"])
def test_lines_and_arrays_that_cannot_be_read_are_named(read, content, tmp_path):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(RunDirectoryError, match="a' is missing or damaged"):
        read(tmp_path / "a")


def test_arrays_of_objects_are_not_unpickled(tmp_path, hostile):
    np.savez(tmp_path / "a.npz", x=np.array([hostile], dtype=object))
    with pytest.raises(RunDirectoryError, match="a.npz' is missing or damaged"):
        read_arrays(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(__import__("pickle").dumps(hostile))
    with pytest.raises(RunDirectoryError, match="b.npz' is missing or damaged"):
        read_arrays(tmp_path / "b.npz")


def test_the_sum_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf")  # FIPS 180-2, appendix B.1


def test_a_new_directory_is_created_with_its_parents(tmp_path):
    directory = RunDirectory(tmp_path / "a" / "b")
    directory.create()
    assert list(directory.root.iterdir()) == []
    directory.create()  # an empty one is fine


def test_hidden_files_do_not_disturb(tmp_path):
    (tmp_path / ".DS_Store").touch()
    RunDirectory(tmp_path).create()


def test_files_and_folders_of_the_run_can_be_removed(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.sims.mkdir()
    (directory.sims / "part-000000.h5").touch()
    directory.summary.touch()
    directory.remove(directory.sims, directory.summary, directory.combined)
    assert list(tmp_path.iterdir()) == []


def test_a_link_out_of_the_run_is_not_followed_when_removing(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    run = tmp_path / "run"
    run.mkdir()
    (run / "sims").symlink_to(outside)
    with pytest.raises(RunDirectoryError, match="refusing to delete"):
        RunDirectory(run).remove(run / "sims")
    assert (outside / "precious").exists()


def test_json_of_a_run_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2]})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("\n")
    assert len(text.splitlines()) > 1
    assert json.loads(text) == {"x": [1, 2]}


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (os.mkfifo, "log.txt", "log.txt' is not a regular file; remove it"),
        (os.mkfifo, "sims/pack.h5", "pack.h5' is not a regular file; remove it"),
        (os.mkdir, "report.json", "report.json' is a folder where the run writes a file"),
    ],
)
def test_pipes_and_folders_in_place_of_files_are_refused(make, name, message, tmp_path):
    (tmp_path / "sims").mkdir()
    RunDirectory(tmp_path).refuse_links()
    make(tmp_path / name)
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory(tmp_path).refuse_links()
