"""One process at a time in a run directory.

The lock is that of the operating system on the file ``.lock`` (flock), which ends with its process,
also when that is killed. The file says who holds it and stays; removing it would let two
processes lock two files of one name.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sbi_core.errors import RunDirectoryError

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
_SWITCH = "SBI_FILE_LOCKS"
_PATIENCE = 1.0  # seconds: others hold a lock for a moment when they only look whether it is free


@contextmanager
def locked(root: Path, part: str = "") -> Iterator[None]:
    """Hold the lock of a directory, or of a named part of it.

    Parameters
    ----------
    root
        A directory that exists.
    part
        Empty: the whole directory, which excludes all parts. A part excludes only itself and the
        whole.

    Raises
    ------
    RunDirectoryError
        If another process holds the lock (the message names it), or the file system has no locks.
    """
    if os.environ.get(_SWITCH) == "off":
        yield
        return
    path = root / (f"{LOCK}-{part}" if part else LOCK)
    with _held(path):
        # The own lock first, then a look at the others: of two that exclude each other and do this
        # at the same time, at least one finds the lock of the other.
        for other in [root / LOCK] if part else sorted(root.glob(f"{LOCK}-*")):
            with _held(other):
                pass
        path.write_text(json.dumps(_owner()), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                path.write_text("", encoding="utf-8")


@contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = FileLock(path, timeout=_PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        msg = f"'{path.parent}' is in use by {_named(path)}; wait for it, or choose another --out"
        raise RunDirectoryError(msg) from None
    except OSError as error:
        msg = f"cannot lock '{path.parent}': {error.strerror or error}"
        if path.exists():
            msg += (
                "; if its file system has no locks, choose an --out on a local disk, or set "
                f"{_SWITCH}=off and run only one process there"
            )
        raise RunDirectoryError(msg) from None
    try:
        yield
    finally:
        lock.release()


def _owner() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _named(path: Path) -> str:
    """Return in words which process holds a lock."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
