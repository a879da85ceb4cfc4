"""The gate: every file that this program did not just write is opened through this module.

A file must be a regular one, hold all its data (no references to other files or to the network),
and fit: its size is compared with :class:`~sbi_core.data.limits.Limits` before anything is
expanded. The form of a file is recognised from its content, as readers do. Nothing is unpickled.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.limits import available_memory, gib, limits
from sbi_core.errors import DataFileError, SbiError, first_line

if TYPE_CHECKING:
    import h5py

__all__ = [
    "UnsafeFileError",
    "checked_file",
    "open_hdf5",
    "read_npz",
    "read_text",
    "regular_file",
    "unchanged",
]

_COMPRESSED: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_UNREAD = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress"}  # what astropy would expand, too
_TEXT = (".csv", ".tsv", ".ecsv", ".txt", ".dat", ".mrt")
_XML = (".vot", ".xml")
_PARSED = 16  # bytes of memory for a byte of text while it is read as a table
_LETTER = 4  # bytes of memory for a character of a cell: all cells of a column have one width
_FITS_AXES = 999  # axes, and columns of a table, that FITS allows
_FITS_SIZES = {"I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_ROWS = 4096  # of a table that are checked at a time
_DAMAGED = (ValueError, EOFError, AttributeError, KeyError, RuntimeError, NotImplementedError,
            MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
_LOCKING = (errno.EAGAIN, errno.EACCES, errno.ENOLCK)


class UnsafeFileError(DataFileError):
    """A file that is not read because of what it is, or would become."""


def checked_file(path: str | Path, rows: int | None = None) -> Path:
    """Return the path of a file that can be opened safely; links to it are followed.

    Parameters
    ----------
    rows
        Rows of a table that are in memory at one time; default: all.

    Raises
    ------
    UnsafeFileError
        If it is not a regular file, refers to other files, or exceeds a limit.
    OSError
        If it is missing or cannot be opened.
    """
    path = Path(path)
    size = regular_file(path).stat().st_size
    with path.open("rb") as f:
        head = f.read(8)
        f.seek(max(size - 4, 0))
        tail = f.read(4)
        for magic, name in _UNREAD.items():
            if head.startswith(magic):
                _refuse(path, f"is compressed with {name}; decompress it first")
        for magic, opened in _COMPRESSED.items():
            if head.startswith(magic):
                total = _inflated(path, opened, size)
                with opened(path) as inner:
                    _check_stream(path, inner, total, rows)
                return path
        if b"PAR1" in (head[:4], tail):
            _check_parquet(path, size, rows)
        elif _is_hdf5(f, size):
            with _hdf5(path) as opened_file:
                _check_hdf5(path, opened_file, rows)
        elif head.startswith(b"PK"):
            if path.suffix != ".npz":
                _refuse(path, "is a zip archive; unpack it first")
            _check_zip(path, size)
        elif head.startswith(b"\x93NUMPY"):
            f.seek(0)
            _check_array(path, f, size)
        else:
            f.seek(0)
            _check_stream(path, f, size, rows)
    return path


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file; of an npy file its only one, under the name ``""``.

    Raises
    ------
    DataFileError
        If it is missing, damaged, unsafe, or holds objects.
    """
    path = Path(path)
    try:
        with checked_file(path).open("rb") as f:
            content = np.load(f, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"": content}
            return {name: content[name] for name in content.files}
    except DataFileError:
        raise
    except FileNotFoundError:
        msg = f"'{path}' cannot be read: it does not exist"
        raise DataFileError(msg) from None
    except (OSError, *_DAMAGED) as error:
        foreign = "pickled" in str(error)  # numpy takes any other file for a pickled object
        reason = "it is neither an npz nor an npy file" if foreign else first_line(error)
        msg = f"'{path}' cannot be read: {reason}"
        raise DataFileError(msg) from None


def read_text(path: str | Path, limit: str = "") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path
        The file.
    limit
        Name of a limit of its bytes, beside that of memory.

    Raises
    ------
    UnsafeFileError
        If it is not a regular file (a pipe or a device may never end), or exceeds the memory.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    path = Path(path)
    size = regular_file(path).stat().st_size
    if limit and size > (most := getattr(limits(), limit)):
        _refuse(path, f"has {gib(size)}, at most {gib(most)} are read", limit)
    _fits(path, _PARSED * size)
    return path.read_text(encoding="utf-8-sig")


@contextmanager
def open_hdf5(path: str | Path, rows: int | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without a lock: ours are replaced, never changed in place.

    Parameters
    ----------
    rows
        Rows of the data sets that are in memory at one time; default: all.

    Raises
    ------
    FileNotFoundError
        If there is none.
    OSError
        If it is damaged.
    UnsafeFileError
        If it refers to other files or exceeds a limit.
    DataFileError
        If the system cannot open or read it (locks, rights, too many open files, ...).
    """
    path = Path(path)
    if path.exists():
        regular_file(path)
    with _hdf5(path) as f:
        _check_hdf5(path, f, rows)
        yield f


@contextmanager
def unchanged(*paths: str | Path) -> Iterator[None]:
    """Raise DataFileError when a file, or one in a folder, is another one after the block."""
    files = [Path(p).absolute() for p in paths]  # readers may change the working directory
    before = list(map(_state, files))
    fault: SbiError | None = None
    try:
        yield
    except SbiError as error:
        fault = error
    for path, file, was in zip(paths, files, before, strict=True):
        if _state(file) != was:
            msg = f"'{path}' changed while it was read; give the command again when it is complete"
            raise DataFileError(msg) from fault
    if fault is not None:
        raise fault


def _state(path: Path) -> list[tuple[str, int, int, int]]:
    """Return name, inode, size and time of a file, or of the files of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(p.name, p.stat()) for p in files if p.exists()]
    return [(name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats]


# -- limits ---------------------------------------------------------------------------------


def _refuse(path: Path, why: str, limit: str = "") -> None:
    raised = f" (SBI_LIMITS={limit}=... raises this limit)" if limit else ""
    msg = f"'{path}'{why if why[0] == ':' else f' {why}'}{raised}"
    raise UnsafeFileError(msg)


def regular_file(path: Path) -> Path:
    """Return the path of a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe, such as <(...), or a device
        _refuse(path, "is not a regular file; write its content to a file first")
    return path


def _fits(path: Path, nbytes: float) -> None:
    """Raise when content would need too much memory."""
    most = limits().memory * available_memory()
    if nbytes > most:
        why = f"would take {gib(nbytes)} in memory, at most {gib(most)} are allowed"
        _refuse(path, f"{why} on this machine; split it, or read fewer rows at a time", "memory")


def _expands(path: Path, nbytes: float, stored: int) -> None:
    """Raise when content would be too many times larger than what is stored."""
    bounds = limits()
    if nbytes > max(bounds.small * 2**20, bounds.expansion * stored):
        why = f"would inflate from {gib(stored)} to {gib(nbytes)}"
        _refuse(path, f"{why}, more than {bounds.expansion:g} times: it is refused", "expansion")


def _columns(path: Path, n: int) -> None:
    if n > limits().columns:
        _refuse(path, f"has {n} columns, at most {limits().columns:g} are read", "columns")


# -- compressed streams, text, FITS, XML ----------------------------------------------------


def _inflated(path: Path, opened: Any, stored: int) -> int:
    """Return the size of a compressed file, which is never held."""
    total = 0
    try:
        with opened(path) as f:
            while block := f.read(2**20):
                total += len(block)
                _expands(path, total, stored)
                _fits(path, total)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        msg = f"'{path}' cannot be decompressed: {error}"
        raise DataFileError(msg) from None
    return total


def _check_stream(path: Path, f: IO[bytes], size: int, rows: int | None) -> None:
    """Check what can also be compressed: FITS, XML and text, by content or by suffix."""
    head = f.read(8)
    f.seek(0)
    suffixes = [s.lower() for s in path.suffixes]
    if head.startswith((b"PK", *_COMPRESSED, *_UNREAD)):
        _refuse(path, "is compressed twice; decompress it first")
    elif head == b"SIMPLE  ":
        _check_fits(path, f, size)
    elif any(s in _XML for s in suffixes):
        _check_xml(path, f, size)
    elif any(s in _TEXT for s in suffixes):
        _check_text(path, f, size, rows)


def _check_text(path: Path, f: IO[bytes], size: int, rows: int | None) -> None:
    """Bound columns, the longest line, and the memory of that many rows as wide as it is."""
    most, longest, n, named = int(limits().line), 0, 0, False
    while line := f.readline(most + 1):
        if len(line) > most:
            _refuse(path, f"has a line of more than {most} bytes", "line")
        if line.startswith(b"#") or not line.strip():
            continue
        if not named:
            named = True
            _columns(path, 1 + max(map(line.count, (b",", b"\t", b" ", b";", b"|"))))
        n += 1
        longest = max(longest, len(line))
    held = n if rows is None else min(rows, n)
    _fits(path, _LETTER * longest * held + (_PARSED * size if rows is None else 0))


def _check_fits(path: Path, f: IO[bytes], size: int) -> None:
    """Compare headers with the file; they are read as text and nothing is built from them.

    References:
        | FITS Standard 4.0 (Pence et al. 2010, A&A 524, A42), sections 4.4.1, 7.3.1 and 10.1
    """
    from astropy.io.fits import Header

    at = k = 0
    while at < size:
        f.seek(at)
        try:
            header = Header.fromfile(f, endcard=True)
            promised, words = _fits_bytes(header)
            fields = int(header.get("TFIELDS", 0))
            table = str(header.get("XTENSION", "")).strip() in ("BINTABLE", "TABLE")
            rows = int(header["NAXIS2"]) if table else 0
            image = _fits_image(header) if header.get("ZIMAGE", False) else 0
        except (EOFError, OSError, ValueError, TypeError, KeyError) as error:
            if k:  # what follows the extensions is not ours to read
                return
            msg = f"'{path}' cannot be read as fits: {error}"
            raise DataFileError(msg) from None
        if fields > _FITS_AXES:
            _refuse(path, f": the header of extension {k} promises {fields} columns")
        at = f.tell()
        if at + promised > size or rows > size:
            msg = (
                f"'{path}' is truncated or damaged: the header of extension {k} promises {words}, "
                f"the file ends {gib(max(at + promised - size, 0))} earlier"
            )
            raise UnsafeFileError(msg)
        cells = _fits_cells(f, header, at) if table and header.get("PCOUNT", 0) else 0
        _expands(path, image + cells, size)
        _fits(path, image + cells)
        at += -(-promised // 2880) * 2880
        k += 1


def _fits_image(header: Any) -> int:
    """Return the size of an image that is compressed in a table."""
    shape = [int(header[f"ZNAXIS{i + 1}"]) for i in range(int(header["ZNAXIS"]))]
    return math.prod(shape) * abs(int(header["ZBITPIX"])) // 8


def _fits_cells(f: IO[bytes], header: Any, at: int) -> int:
    """Return the size of all cells of variable length: several may refer to the same bytes."""
    width, rows, offset, total = int(header["NAXIS1"]), int(header["NAXIS2"]), 0, 0
    for k in range(int(header["TFIELDS"])):
        form = re.match(r"\s*(\d*)([A-Z])([A-Z]?)", str(header.get(f"TFORM{k + 1}", "")))
        if form is None or offset >= width:
            return total  # the reader will explain it
        repeat, kind = int(form[1] or 1), form[2]
        if kind in "PQ" and repeat and offset + _FITS_SIZES[kind] <= width:
            number = ">i4" if kind == "P" else ">i8"
            for start in range(0, rows, _ROWS):
                f.seek(at + start * width)
                block = np.frombuffer(f.read(min(_ROWS, rows - start) * width), np.uint8)
                counts = block.reshape(-1, width)[:, offset : offset + int(number[2])].tobytes()
                sizes = np.frombuffer(counts, number).astype(float)
                total += int(np.maximum(sizes, 0).sum()) * _FITS_SIZES.get(form[3], 1)
        offset += -(-repeat // 8) if kind == "X" else repeat * _FITS_SIZES.get(kind, 1)
    return total


def _fits_bytes(header: Any) -> tuple[int, str]:
    """Return the size of the data that a header announces, and its words for it."""
    axes = int(header["NAXIS"])
    if not 0 <= axes <= _FITS_AXES:
        msg = f"NAXIS = {axes}"
        raise ValueError(msg)
    shape = [int(header[f"NAXIS{i + 1}"]) for i in range(axes)]
    if min(shape, default=0) < 0:
        msg = f"negative size {shape}"
        raise ValueError(msg)
    if not shape:
        return 0, "nothing"
    groups = shape[0] == 0 and bool(header.get("GROUPS", False))
    pixels = math.prod(shape[1:] if groups else shape)
    extra, count = int(header.get("PCOUNT", 0)), int(header.get("GCOUNT", 1))
    total = abs(int(header["BITPIX"])) // 8 * max(count, 1) * (max(extra, 0) + pixels)
    if str(header.get("XTENSION", "")).strip() == "BINTABLE":
        return total, f"{shape[-1]} rows of {shape[0]} bytes"
    return total, f"an array of {' x '.join(map(str, shape))}"


def _check_xml(path: Path, f: IO[bytes], size: int) -> None:
    """Refuse references and entities in a VOTable; bound columns, rows, and widths of cells."""
    rows = given = columns = width = cell = longest = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal rows, given, columns, width, cell
        name = name.rpartition(":")[2].upper()
        if name == "STREAM" and any(k.lower().endswith("href") for k in attributes):
            _refuse(path, "keeps its data elsewhere (STREAM href), which is not followed")
        if name == "TABLE":
            rows = max(rows, int(attributes.get("nrows", 0)))
        if name == "TR":
            given += 1
        if name == "FIELD":
            columns += 1
            sizes = attributes.get("arraysize", "1").replace("*", "").split("x")
            width += 16 * math.prod(int(n) for n in sizes if n.strip())
            _columns(path, columns)
        if name == "TD":
            cell = 0

    def characters(text: str) -> None:
        nonlocal cell, longest
        cell += len(text)
        longest = max(longest, cell)

    def entity(*_: Any) -> None:
        _refuse(path, "defines entities, which are not expanded")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = entity
    try:
        parser.ParseFile(f)
    except (expat.ExpatError, ValueError) as error:
        msg = f"'{path}' cannot be read as votable: {error}"
        raise DataFileError(msg) from None
    if rows > size:
        _refuse(path, f"promises {rows} rows, the file has {size} bytes")
    _fits(path, _PARSED * size + max(rows, given) * width)
    if longest > limits().line:
        _refuse(path, f"has a cell of {longest} characters", "line")


# -- numpy, HDF5, parquet -------------------------------------------------------------------


def _check_zip(path: Path, size: int) -> None:
    """Compare the members of an npz file with the archive, and their headers with the members."""
    try:
        with zipfile.ZipFile(path) as members:
            total = sum(info.file_size for info in members.infolist())
            _expands(path, total, size)
            _fits(path, total)
            for info in members.infolist():
                if info.filename.endswith(".npy"):
                    with members.open(info) as f:
                        _check_array(path, f, info.file_size)
    except _DAMAGED as error:
        msg = f"'{path}' cannot be read: {error}"
        raise DataFileError(msg) from None


def _check_array(path: Path, f: IO[bytes], size: int) -> None:
    """Compare the header of an array with its size."""
    from numpy.lib import format as npy

    version = npy.read_magic(f)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(f)
    if dtype.hasobject:
        _refuse(
            path,
            "cannot be read: it has an array of objects, and nothing is unpickled; "
            "store words with .astype(str)",
        )
    promised = math.prod(int(s) for s in shape) * dtype.itemsize
    if promised > size:
        _refuse(path, f"promises {gib(promised)} in a header, the file holds {gib(size)}")


def _is_hdf5(f: IO[bytes], size: int) -> bool:
    """Return whether the signature stands at 0, 512, 1024, 2048, ..., as HDF5 allows."""
    at = 0
    while at < size:
        f.seek(at)
        if f.read(8) == b"\x89HDF\r\n\x1a\n":
            return True
        at = max(512, 2 * at)
    return False


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    import h5py

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


def _check_hdf5(path: Path, f: h5py.File, rows: int | None) -> None:
    """Visit all groups and data sets; links that leave the file are found before any is followed.

    Soft links stay in the file when it has no link that leaves it.
    """
    import h5py

    todo: list[Any] = [f]
    seen, held = set(), 0.0
    while todo:
        group = todo.pop()
        for name in group:
            kind = group.get(name, getlink=True)
            if isinstance(kind, h5py.SoftLink):
                continue
            if not isinstance(kind, h5py.HardLink):
                _refuse(path, f": '{name}' is a link to another file, which is not followed")
            node = group[name]
            info = h5py.h5o.get_info(node.id)
            if info.addr in seen:
                continue
            seen.add(info.addr)
            if len(seen) > limits().objects:
                _refuse(path, f"holds more than {limits().objects:g} objects", "objects")
            if isinstance(node, h5py.Group):
                todo.append(node)
            elif isinstance(node, h5py.Dataset):
                held += _check_dataset(path, name, node, rows)
    _fits(path, held)


def _check_dataset(path: Path, name: str, data: h5py.Dataset, rows: int | None) -> float:
    """Check one data set; return the memory for that many rows of it."""
    if data.is_virtual or data.external:
        _refuse(path, f": '{name}' keeps its data in other files; this is refused")
    if data.shape is None:
        return 0.0
    total = math.prod(map(int, data.shape)) * data.dtype.itemsize
    _expands(path, total, data.id.get_storage_size())
    _columns(path, len(data.dtype.names or ()))
    chunk = math.prod(map(int, data.chunks)) * data.dtype.itemsize if data.chunks else 0
    _expands(path, chunk, data.id.get_storage_size())
    n = int(data.shape[0]) if data.shape else 1
    part = 1.0 if rows is None or n <= rows else rows / n
    words = n * part * _LETTER * _longest_word(path, data) if data.dtype.hasobject else 0.0
    return float(part * total + min(chunk, total) + words)


def _longest_word(path: Path, data: h5py.Dataset) -> int:
    """Return the longest cell of variable length: its header does not say."""
    if not data.ndim:
        return _length(path, data[()])
    names = [name for name in data.dtype.names or () if data.dtype[name].hasobject]
    block = int(limits().memory * available_memory() / max(path.stat().st_size, 1))
    block = min(max(block, 64), 4096)
    longest = 0
    for start in range(0, data.shape[0], block):
        cells = data.fields(names)[start : start + block] if names else data[start : start + block]
        columns = [cells[name] for name in names] if names else [cells]
        longest = max([longest, *(_length(path, c) for column in columns for c in column.flat)])
    return longest


def _length(path: Path, cell: Any) -> int:
    length = len(cell) if hasattr(cell, "__len__") else 0
    if length > limits().line:
        _refuse(path, f"has a cell of {length} bytes", "line")
    return length


def _check_parquet(path: Path, size: int, rows: int | None) -> None:
    """Bound columns, rows, and the longest words, which one dictionary entry may repeat."""
    try:
        import pyarrow
        import pyarrow.compute
        from pyarrow import parquet
    except ImportError:  # the reader explains how to install it
        return
    try:
        with parquet.ParquetFile(path) as f:
            facts, schema = f.metadata, f.schema_arrow
            _columns(path, facts.num_columns)
            held = facts.num_rows if rows is None else min(rows, facts.num_rows)
            groups = [facts.row_group(k) for k in range(facts.num_row_groups)]
            columns = [g.column(k) for g in groups for k in range(g.num_columns)]
            largest = max((c.total_uncompressed_size for c in columns), default=0)
            _expands(path, max(largest, 8 * facts.num_rows * facts.num_columns), size)
            stored = sum(c.total_uncompressed_size for c in columns)
            share = held / max(facts.num_rows, 1)
            _fits(path, max(share * stored, 8.0 * held * facts.num_columns))
            text = {c.name for c in schema if re.search("string|binary", str(c.type))}
            leaves = [f.schema.column(k) for k in range(len(f.schema))]
            cells = [sum(g.column(k).num_values for g in groups) for k in range(len(leaves))]
        count = dict(zip((c.path for c in leaves), cells, strict=True))
        longest = {c.path: c.length for c in leaves if c.physical_type == "FIXED_LEN_BYTE_ARRAY"}
        words = [c.path for c in leaves if c.physical_type == "BYTE_ARRAY"]
        words = [path for path in words if path.partition(".")[0] in text]
        longest |= dict.fromkeys(words, 0)
        block = min(max(2**26 * facts.num_rows // max(stored, 1), 1), 2**16)
        with parquet.ParquetFile(path, read_dictionary=words) as f:
            for name in words:
                for batch in f.iter_batches(batch_size=block, columns=[name]):
                    length = pyarrow.compute.max(pyarrow.compute.binary_length(_entries(batch)))
                    longest[name] = max(longest[name], length.as_py() or 0)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        msg = f"'{path}' cannot be read as parquet: {first_line(error)}"
        raise DataFileError(msg) from None
    if (most := max(longest.values(), default=0)) > limits().line:
        _refuse(path, f"has a cell of {most} bytes", "line")
    _fits(path, share * _LETTER * sum(count[name] * n for name, n in longest.items()))


def _entries(batch: Any) -> Any:
    """Return the different words of one leaf of parquet, below lists and structures."""
    (column,) = batch.columns
    while column.type.num_fields and not hasattr(column, "dictionary"):
        column = column.field(0) if hasattr(column, "field") else column.flatten()
    return getattr(column, "dictionary", column)
