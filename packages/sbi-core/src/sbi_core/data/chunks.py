"""Files of objects: one reader per format, for whole files and for some rows at a time.

A file is cut into chunks of equally many rows; a whole file is one chunk. FITS tables and HDF5 are
read by position, CSV, TSV and ECSV by the offsets of their rows, parquet by its row groups. Formats
that cannot be read in parts (VOTable, MRT, compressed FITS, npz, text of unknown form) are read
whole and then cut, within the limits of :mod:`sbi_core.data.limits`. Text, FITS and VOTable may be
compressed (``.gz``, ``.bz2``, ``.xz``).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import h5py
import numpy as np
from astropy.io import ascii as reader
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack
from astropy.table.meta import get_header_from_yaml
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.gate import checked_file
from sbi_core.data.observations import (
    FORMATS,
    LABEL,
    Observable,
    Observations,
    decoded,
    holds_arrays,
)
from sbi_core.data.reading import GROUP_NAMES, ID_NAMES, Reading, normalise
from sbi_core.data.tables import (
    NO_NUMBER,
    ColumnReader,
    checked,
    noted,
    observations_from_columns,
    prepared,
)
from sbi_core.errors import ConfigError, DataFileError, near_matches

__all__ = ["Slices", "is_table", "open_slices", "read_observations", "read_table"]

# units that FITS does not know (dex) are read as they are written; we check units by ourselves
_OPTIONS: dict[str, Any] = {
    "fits": {"unit_parse_strict": "silent"},
    "votable": {"use_names_over_ids": True},
}
_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BLOCK = 10_000  # rows of text that are converted at a time
_MARK = b"\xef\xbb\xbf"  # byte order mark
_END = "\0end-of-file\0"
_COMMA = "decimal commas are read as decimal points"
_WORDS = ("observables", "units", "context_names", "truth_names")


def _suffix(path: Path) -> tuple[str, str]:
    """Return the suffixes of format and compression, in lower case."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in _COMPRESSED else (last, "")


def read_table(path: str | Path, reading: Reading | None = None) -> Table:
    """Read a table; the format follows from the suffix.

    Parameters
    ----------
    path
        File.
    reading
        Options: which columns hold identifiers.

    Raises
    ------
    DataFileError
        If the file is missing, empty, of an unknown format or unreadable, or has no rows.
    """
    return _open(Path(path), None, reading or Reading()).read(0)


def is_table(path: Path) -> bool:
    """Return whether a file has the suffix of a table."""
    return _suffix(path)[0] in FORMATS


def read_observations(
    path: str | Path,
    observables: Sequence[Observable],
    *,
    default_error: float | None = None,
    strict: bool = False,
) -> Observations:
    """Read a table with one column per observable into observations.

    Parameters
    ----------
    path
        ECSV, FITS, CSV or any table that astropy reads, or what :meth:`Observations.write`
        wrote as npz or HDF5.
    observables
        What to look for; aliases count.
    default_error
        One standard deviation where the table has no error column.
    strict
        Refuse a file with rows that cannot be used, instead of leaving them out.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    ObservationError
        If columns are missing or no row can be used; the message names rows and columns.
    """
    if holds_arrays(path):
        return Observations.read(path)
    table = prepared(read_table(path), Reading(strict=strict), str(path))
    reader = ColumnReader(table, str(path))
    found = observations_from_columns(reader, observables, default_error=default_error)
    return checked(found, strict)


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
    """

    path: Path
    rows: int
    n: int = 0
    reading: Reading = field(default_factory=Reading)

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
            raise _unreadable(self.path, error, rows) from None
        if not isinstance(part, Observations) and len(part) != stop - start:
            msg = (
                f"'{self.path}' is damaged: rows {start} to {stop - 1} hold {len(part)} objects, "
                f"not {stop - start}"
            )
            raise DataFileError(msg)
        return part

    def _read(self, chunk: int, start: int, stop: int) -> Table | Observations:
        raise NotImplementedError


def _unreadable(path: Path, error: Exception, rows: str = "") -> DataFileError:
    first = str(error).strip().split("\n")[0]
    return DataFileError(f"'{path}' cannot be read as {FORMATS[_suffix(path)[0]]}{rows}: {first}")


def open_slices(path: str | Path, rows: int, reading: Reading | None = None) -> Slices:
    """Return the chunks of a file.

    Parameters
    ----------
    path
        A table, or npz or HDF5 as :meth:`Observations.write` makes it.
    rows
        Rows per chunk.
    reading
        Options of reading.

    Raises
    ------
    DataFileError
        If the file is missing, empty, of an unknown format, unreadable, or has no rows.
    """
    path = Path(path)
    if holds_arrays(path) and path.suffix == ".npz":
        return WholeObservations.of(Observations.read(path), rows)
    return _open(path, rows, reading or Reading())


def _open(path: Path, rows: int | None, reading: Reading) -> Slices:
    _check_file(path)
    suffix, compressed = _suffix(path)
    kind = FORMATS[suffix]
    try:
        checked_file(path, rows)
        opened: Slices | None = None
        if suffix in (*_DELIMITERS, ".ecsv"):
            opened = (EcsvSlices if suffix == ".ecsv" else TextSlices).open(path, rows, reading)
        elif compressed:
            pass
        elif rows is not None and holds_arrays(path):
            opened = ArraySlices.open(path, rows)
        elif kind in _IN_PARTS:
            opened = _IN_PARTS[kind].open(path, rows)
        if opened is None:
            table = _read_whole(path, kind, reading)
            opened = WholeTable(path, rows or max(len(table), 1), len(table), reading, table)
    except (DataFileError, ConfigError):
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        raise _unreadable(path, error) from None
    if opened.n == 0:
        msg = f"observations file '{path}' has no rows"
        raise DataFileError(msg)
    opened.reading = reading
    return opened


def _check_file(path: Path) -> None:
    """Raise DataFileError for what is no file, or of no known format."""
    problem = ""
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        problem = f"observations file '{path}' does not exist{near_matches(path.name, siblings)}"
    elif path.is_dir():
        problem = f"'{path}' is a directory; pass one table file"
    elif not path.is_file():  # a pipe, such as <(...), or a device
        problem = f"'{path}' is not a regular file; write the table to a file first"
    elif path.stat().st_size == 0:
        problem = f"observations file '{path}' is empty"
    else:
        suffix, compressed = _suffix(path)
        if suffix not in FORMATS or (compressed and FORMATS[suffix] in ("hdf5", "parquet")):
            known = ", ".join([*FORMATS, ".npz"])
            problem = (
                f"unknown format '{suffix}{compressed}' of '{path}'; known suffixes: {known}; "
                "text, FITS and VOTable also with .gz, .bz2 or .xz"
            )
    if problem:
        raise DataFileError(problem)


def _stream(path: Path) -> BinaryIO:
    """Open a file, inflated where it is compressed."""
    if path.suffix.lower() not in _COMPRESSED:
        return path.open("rb")
    return io.BytesIO(_inflated(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=1)
def _inflated(path: Path, changed: int) -> bytes:
    with _COMPRESSED[path.suffix.lower()](path) as f:
        content: bytes = f.read()
    return content


def _read_whole(path: Path, kind: str, reading: Reading) -> Table:
    if kind in ("ascii", "ascii.mrt"):
        with _stream(path) as f:
            return _free_text(f.read().decode("utf-8-sig"), kind, reading)
    if path.suffix.lower() not in _COMPRESSED:
        return Table.read(path, format=kind, **_OPTIONS.get(kind, {}))
    with _stream(path) as f:
        return Table.read(f, format=kind, **_OPTIONS.get(kind, {}))


def _free_text(text: str, kind: str, reading: Reading) -> Table:
    """Read text whose layout is guessed; identifiers and groups stay as they are written."""
    if "\n" not in text:  # line ends of old Macs; astropy takes one line for a file name
        text = text.replace("\r", "\n") + "\n"
    options: dict[str, Any] = {} if kind == "ascii" else {"format": kind.removeprefix("ascii.")}
    table = reader.read(text, **options)
    names = [c for c in table.colnames if _is_word(c, reading) and table[c].dtype.kind in "fi"]
    if kind == "ascii" and names:  # 007 is another star than 7
        table = reader.read(text, converters={c: [reader.convert_numpy(str)] for c in names})
    return table


def _is_word(column: str, reading: Reading) -> bool:
    """Return whether a column holds identifiers or groups, which are words."""
    return normalise(column) in (*ID_NAMES, *GROUP_NAMES) or column in reading.words


# -- text -----------------------------------------------------------------------------------


@dataclass
class TextSlices(Slices):
    """Rows of a CSV or TSV file, found by their offsets; a quoted line end ends no row.

    The delimiter is that of the suffix unless the header has another one and not this. A header may
    begin with ``#`` and follow comments. Types of columns are those of the whole file.

    Parameters
    ----------
    names, kinds
        Columns, and their types: ``i``, ``f`` or ``U`` (words).
    delimiter
        Character between cells.
    comments
        Lines before the header, without their ``#``.
    offsets
        Where the chunks begin in the (inflated) file, and where the last one ends.
    """

    names: tuple[str, ...] = ()
    kinds: str = ""
    delimiter: str = ","
    comments: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()

    @classmethod
    def open(cls, path: Path, rows: int | None, reading: Reading) -> Slices | None:
        """Find the header, the rows at which chunks begin, and the types of the columns."""
        with _stream(path) as f:
            return cls(path, rows or 0, 0, reading)._indexed(f, rows)

    def _indexed(self, f: BinaryIO, rows: int | None) -> Slices:
        begin = len(_MARK) if f.read(len(_MARK)) == _MARK else 0
        f.seek(begin)
        lines = io.TextIOWrapper(f, encoding="utf-8", newline="")
        position = self._header(lines, begin)
        kinds = self._new_kinds()
        offsets: list[int] = []
        block: list[list[str]] = []
        lines.seek(position)
        for begin, end, row in self._rows(lines, position):
            if not offsets or (rows is not None and self.n % rows == 0):
                offsets.append(begin)
            self.n, position = self.n + 1, end
            if kinds:
                block.append(row)
            if len(block) == _BLOCK:
                _consider(kinds, block, self.delimiter)
                block.clear()
        _consider(kinds, block, self.delimiter)
        self.rows = rows or max(self.n, 1)
        self.offsets = (*offsets, position)
        self.kinds = "".join(k.kind for k in kinds)
        if any(k.comma for k in kinds):
            self.comments = (*self.comments, _COMMA)
        return self

    def _new_kinds(self) -> list[_Kind]:
        return [_Kind(_is_word(name, self.reading)) for name in self.names]

    def _header(self, lines: Iterable[str], position: int) -> int:
        """Set names, delimiter and comments; return where the rows begin."""
        before: tuple[str, int] | None = None  # a comment that may be the header
        comments: list[str] = []
        for text, end in _logical(lines, position):
            line = text.strip()
            if not line:
                continue
            if before is not None and self._heads(before[0], line):
                line, end = before
                comments.pop()
            elif line.startswith("#"):
                before = line.lstrip("# "), end
                comments.append(before[0])
                continue
            self._named(line, comments)
            return end
        if before is not None:
            self._named(before[0], comments[:-1])
            return before[1]
        return position

    def _heads(self, comment: str, line: str) -> bool:
        """Return whether a comment is the header of the row that follows it."""
        names, cells = csv.reader([comment, line], delimiter=self._separator(comment))
        return (
            len(names) == len(cells)
            and (len(names) > 1 or " " not in comment)
            and not any(_is_number(n) for n in names)
            and any(_is_number(c) or not c.strip() for c in cells)
        )

    def _separator(self, header: str) -> str:
        usual = _DELIMITERS[_suffix(self.path)[0]]
        return next((d for d in (usual, "\t", ";", ",", "|") if d in header), usual)

    def _named(self, header: str, comments: list[str]) -> None:
        self.delimiter = self._separator(header)
        self.comments = tuple(comments)
        names = [n.strip() for n in next(csv.reader([header], delimiter=self.delimiter))]
        names = [n or f"col{k + 1}" for k, n in enumerate(names)]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:  # readers would give the second one another name
            msg = f"'{self.path}': column '{twice}' appears {names.count(twice)} times; keep one"
            raise DataFileError(msg)
        self.names = tuple(names)

    def _rows(self, lines: Iterable[str], position: int) -> Iterator[tuple[int, int, list[str]]]:
        """Yield first byte, end and cells of every row."""
        width, end = len(self.names), position

        def counted() -> Iterator[str]:
            nonlocal end
            for line in lines:
                end += len(line.encode())
                yield line
            yield f"{_END}{self.delimiter}{_END}"  # one cell where a quote is open

        begin = position
        for row in csv.reader(counted(), delimiter=self.delimiter, skipinitialspace=True):
            if row == [_END, _END]:
                return
            cells = [c.strip() for c in row]
            while len(cells) > width and not cells[-1]:
                cells.pop()
            if not cells or (not cells[0] and len(row) == 1 and (width > 1 or row[0])):
                pass  # a line without anything
            elif _END in cells[-1]:
                msg = "a quote that is opened is never closed"
                raise ValueError(msg)
            elif cells[0].startswith("#") and len(cells) != width:
                pass  # a comment
            elif len(cells) > width:
                msg = f"row '{self.delimiter.join(row)[:40]}' has more cells than the header"
                raise ValueError(msg)
            else:
                yield begin, end, cells + [""] * (width - len(cells))
            begin = end

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        with _stream(self.path) as f:
            f.seek(self.offsets[chunk])
            body = f.read(self.offsets[chunk + 1] - self.offsets[chunk]).decode()
        return self._parsed(body)

    def _parsed(self, body: str) -> Table:
        parts, block = [], []
        for _, _, row in self._rows(io.StringIO(body, newline=""), 0):
            block.append(row)
            if len(block) == _BLOCK:
                parts.append(self._table(block))
                block = []
        if block or not parts:
            parts.append(self._table(block))
        table = parts[0] if len(parts) == 1 else vstack(parts, metadata_conflicts="silent")
        comments = [c for c in self.comments if c != _COMMA]
        table.meta = {"comments": comments} if comments else {}
        if len(comments) < len(self.comments):
            noted(table, _COMMA)
        return table

    def _table(self, rows: list[list[str]]) -> Table:
        table = Table()
        for name, kind, cells in zip(self.names, self.kinds, zip(*rows, strict=True), strict=True):
            if self.delimiter == ";" and not _is_word(name, self.reading):
                cells = tuple(map(_with_point, cells))
            values, mask = _column(cells, kind)
            table[name] = np.ma.MaskedArray(values, mask) if mask.any() else values
        return table


def _column(cells: Sequence[str], kind: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of a column of text and where there are none."""
    if kind == "U":
        return np.asarray(cells, np.str_), np.asarray([not c for c in cells])
    number, dtype = (int, np.int64) if kind == "i" else (float, np.float64)
    try:
        return np.fromiter(map(number, cells), dtype, len(cells)), np.zeros(len(cells), bool)
    except ValueError:  # some are missing
        mask = np.asarray([c.lower() in NO_NUMBER for c in cells])
        words = ("0" if m else c for c, m in zip(cells, mask, strict=True))
        return np.fromiter(map(number, words), dtype, len(cells)), mask


def _consider(kinds: list[_Kind], rows: list[list[str]], delimiter: str) -> None:
    """Consider the cells of some rows."""
    for kind, cells in zip(kinds, zip(*rows, strict=True), strict=False):
        for cell in () if kind.holds(cells) else set(cells):
            kind.add(cell, delimiter == ";")


@dataclass
class _Kind:
    """Type of a column of text: the first of i, f, U (words) that holds all its cells."""

    word: bool
    comma: bool = False
    kind: str = "i"

    def __post_init__(self) -> None:
        self.kind = "U" if self.word else "i"

    def holds(self, cells: Sequence[str]) -> bool:
        """Return whether the type holds these cells, as far as it can be seen at once."""
        if self.kind == "U":
            return True
        try:
            integers = self.kind == "i" and max(map(len, cells)) <= 18
            list(map(int if integers else float, cells))
        except ValueError:
            return False
        return (integers or self.kind == "f") and "_" not in "".join(cells)

    def add(self, cell: str, commas: bool) -> None:
        """Consider a cell; ``commas`` may be decimal points."""
        if self.word or cell.lower() in NO_NUMBER:
            return
        if commas and _with_point(cell) != cell:
            self.comma, cell = True, _with_point(cell)
        if self.kind == "i" and not (cell.isascii() and re.fullmatch(r"[+-]?\d{1,18}", cell)):
            self.kind = "f"
        if self.kind == "f" and not _is_number(cell):
            self.kind = "U"


def _with_point(cell: str) -> str:
    """Return a number with a decimal comma as Python writes it; another cell as it is."""
    number = cell.replace(",", ".", 1)
    return number if number != cell and _is_number(number) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _logical(lines: Iterable[str], position: int) -> Iterator[tuple[str, int]]:
    """Yield lines, joined where a quote is open, and where each ends."""
    text = ""
    for line in lines:
        text += line
        position += len(line.encode())
        if text.count('"') % 2 == 0 or text.lstrip().startswith("#"):
            yield text, position
            text = ""
    if text:
        yield text, position


@dataclass
class EcsvSlices(TextSlices):
    """Rows of an ECSV file, which names the types of its columns.

    A row whose first word begins with ``#`` is a row, unless it lacks cells.
    """

    head: str = ""

    def _new_kinds(self) -> list[_Kind]:
        return []

    def _header(self, lines: Iterable[str], position: int) -> int:
        for text, end in _logical(lines, position):
            position = end
            if text.strip() and not text.startswith("#"):
                delimiter = re.search(r"(?m)^#\s*delimiter:\s*'?,", self.head)
                self.delimiter = "," if delimiter else " "
                options: Any = {"delimiter": self.delimiter, "skipinitialspace": not delimiter}
                self.names = tuple(next(csv.reader([text.strip()], **options)))
                self.head += text
                break
            self.head += text
        return position

    def _parsed(self, body: str) -> Table:
        if re.search(r"(?m)^#", body):  # comments to other readers
            rows = [row for _, _, row in self._rows(io.StringIO(body, newline=""), 0)]
            quoted = io.StringIO(newline="")
            writer = csv.writer(quoted, delimiter=self.delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows(rows)
            body = quoted.getvalue()
        text = self.head + body
        text = text if "\n" in text else text.replace("\r", "\n")
        return Table.read(text, format="ascii.ecsv")


@dataclass
class FitsSlices(Slices):
    """Rows of the first binary table of a FITS file, read by position."""

    header: str = ""
    offset: int = 0
    width: int = 0

    @classmethod
    def open(cls, path: Path, rows: int | None) -> Slices | None:
        """Return the slices, or None when the table is not one that can be cut."""
        with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
            hdu = next((h for h in hdus if isinstance(h, (fits.BinTableHDU, fits.TableHDU))), None)
            if not isinstance(hdu, fits.BinTableHDU) or isinstance(hdu, fits.CompImageHDU):
                return None
            if hdu.header["PCOUNT"] != 0:  # columns of variable length lie behind the rows
                return None
            n = max(int(hdu.header["NAXIS2"]), 0)
            return cls(
                path,
                rows or max(n, 1),
                n,
                header=hdu.header.tostring(),
                offset=int(hdu.fileinfo()["datLoc"]),
                width=int(hdu.header["NAXIS1"]),
            )

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        with self.path.open("rb") as f:
            f.seek(self.offset + start * self.width)
            content = f.read((stop - start) * self.width)
        if len(content) < (stop - start) * self.width:
            msg = f"'{self.path}' is truncated: it ends before row {stop}"
            raise DataFileError(msg)
        header = fits.Header.fromstring(self.header)
        header["NAXIS2"] = stop - start
        padded = content + bytes(-len(content) % 2880)
        hdu = fits.BinTableHDU.fromstring(header.tostring().encode("ascii") + padded)
        return Table.read(hdu, **_OPTIONS["fits"])


@dataclass
class Hdf5Slices(Slices):
    """Rows of the only table of an HDF5 file."""

    key: str = ""

    @classmethod
    def open(cls, path: Path, rows: int | None) -> Slices | None:
        """Return the slices, or None when there is not exactly one table."""
        with h5py.File(path, "r") as f:
            tables = [k for k in f if isinstance(f[k], h5py.Dataset) and f[k].dtype.names]
            if len(tables) != 1:
                return None
            n = len(f[tables[0]])
            return cls(path, rows or max(n, 1), n, key=tables[0])

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        with (
            h5py.File(self.path, "r") as f,
            h5py.File(token_hex(8), "w", driver="core", backing_store=False) as part,
        ):
            part[self.key] = f[self.key][start:stop]
            for name, value in f[self.key].attrs.items():
                part[self.key].attrs[name] = value
            described = f"{self.key}.__table_column_meta__"  # units and masks
            if described in f:
                f.copy(described, part)
            return Table.read(part, path=self.key, format="hdf5")


@dataclass
class ArraySlices(Slices):
    """Rows of the HDF5 layout of :meth:`Observations.write`: data of any shape."""

    @classmethod
    def open(cls, path: Path, rows: int) -> Slices | None:
        """Return the slices."""
        with h5py.File(path, "r") as f:
            if "rows" not in f:
                return cls(path, rows, len(f["x"]))
        return WholeObservations.of(Observations.read(path), rows)  # rows are excluded: not cut

    def _read(self, chunk: int, start: int, stop: int) -> Observations:
        with h5py.File(self.path, "r") as f:
            listed = [k for k in (*_WORDS, "notes") if k in f]
            words: dict[str, Any] = {k: tuple(v.decode() for v in f[k][()]) for k in listed}
            arrays = {k: f[k][start:stop] for k in f if k not in listed}
        labels = {k: decoded(arrays.pop(k)) for k in list(arrays) if k.startswith(LABEL)}
        names: dict[str, Any] = {
            k: np.asarray([v.decode() for v in arrays.pop(k)]) for k in ("id", "group")
        }
        units = words.pop("units")
        pairs = zip(words.pop("observables"), units, strict=True)
        observables = tuple(Observable(n, unit=u) for n, u in pairs)
        batch = Batch.of_arrays(**arrays)
        return Observations(
            batch, names["id"], names["group"], observables, source=str(self.path),
            labels={k.removeprefix(LABEL): v for k, v in labels.items()}, **words,
        )  # fmt: skip


@dataclass
class ParquetSlices(Slices):
    """Rows of a parquet file, by row groups; consecutive chunks go on where the last one ended."""

    def __post_init__(self) -> None:
        self._batches: Iterator[Any] | None = None
        self._next = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None, "_next": -1}

    @classmethod
    def open(cls, path: Path, rows: int | None) -> Slices | None:
        """Return the slices."""
        with _parquet().ParquetFile(path) as f:
            n = int(f.metadata.num_rows)
            return cls(path, rows or max(n, 1), n)

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        if self._batches is None or self._next != chunk:
            self._batches, self._next = self._from(start), chunk
        assert self._batches is not None
        part = next(self._batches)
        self._next = chunk + 1
        return part

    def _from(self, start: int) -> Iterator[Table]:
        """Yield chunk after chunk, beginning with the one that starts at a row."""
        import pyarrow

        with _parquet().ParquetFile(self.path) as f:
            groups = [f.metadata.row_group(k).num_rows for k in range(f.metadata.num_row_groups)]
            ends = np.cumsum(groups)
            first = int(np.searchsorted(ends, start, side="right"))
            skip = start - (int(ends[first - 1]) if first else 0)
            kept: list[Any] = []
            have = 0
            chosen = list(range(first, len(groups)))
            for batch in f.iter_batches(batch_size=self.rows, row_groups=chosen):
                if skip >= len(batch):
                    skip -= len(batch)
                    continue
                kept.append(batch.slice(skip))
                have += len(batch) - skip
                skip = 0
                while have >= self.rows:
                    whole = pyarrow.Table.from_batches(kept)
                    yield _from_arrow(whole.slice(0, self.rows))
                    kept = whole.slice(self.rows).to_batches()
                    have -= self.rows
            if have:
                yield _from_arrow(pyarrow.Table.from_batches(kept))


def _from_arrow(part: Any) -> Table:
    table = Table()
    meta = (part.schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    units = _units_of(meta.split("\n")) if meta else {}
    for name in part.column_names:
        values, mask = _values(part.column(name))
        table[name] = MaskedColumn(values, mask=mask) if mask.any() else values
        own = (part.schema.field(name).metadata or {}).get(b"unit", b"").decode()
        table[name].unit = own or units.get(name) or None
    for name in [c for c in table.colnames if c.endswith(".mask")]:  # as astropy stores masks
        if (of := name.removesuffix(".mask")) in table.colnames:
            table[of] = MaskedColumn(table[of], mask=np.asarray(table[name], bool))
            table.remove_column(name)
    return table


def _values(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of a column of parquet, and where it has none."""
    from pyarrow import types

    mask = np.asarray(column.is_null().to_numpy())
    if types.is_integer(column.type) or types.is_boolean(column.type):
        filled = column.fill_null(False if types.is_boolean(column.type) else 0)
        return np.asarray(filled.to_numpy()), mask  # integers with nulls would become floats
    values = np.asarray(column.to_numpy())
    if values.dtype == object and "list" in str(column.type):
        lengths = {len(v) for v in values}
        return (np.stack(list(values)) if len(lengths) == 1 else values), np.zeros(
            len(values), bool
        )
    if values.dtype == object:
        values = np.asarray(["" if m else _decoded(v) for v, m in zip(values, mask, strict=True)])
    return values, mask


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _units_of(lines: list[str]) -> dict[str, str]:
    header = get_header_from_yaml(lines)
    return {c["name"]: str(c["unit"]) for c in header["datatype"] if c.get("unit")}


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        msg = f"parquet files need pyarrow: python -m pip install 'sbi-core[parquet]' ({error})"
        raise ConfigError(msg) from None
    return parquet


@dataclass
class WholeTable(Slices):
    """A table that was read whole: its format cannot be read in parts."""

    table: Any = None

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        return self.table[start:stop]


@dataclass
class WholeObservations(Slices):
    """Observations that were read whole."""

    observations: Observations | None = None

    @classmethod
    def of(cls, observations: Observations, rows: int) -> Slices:
        """Return the chunks of observations in memory."""
        source = Path(observations.source)
        return cls(source, rows, observations.n_rows, observations=observations)

    def _read(self, chunk: int, start: int, stop: int) -> Observations:
        assert self.observations is not None
        return self.observations.in_source(start, stop)


_IN_PARTS: dict[str, Any] = {"fits": FitsSlices, "hdf5": Hdf5Slices, "parquet": ParquetSlices}
