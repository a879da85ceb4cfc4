"""One process at a time in a run directory.

The lock is that of the operating system on the file ``.lock`` (flock, by the library filelock). It
ends with its process, also when that is killed, and does not depend on process numbers: processes
in containers and on other hosts of a shared file system exclude each other. The file says who holds
it and stays; removing it would let two processes lock two files of one name.

Whoever takes the lock writes a random token into the file. The token is the fence: before a file
gets its name in the directory, its writer checks that the token is still there. A process that lost
its lock (the file was removed, or a file system forgot the lock of a suspended host) cannot write.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sbi_core.data.writing import fenced
from sbi_core.errors import RunDirectoryError

__all__ = ["LOCK", "Hold", "locked"]

LOCK = ".lock"
_SWITCH = "SBI_FILE_LOCKS"
_PATIENCE = 1.0  # seconds: others hold a lock for a moment when they only look whether it is free


@dataclass(frozen=True, slots=True)
class Hold:
    """A lock that is held.

    Parameters
    ----------
    path
        The lock file, absolute.
    token
        What its holder wrote into it.
    """

    path: Path
    token: str

    @property
    def valid(self) -> bool:
        """Whether the lock file is in sight and still holds the token."""
        return bool(_record(self.path).get("token") == self.token)

    def check(self) -> None:
        """Raise RunDirectoryError when the lock was lost."""
        if not self.valid:
            msg = (
                f"this process lost its lock on '{self.path.parent}' to {_named(self.path)}; "
                "it writes nothing more"
            )
            raise RunDirectoryError(msg)


@contextmanager
def locked(root: Path, part: str = "") -> Iterator[Hold]:
    """Hold the lock of a directory, or of a named part of it, and fence it.

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
    path = root.resolve() / (f"{LOCK}-{part}" if part else LOCK)
    with _held(path):
        # The own lock first, then a look at the others: of two that exclude each other and do this
        # at the same time, at least one finds the lock of the other.
        for other in [path.with_name(LOCK)] if part else sorted(path.parent.glob(f"{LOCK}-*")):
            with _held(other):
                pass
        hold = Hold(path, secrets.token_hex(16))
        _write(path, json.dumps(_owner() | {"token": hold.token}))
        try:
            with fenced(hold):
                yield hold
        finally:
            with suppress(OSError):
                if hold.valid:
                    _write(path, "")


@contextmanager
def _held(path: Path) -> Iterator[None]:
    if path.exists() and not path.is_file() and not path.is_symlink():  # opening a pipe waits
        msg = f"'{path}' is not a regular file; remove it"
        raise RunDirectoryError(msg)
    if os.environ.get(_SWITCH) == "off":  # the fence remains
        yield
        return
    lock = FileLock(path, timeout=_PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        msg = (
            f"'{path.parent}' is in use by {_named(path)}; wait for it, or choose another run "
            "directory (out)"
        )
        raise RunDirectoryError(msg) from None
    except OSError as error:
        msg = f"cannot lock '{path.parent}': {error.strerror or error}"
        if path.is_symlink():
            msg = f"cannot lock '{path.parent}': '{path.name}' is a link; remove it"
        elif path.exists():
            msg += (
                "; if its file system has no locks, choose a run directory (out) on a local disk, "
                f"or set {_SWITCH}=off and run only one process there"
            )
        raise RunDirectoryError(msg) from None
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, content: str) -> None:
    """Write in place: the lock is on the file itself."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(opened, "w", encoding="utf-8") as f:
        f.write(content)


def _owner() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return owner | {"namespace": _namespace()}


def _namespace() -> str:
    """Return what process numbers refer to: each container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(path: Path) -> str:
    """Return in words which process holds a lock."""
    owner = _record(path)
    if not {"pid", "host", "since"} <= owner.keys():
        return "another process"
    where = "" if owner.get("namespace", "") in ("", _namespace()) else " of another container"
    return f"process {owner['pid']}{where} on {owner['host']} since {owner['since']}"
