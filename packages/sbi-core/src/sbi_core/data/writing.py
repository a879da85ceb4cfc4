"""One way to write: a temporary name beside the target, fsync of file and folder, rename.

A file is under its name either old or new, and on the disk before anything that relies on it. The
temporary file is new and random in name, so that nothing is written through a link; a link under
the name of the target is replaced, not followed.

A process that holds a lock sets a fence (:func:`fenced`): every rename first checks that the lock
is still held.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np

__all__ = [
    "Fence",
    "atomic_write",
    "current_fences",
    "fenced",
    "harmless",
    "remove_leftovers",
    "safe_name",
    "safe_names",
    "sync",
    "write_atomic",
    "written",
]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_NUL = re.compile("\x00")
_FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20](?!(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$)")
_MARK = ".tmp-"
_LONGEST = 120  # bytes of a name; file systems allow 255
_LEFT = re.compile(r"^\..*\.tmp-[0-9a-f]{16}(\.\w+)*$|^\.landmark-[0-9a-f]{32}$")  # of 0.1.0, too


class Fence(Protocol):
    """A lock that may be lost; can be sent to workers."""

    @property
    def valid(self) -> bool:
        """Whether the lock is held, and its file in sight."""
        ...

    def check(self) -> None:
        """Raise when the lock was lost."""
        ...


_FENCES: list[tuple[int, Fence]] = []  # of this process, with the thread that took the lock


@contextlib.contextmanager
def fenced(*fences: Fence) -> Iterator[None]:
    """Check the fences before every write while the block runs."""
    own = [(threading.get_ident(), fence) for fence in fences]
    _FENCES.extend(own)
    try:
        yield
    finally:
        for pair in own:
            _FENCES.remove(pair)


def current_fences() -> tuple[Fence, ...]:
    """Return the fences of this thread, for its workers; those of the process if it has none."""
    held = tuple(_FENCES)
    thread = threading.get_ident()
    return tuple(f for t, f in held if t == thread) or tuple(f for _, f in held)


def safe_name(text: str) -> str:
    """Return a file name for an identifier: letters, digits and ``._+-``, the rest as ``_``."""
    name = re.sub(r"[^\w.+-]", "_", text).lstrip(".") or "_"
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 4]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def safe_names(texts: Iterable[str]) -> list[str]:
    """Return file names for identifiers, all different, also where letters have no case."""
    names: list[str] = []
    taken: set[str] = set()
    for text in texts:
        first = safe_name(text)
        tries = (first if k == 1 else f"{first}-{k}" for k in count(1))
        names.append(next(t for t in tries if t.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside a path; it gets that name when the block ended well.

    Raises
    ------
    OSError
        If it cannot be written.
    RunDirectoryError
        If a lock of this process was lost.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file() and not path.is_symlink():
        raise FileExistsError(errno.EEXIST, "a pipe or a device has this name", str(path))
    temporary = path.with_name(f".{path.name[:100]}{_MARK}{secrets.token_hex(8)}{path.suffix}")
    replaced = path.is_file() and not path.is_symlink()  # no more rights than the file before
    rights = path.stat().st_mode & 0o666 | 0o600 if replaced else 0o666
    new = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, rights)
    os.close(new)
    try:
        yield temporary
        sync(temporary)
        for fence in current_fences():
            fence.check()
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block ended well."""
    with written(path) as temporary:
        with temporary.open(mode, encoding="utf-8" if mode == "w" else None) as f:
            yield f


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file, in a new folder if need be; at any moment it is the old or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as f:
        f.write(content)


def sync(*paths: Path) -> None:
    """Flush files or folders to the disk."""
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def harmless(words: Any, suffix: str) -> Any:
    r"""Return words in the form in which a format holds them; other values as they are.

    Parameters
    ----------
    words
        A column: text is changed where it must be.
    suffix
        Of the file. Text formats and VOTable hold control characters as escapes (``\n``,
        ``\x1b``), HDF5 and netCDF only NUL. In CSV and TSV a word that begins with ``= + - @``,
        also of full width, and is no number gets an apostrophe in front: spreadsheets would
        execute it.
    """
    column = np.asarray(words)
    if column.dtype.kind not in "UO":
        return words
    control = _CONTROL if suffix in (".ecsv", ".csv", ".tsv", ".txt", ".dat", ".vot") else _NUL
    formula = _FORMULA if suffix in (".csv", ".tsv") else None
    text = column.tolist()
    plain = [control.sub(_escape, w) if isinstance(w, str) else w for w in text]
    if formula is not None:
        plain = [f"'{w}" if isinstance(w, str) and formula.match(w) else w for w in plain]
    return words if plain == text else np.asarray(plain, column.dtype.kind)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove the temporary files that a killed process left, of one target or of all.

    Call it only where no other process can write: under the lock.
    """
    start = f".{name[:100]}{_MARK}" if name else "."
    for path in folder.iterdir():
        if not path.name.startswith(start):
            continue
        if _LEFT.match(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
