"""Bounds on what a file or a run may ask of this machine, checked before anything is allocated.

A few bytes of a file can promise terabytes: a zip member that inflates a thousandfold, an HDF5
data set of which nothing is stored, a FITS header with a large NAXIS2. Sizes are compared with the
file and with the memory that is free; a refusal gives the numbers.
"""

from __future__ import annotations

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
_LARGEST_TEXT = 2**24  # bytes of a configuration or record that people or we write


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
    """Raise DataFileError when a header promises more bytes than the file has."""
    from astropy.io import fits

    path = Path(path)
    size = path.stat().st_size
    with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
        for k, hdu in enumerate(hdus):
            info = hdu.fileinfo()
            promised = int(hdu.header.get("NAXIS1", 0)) * int(hdu.header.get("NAXIS2", 0))
            wanted = info["datLoc"] + promised + int(hdu.header.get("PCOUNT", 0))
            if hdu.header.get("XTENSION", "").strip() == "BINTABLE" and wanted > size:
                msg = (
                    f"'{path}' is truncated: the header of extension {k} promises "
                    f"{hdu.header['NAXIS2']} rows of {hdu.header['NAXIS1']} bytes, the file ends "
                    f"{gib(wanted - size)} earlier"
                )
                raise DataFileError(msg)


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
        msg = f"'{path}' cannot be read: {error}"
        raise DataFileError(msg) from None


def read_text(path: str | Path) -> str:
    """Read a text of people's size; a configuration of megabytes is none.

    Raises
    ------
    DataFileError
        If it is larger than 16 MiB.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size > _LARGEST_TEXT:
        msg = f"'{path}' has {gib(path.stat().st_size)}, no text of this kind is that large"
        raise DataFileError(msg)
    return path.read_text(encoding="utf-8")
