"""A file of objects in chunks, and how files are opened."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from astropy.table import Table

from sbi_core.data.observations import FORMATS, Observations
from sbi_core.data.reading import Reading
from sbi_core.data.tables import noted
from sbi_core.errors import DataFileError, first_line

__all__ = ["COMPRESSED", "Slices", "opened", "suffixes", "unreadable"]

COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def suffixes(path: Path) -> tuple[str, str]:
    """Return the suffixes of format and compression, in lower case."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in COMPRESSED else (last, "")


@dataclass
class Slices:
    """A file of n objects in chunks of ``rows``; small enough to send to a worker.

    Parameters
    ----------
    path
        The file.
    rows
        Rows per chunk; the last one may have fewer.
    n
        Rows of the file.
    reading
        Options of reading.
    notes
        Sentences on how the file is read, passed on with every chunk.
    """

    path: Path
    rows: int
    n: int = 0
    reading: Reading = field(default_factory=Reading)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return -(-self.n // self.rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return first row and end of a chunk."""
        if not 0 <= chunk < len(self):
            msg = f"chunk {chunk} of {len(self)}"
            raise IndexError(msg)
        return chunk * self.rows, min((chunk + 1) * self.rows, self.n)

    def read(self, chunk: int) -> Table | Observations:
        """Return the rows of one chunk.

        Raises
        ------
        DataFileError
            If they cannot be read.
        """
        start, stop = self.bounds(chunk)
        try:
            part = self._read(chunk, start, stop)
        except DataFileError:
            raise
        except Exception as error:  # readers raise many kinds of errors on broken files
            rows = "" if len(self) == 1 else f", rows {start} to {stop - 1}"
            raise unreadable(self.path, error, rows) from None
        if not isinstance(part, Observations) and len(part) != stop - start:
            msg = (
                f"'{self.path}' is damaged: rows {start} to {stop - 1} hold {len(part)} objects, "
                f"not {stop - start}"
            )
            raise DataFileError(msg)
        if isinstance(part, Observations):  # its notes are those of the whole file
            return replace(part, notes=()) if chunk else part
        for note in self.notes:
            noted(part, note)
        return part

    def _read(self, chunk: int, start: int, stop: int) -> Table | Observations:
        raise NotImplementedError


def unreadable(path: Path, error: Exception, rows: str = "") -> DataFileError:
    """Return the error of a file that its reader cannot read: one line."""
    first = first_line(error)
    if isinstance(error, UnicodeDecodeError):
        first = "it is not text in UTF-8; save it as UTF-8 (a compressed file as .gz, .bz2 or .xz)"
    return DataFileError(f"'{path}' cannot be read as {FORMATS[suffixes(path)[0]]}{rows}: {first}")


def opened(path: Path) -> BinaryIO:
    """Open a file, inflated where it is compressed."""
    if path.suffix.lower() not in COMPRESSED:
        return path.open("rb")
    return io.BytesIO(_inflated(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=1)
def _inflated(path: Path, changed: int) -> bytes:
    with COMPRESSED[path.suffix.lower()](path) as f:
        content: bytes = f.read()
    return content
