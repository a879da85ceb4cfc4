"""Bounds on what a file or a run may ask of this machine, checked before anything is allocated.

A few bytes of a file can promise terabytes: a zip member that inflates a thousandfold, an HDF5
data set of which nothing is stored, a FITS header with a large NAXIS2. Sizes are compared with the
file and with the memory that is free; a refusal gives the numbers.
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.errors import ConfigError, DataFileError

__all__ = [
    "available_memory",
    "check_disk",
    "check_fits",
    "check_names",
    "check_gzip",
    "check_hdf5",
    "check_memory",
    "gib",
    "load_npz",
    "read_text",
]

_SHARE = 0.5  # of the free memory that one file may take
_SMALL = 2**28  # bytes: below this, no ratio is suspicious
_RATIO = 200  # times that honest data hardly ever shrink
_MOST_FIELDS = 999  # axes, and columns of a table, that FITS allows


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


def _refuse_size(path: str | Path, nbytes: float, stored: int) -> None:
    """Raise DataFileError when a file would need too much memory, or inflates suspiciously."""
    free = available_memory() * _SHARE
    if nbytes > free:
        msg = (
            f"'{path}' ({gib(stored)}) would take {gib(nbytes)} in memory, at most {gib(free)} are "
            "allowed on this machine; split it, or write it as FITS or HDF5 table, which are read "
            "in parts"
        )
        raise DataFileError(msg)
    if nbytes > _SMALL and nbytes > _RATIO * max(stored, 1):
        msg = (
            f"'{path}' would inflate from {gib(stored)} to {gib(nbytes)}, more than {_RATIO} "
            "times: such a file is refused; write the array uncompressed if it is genuine"
        )
        raise DataFileError(msg)


def load_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an npz file without unpickling anything and without inflating a bomb.

    Raises
    ------
    DataFileError
        If it would need too much memory, or a member is not what its header promises.
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error
        If it cannot be read.
    """
    path = Path(path)
    with zipfile.ZipFile(path) as members:
        total = sum(info.file_size for info in members.infolist())
        _refuse_size(path, total, path.stat().st_size)
        for info in members.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with members.open(info) as f:
                shape, _, dtype = _npy_header(f)
            promised = int(np.prod([int(s) for s in shape], dtype=object)) * dtype.itemsize
            if promised > info.file_size:
                msg = (
                    f"'{path}': the header of '{info.filename}' promises {gib(promised)}, the "
                    f"file holds {gib(info.file_size)}"
                )
                raise DataFileError(msg)
    with np.load(path, allow_pickle=False) as f:
        return {name: f[name] for name in f.files}


def _npy_header(f: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    from numpy.lib import format as npy

    version = npy.read_magic(f)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(f)
    if found[2].hasobject:
        msg = "Object arrays cannot be loaded: nothing in a file is unpickled"
        raise ValueError(msg)
    return found


def check_hdf5(path: str | Path) -> None:
    """Raise DataFileError when a data set promises more than memory, or links point elsewhere."""
    import h5py

    path = Path(path)
    stored = path.stat().st_size
    with h5py.File(path, "r") as f:
        total = 0
        for name in f:
            link = f.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                msg = f"'{path}': '{name}' is a link to another file, which is not followed"
                raise DataFileError(msg)
            node = f[name]
            if isinstance(node, h5py.Dataset):
                if node.external or node.is_virtual:
                    msg = f"'{path}': '{name}' keeps its data in other files; this is refused"
                    raise DataFileError(msg)
                total += int(np.prod(node.shape, dtype=object)) * node.dtype.itemsize
    _refuse_size(path, total, stored)


def check_fits(path: str | Path) -> None:
    """Raise DataFileError when a header promises more than the file has, or than FITS allows.

    Headers are read as text, one after the other; nothing is built from them.

    References:
        | FITS Standard 4.0 (Pence et al. 2010, A&A 524, A42), sections 4.4.1 and 7.3.1
    """
    from astropy.io.fits import Header

    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as f:
        k = 0
        while f.tell() < size:
            try:
                header = Header.fromfile(f, endcard=True)
                promised, words = _fits_bytes(header)
            except (EOFError, OSError, ValueError, TypeError, KeyError) as error:
                if k:  # what follows the extensions is not ours to read
                    return
                msg = f"'{path}' cannot be read as fits: {error}"
                raise DataFileError(msg) from None
            if int(header.get("TFIELDS", 0)) > _MOST_FIELDS:
                msg = f"'{path}': the header of extension {k} promises {header['TFIELDS']} columns"
                raise DataFileError(msg)
            if f.tell() + promised > size:
                msg = (
                    f"'{path}' is truncated or damaged: the header of extension {k} promises "
                    f"{words}, the file ends {gib(f.tell() + promised - size)} earlier"
                )
                raise DataFileError(msg)
            f.seek(f.tell() + -(-promised // 2880) * 2880)
            k += 1


def _fits_bytes(header: Any) -> tuple[int, str]:
    """Return the size of the data that a header announces, and how it says so."""
    axes = int(header["NAXIS"])
    if not 0 <= axes <= _MOST_FIELDS:
        msg = f"NAXIS = {axes}"
        raise ValueError(msg)
    shape = [int(header[f"NAXIS{i + 1}"]) for i in range(axes)]
    if min(shape, default=0) < 0:
        msg = f"negative size {shape}"
        raise ValueError(msg)
    if not shape:
        return 0, "nothing"
    groups = shape[0] == 0 and bool(header.get("GROUPS", False))
    pixels = int(np.prod(shape[1:] if groups else shape, dtype=object))
    extra, count = int(header.get("PCOUNT", 0)), int(header.get("GCOUNT", 1))
    total = abs(int(header["BITPIX"])) // 8 * max(count, 1) * (max(extra, 0) + pixels)
    if str(header.get("XTENSION", "")).strip() == "BINTABLE":
        return total, f"{shape[-1]} rows of {shape[0]} bytes"
    return total, f"an array of {' x '.join(map(str, shape))}"


def check_gzip(path: str | Path) -> None:
    """Raise DataFileError when a gzip file inflates beyond the memory."""
    path = Path(path)
    stored, total = path.stat().st_size, 0
    try:
        with gzip.open(path) as f:
            while block := f.read(2**24):
                total += len(block)
                if total > _SMALL:
                    _refuse_size(path, total, stored)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"'{path}' cannot be read as gzip: {error}"
        raise DataFileError(msg) from None


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises
    ------
    DataFileError
        If it is not a regular file: a pipe or a device may never end.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        msg = f"'{path}' is not a regular file"
        raise DataFileError(msg)
    return path.read_text(encoding="utf-8-sig")


def check_names(path: str | Path, delimiter: str) -> None:
    """Raise DataFileError when two columns of a text table have the same name.

    Readers would give the second one another name, and nobody would notice.
    """
    path = Path(path)
    with path.open(encoding="utf-8-sig", newline="") as f:
        names = next((row for row in csv.reader(f, delimiter=delimiter) if any(row)), [])
    seen = [n.strip() for n in names]
    twice = [n for n in dict.fromkeys(seen) if n and seen.count(n) > 1]
    if twice:
        msg = f"'{path}': column '{twice[0]}' appears {seen.count(twice[0])} times; keep one"
        raise DataFileError(msg)
