"""One process at a time in a run directory.

The lock is a file made with ``O_EXCL``, which is atomic on local and on network file systems; it
says who holds it. The holder touches it every minute. A lock is stale when its process is gone (on
this host: no such process, or one that started at another time) or, on another host, when it was
not touched for a quarter of an hour; a stale lock is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbi_core.errors import RunDirectoryError

__all__ = ["LOCK", "holders", "locked"]

LOCK = ".lock"
_BEAT_SECONDS = 60.0
_STALE_SECONDS = 900.0


@contextlib.contextmanager
def locked(root: Path, part: str = "") -> Iterator[None]:
    """Hold the lock of a directory, or of a named part of it.

    Parameters
    ----------
    root
        A directory that exists.
    part
        Nothing: the whole directory, which excludes all parts. Parts exclude only themselves and
        the whole.

    Raises
    ------
    RunDirectoryError
        If another process that lives holds the lock; the message says which.
    """
    path = root / (f"{LOCK}-{part}" if part else LOCK)
    _refuse(root, part)
    content = json.dumps({**_self(), "token": secrets.token_hex(8)})
    _acquire(path, content, root)
    try:
        _refuse(root, part, mine=path)  # the whole and a part may have been locked at one moment
        with _beating(path):
            yield
    finally:
        if _text(path) == content:
            path.unlink(missing_ok=True)


def holders(root: Path) -> dict[Path, dict[str, Any]]:
    """Return the locks of a directory that are held by processes that live."""
    found = {}
    for path in root.glob(f"{LOCK}*"):
        who = _read(path)
        if who is not None and not _is_stale(path, who):
            found[path] = who
    return found


def _refuse(root: Path, part: str, mine: Path | None = None) -> None:
    for path, who in holders(root).items():
        if path == mine or (part and path.name not in (LOCK, f"{LOCK}-{part}")):
            continue
        msg = (
            f"'{root}' is in use by process {who['pid']} on {who['host']} since {who['since']}; "
            f"wait for it, or choose another --out (if it is gone for certain, delete "
            f"'{path.name}' there)"
        )
        raise RunDirectoryError(msg)


def _acquire(path: Path, content: str, root: Path) -> None:
    for _ in range(10):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            who = _read(path)
            if who is not None and not _is_stale(path, who):
                _refuse(root, "")
            if who is None and _age(path) < 1:  # made this moment, not yet written
                time.sleep(0.2)
                continue
            # renamed, not deleted: of two that find it stale, one only gets it away
            aside = path.with_name(f"{path.name}.stale-{secrets.token_hex(4)}")
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)
                aside.unlink(missing_ok=True)
        except OSError as error:
            msg = f"cannot lock '{root}': {error.strerror or error}"
            raise RunDirectoryError(msg) from None
        else:
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
            return
    msg = f"'{root}' is being taken by other processes; run the command again"
    raise RunDirectoryError(msg)


@contextlib.contextmanager
def _beating(path: Path) -> Iterator[None]:
    """Touch the lock once a minute, so that other hosts see that its holder lives."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, name="sbi-run lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _self() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _started(pid: int) -> str:
    """Return when a process started, in the system's own count; empty where it does not say.

    A process that has ended, but was not waited for, is ``"ended"``.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # from the third on; the name may hold blanks
    return "ended" if fields[0] in "ZX" else fields[19]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path) -> dict[str, Any] | None:
    try:
        who = json.loads(_text(path))
    except ValueError:
        return None
    if not isinstance(who, dict) or not isinstance(who.get("pid"), int):
        return None
    return {"host": "?", "started": "", "since": "?", **who}


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _is_stale(path: Path, who: dict[str, Any]) -> bool:
    if who["host"] != socket.gethostname():
        return _age(path) > _STALE_SECONDS
    try:
        os.kill(who["pid"], 0)
    except ProcessLookupError:
        return True
    except (OverflowError, OSError):  # someone else's process: alive
        pass
    now = _started(who["pid"])
    return bool(now and who["started"] and now != who["started"])
