"""Bounds on what a file or a run may ask of this machine, checked before anything is allocated.

The numbers are in one table, :class:`Limits`; ``SBI_LIMITS="expansion=1000,columns=50000"`` raises
them.
"""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

from sbi_core.errors import ConfigError, near_matches

__all__ = [
    "Limits",
    "available_memory",
    "check_disk",
    "check_memory",
    "gib",
    "limits",
]

_VARIABLE = "SBI_LIMITS"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what is read from files.

    Parameters
    ----------
    memory
        Share of the free memory that the content of one file, or of one chunk of its rows, may
        take.
    expansion
        Times that a file may grow when it is decompressed, above ``small``.
    small
        MiB below which no expansion is too large.
    columns
        Columns of a table.
    line
        Bytes of one line, or characters of one cell, of a table.
    objects
        Groups and data sets of an HDF5 file.
    toml
        Bytes of a configuration; a MiB takes a second to parse.
    """

    memory: float = 0.5
    expansion: float = 200
    small: float = 64
    columns: float = 10_000
    line: float = 2**20
    objects: float = 100_000
    toml: float = 2**20


def limits() -> Limits:
    """Return the limits, with those that ``SBI_LIMITS`` changes.

    Raises
    ------
    ConfigError
        If the variable is not ``name=number,...``.
    """
    known = [f.name for f in fields(Limits)]
    changed: dict[str, float] = {}
    for word in filter(None, os.environ.get(_VARIABLE, "").replace(" ", "").split(",")):
        name, _, number = word.partition("=")
        if name not in known:
            msg = f"{_VARIABLE}: unknown limit '{name}'{near_matches(name, known)}"
            raise ConfigError(f"{msg} (known: {', '.join(known)})")
        try:
            changed[name] = float(number)
        except ValueError:
            msg = f"{_VARIABLE}: '{word}' is not {name}=NUMBER"
            raise ConfigError(msg) from None
    return Limits(**changed)


def gib(nbytes: float) -> str:
    """Return a number of bytes in words: MiB below one GiB."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"


def available_memory() -> int:
    """Return the bytes of memory that are free, the limit of a container included."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {k: int(v.split()[0]) * 1024 for k, _, v in (x.partition(":") for x in lines)}
        free = found["MemAvailable"]
    except (OSError, KeyError, ValueError):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (ValueError, OSError, AttributeError):
            return 2**33
    try:
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        if most != "max":
            used = int((group / "memory.current").read_text(encoding="ascii"))
            free = min(free, max(int(most) - used, 0))
    except (OSError, ValueError):
        pass
    most_virtual = resource.getrlimit(resource.RLIMIT_AS)[0]  # ulimit -v
    if most_virtual != resource.RLIM_INFINITY:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        free = min(free, max(most_virtual - used * resource.getpagesize(), 0))
    return free


def check_memory(what: str, nbytes: float, advice: str) -> None:
    """Raise ConfigError with the numbers when something cannot fit into memory."""
    free = available_memory()
    if nbytes > free:
        msg = f"{what} would take {gib(nbytes)} of memory, {gib(free)} are free; {advice}"
        raise ConfigError(msg)


def check_disk(what: str, nbytes: float, folder: Path, advice: str) -> None:
    """Raise ConfigError with the numbers when something cannot fit onto the disk of a folder."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        msg = f"{what} would take {gib(nbytes)} of disk, {gib(free)} are free there; {advice}"
        raise ConfigError(msg)
