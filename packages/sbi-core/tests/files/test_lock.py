"""Locks: one holder, and those of the dead are free."""

import errno
import os
import shutil
import subprocess
import sys
import time

import filelock
import pytest

from sbi_core.data.writing import write_atomic
from sbi_core.errors import RunDirectoryError
from sbi_core.files import lock
from sbi_core.files.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from sbi_core.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Takes the lock until it is told to stop; dies while it holds it for the n-th time.
CONTEND = """
import os, sys, time
from pathlib import Path
from sbi_core.errors import RunDirectoryError
from sbi_core.files import lock
lock._PATIENCE = 0.05
root, kills = Path(sys.argv[1]), int(sys.argv[2])
mark, stop, held = root / "inside", root / "stop", 0
while not stop.exists():
    try:
        with lock.locked(root):
            held += 1
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # fails if another one is inside
            time.sleep(0.002)
            mark.unlink()
            if held == kills:
                os.kill(os.getpid(), 9)
    except RunDirectoryError:
        pass
    except FileExistsError:
        sys.exit(7)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.05)


def lock_of_another(root, *before):
    child = subprocess.Popen(
        [*before, sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "held\n"
    return child


def test_a_lock_is_held_and_given_back(tmp_path):
    with locked(tmp_path):
        with pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()} on .* since"):
            locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == ""


def test_an_error_gives_it_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


def test_a_process_that_lives_is_respected_and_one_that_was_killed_is_not(tmp_path):
    child = lock_of_another(tmp_path)
    with pytest.raises(RunDirectoryError, match=f"process {child.pid} "):
        locked(tmp_path).__enter__()
    child.kill()
    child.communicate()
    assert (tmp_path / LOCK).read_text() != ""  # it could not tidy up
    with locked(tmp_path):
        pass


def test_two_processes_never_hold_it_together_whatever_dies(tmp_path):
    """Ends by the number of deaths, not by the clock: a busy machine is only slower."""
    command = [sys.executable, "-c", CONTEND, str(tmp_path)]
    codes = []
    running = [subprocess.Popen([*command, str(k)]) for k in (3, 5, 7, 0)]
    while len(codes) < 12 and set(codes) <= {-9}:  # those that died are replaced
        for k, child in enumerate(running):
            if child.poll() is not None:
                codes.append(child.returncode)
                running[k] = subprocess.Popen([*command, str(4 + k)])
        time.sleep(0.02)
    (tmp_path / "stop").touch()
    codes += [child.wait() for child in running]
    assert set(codes) <= {0, -9}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": "x"}', "\x00" * 50])
def test_a_record_that_cannot_be_read_does_not_matter(content, tmp_path):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(RunDirectoryError, match="in use by another process"):
            locked(tmp_path).__enter__()


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
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot lock '.*file': "):
        locked(tmp_path / "file").__enter__()


def test_a_file_system_without_locks_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    def fail(self):
        (tmp_path / LOCK).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "_acquire", fail)
    with pytest.raises(
        RunDirectoryError, match="a run directory .out. on a local disk, or set SBI_FILE_LOCKS="
    ):
        locked(tmp_path).__enter__()
    monkeypatch.setenv("SBI_FILE_LOCKS", "off")
    with locked(tmp_path):
        pass


def test_an_owner_that_lost_its_lock_writes_nothing_more(tmp_path):
    """Suspended, its lock file removed, and somebody else at work: the fence holds."""
    with locked(tmp_path) as hold:
        write_atomic(tmp_path / "mine", b"1")
        (tmp_path / LOCK).unlink()
        child = lock_of_another(tmp_path)
        assert not hold.valid
        with pytest.raises(RunDirectoryError, match=r"lost its lock on .* to process \d+ on "):
            write_atomic(tmp_path / "mine", b"2")
    assert (tmp_path / "mine").read_bytes() == b"1"
    assert "token" in (tmp_path / LOCK).read_text()  # that of the other one
    child.kill()
    child.communicate()
    write_atomic(tmp_path / "mine", b"3")  # without a lock there is no fence


def test_the_fence_holds_without_locks_of_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setenv("SBI_FILE_LOCKS", "off")
    with locked(tmp_path) as earlier, locked(tmp_path) as later:
        assert later.valid
        assert not earlier.valid
        with pytest.raises(RunDirectoryError, match="lost its lock"):
            write_atomic(tmp_path / "a", b"")


def test_a_lock_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(RunDirectoryError, match="'.lock' is a link"):
        locked(tmp_path / "run").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("part", ["", "shards-0-1"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_regular_file_is_refused(make, part, tmp_path):
    make(tmp_path / LOCK)
    with pytest.raises(RunDirectoryError, match="'.*.lock' is not a regular file; remove it"):
        locked(tmp_path, part).__enter__()


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urpf", "true"], check=False, capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="no user namespaces here",
)
def test_processes_of_another_container_are_respected(tmp_path):
    """Process numbers mean nothing there: the first process of a namespace has number 1."""
    child = lock_of_another(tmp_path, "unshare", "-Urpf", "--mount-proc")
    with pytest.raises(RunDirectoryError, match="in use by process 1 of another container on "):
        locked(tmp_path).__enter__()
    child.kill()
    child.communicate()
