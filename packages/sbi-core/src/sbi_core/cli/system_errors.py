"""Errors of the system that a user can mend: a full disk, a quota, missing rights.

Libraries wrap them (HDF5 keeps the number in its text only), so the whole chain of causes is read.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

import click

__all__ = ["explain"]

_AGAIN = "Finished files are whole: the same command goes on from here"
_WORDS = {
    errno.ENOSPC: f"the disk is full; free some space or use another --out. {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up; free some space or use another --out. {_AGAIN}",
    errno.EFBIG: f"the file is larger than this system allows; raise the limit. {_AGAIN}",
    errno.EROFS: "the disk can only be read; use another --out",
    errno.EACCES: "permission denied; check the rights of the file and of its folder",
    errno.EPERM: "the system does not permit it; check the rights of the file and of its folder",
    errno.EISDIR: "a folder has the name of the file to write; move it elsewhere",
    errno.EEXIST: "a pipe, a device or a file has the name to write; move it elsewhere",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: f"too many files are open; raise the limit (ulimit -n). {_AGAIN}",
    errno.EIO: f"the disk reports an input/output error; check it. {_AGAIN}",
}
_IN_TEXT = re.compile(r"errno\s*[=:]?\s*(\d+)", re.IGNORECASE)
_NAME_IN_TEXT = re.compile(r"(?:filename|name) = '([^']+)'")
_TEMPORARY = re.compile(r"\.tmp\w*$")


def explain(error: BaseException) -> str | None:
    """Return one sentence about the file and the cause, or None if it is another error."""
    if isinstance(error, OSError) and _while_printing(error):
        return f"cannot write to the standard output: {error.strerror}"
    name = ""
    for cause in _chain(error):
        if not isinstance(cause, OSError):
            continue
        text = str(cause)
        found = _IN_TEXT.search(text)
        number = cause.errno or (int(found[1]) if found else None)
        stated = _NAME_IN_TEXT.search(text)
        name = name or str(cause.filename or (stated[1] if stated else ""))
        if number in _WORDS:
            where = f"'{_TEMPORARY.sub('', name)}': " if name else ""
            return where + _WORDS[number]
    return None


def _while_printing(error: OSError) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is click.echo.__code__ for frame, _ in frames)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and what it was raised from or while handling, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
