"""Locks: one holder, and those of the dead are taken over."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from sbi_core.errors import RunDirectoryError
from sbi_core.files.lock import LOCK, holders, locked


def plant(root, name=LOCK, age=0.0, **changes):
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": "then", "started": ""}
    (root / name).write_text(json.dumps({**who, **changes}))
    os.utime(root / name, (time.time() - age,) * 2)


def test_a_lock_is_held_and_given_back(tmp_path):
    with locked(tmp_path):
        assert len(holders(tmp_path)) == 1
        with pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()} on "):
            locked(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_an_error_gives_it_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_lives_is_respected(tmp_path):
    code = "import sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    plant(tmp_path, pid=child.pid)
    with pytest.raises(RunDirectoryError, match=f"process {child.pid}"):
        locked(tmp_path).__enter__()
    child.communicate(b"")
    with locked(tmp_path):  # it is gone
        pass


def test_a_process_of_the_same_number_that_started_later_is_another(tmp_path):
    plant(tmp_path, started="1")
    with locked(tmp_path):
        pass


def test_another_host_is_believed_as_long_as_it_touches_the_file(tmp_path):
    plant(tmp_path, host="elsewhere", age=60)
    with pytest.raises(RunDirectoryError, match="on elsewhere since then"):
        locked(tmp_path).__enter__()
    plant(tmp_path, host="elsewhere", age=3600)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": "x"}', "\x00" * 50])
def test_a_lock_that_cannot_be_read_is_stale(content, tmp_path):
    (tmp_path / LOCK).write_text(content)
    os.utime(tmp_path / LOCK, (time.time() - 60,) * 2)
    with locked(tmp_path):
        pass


def test_parts_exclude_themselves_and_the_whole(tmp_path):
    with locked(tmp_path, "a"):
        with locked(tmp_path, "b"):
            pass
        for part in ("a", ""):
            with pytest.raises(RunDirectoryError, match="in use"):
                locked(tmp_path, part).__enter__()
    with locked(tmp_path), pytest.raises(RunDirectoryError, match="in use"):
        locked(tmp_path, "a").__enter__()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot lock"):
        locked(tmp_path / "none").__enter__()
