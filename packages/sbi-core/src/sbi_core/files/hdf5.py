"""Reading the HDF5 files that a run wrote.

They are replaced as a whole and never changed in place, so that they are read without a lock. A
file that the system refuses to open at this moment is not a damaged file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from sbi_core.errors import DataFileError

__all__ = ["open_hdf5"]

_LOCKING = (errno.EAGAIN, errno.EACCES, errno.ENOLCK)


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open a finished file for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    OSError
        If it is damaged.
    DataFileError
        If the system cannot open or read it (locks, rights, too many open files, ...).
    """
    try:
        with h5py.File(path, "r", locking=False) as f:
            yield f
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:  # of the format, not of the system
            raise
        msg = f"'{path}' cannot be read now: {os.strerror(error.errno)}"
        if error.errno in _LOCKING:
            msg += "; where files cannot be locked, set HDF5_USE_FILE_LOCKING=FALSE"
        raise DataFileError(msg) from None
