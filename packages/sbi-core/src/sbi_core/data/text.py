"""Tables in text: CSV, TSV and ECSV by the offsets of their rows, and text of unknown form."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import ascii as reader
from astropy.table import Table, vstack
from numpy.typing import NDArray

from sbi_core.data.reading import GROUP_NAMES, ID_NAMES, Reading, normalise
from sbi_core.data.slices import Slices, opened, suffixes
from sbi_core.data.tables import NO_NUMBER, is_unit, noted
from sbi_core.errors import DataFileError

__all__ = ["DELIMITERS", "EcsvSlices", "TextSlices", "free_text"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BLOCK = 10_000  # rows of text that are converted at a time
_MARK = b"\xef\xbb\xbf"  # byte order mark
_END = "\0end-of-file\0"
_COMMA = "decimal commas are read as decimal points"
_FOREIGN = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([ed][-+]?\d+)?", re.IGNORECASE)  # 1.0D-17, 1,5


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
    units
        Units of the columns, where a line below the header holds them.
    """

    names: tuple[str, ...] = ()
    kinds: str = ""
    delimiter: str = ","
    comments: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, rows: int | None, reading: Reading) -> Slices | None:
        """Find the header, the rows at which chunks begin, and the types of the columns."""
        with opened(path) as f:
            return cls(path, rows or 0, 0, reading)._indexed(f, rows)

    def _indexed(self, f: BinaryIO, rows: int | None) -> Slices:
        begin = len(_MARK) if f.read(len(_MARK)) == _MARK else 0
        f.seek(begin)
        with io.TextIOWrapper(f, encoding="utf-8", newline="") as lines:
            return self._index(lines, begin, rows)

    def _index(self, lines: io.TextIOWrapper, begin: int, rows: int | None) -> Slices:
        position = self._header(lines, begin)
        kinds = self._new_kinds()
        if kinds:
            lines.seek(position)
            position = self._unit_rows(lines, position)
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

    def _unit_rows(self, lines: Iterable[str], position: int) -> int:
        """Set the units that rows below the header give; return where the other rows begin."""
        first = list(islice(self._rows(lines, position), 2))
        n, self.units = unit_rows(self.names, [row for _, _, row in first], self.reading)
        return first[n - 1][1] if n else position

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
        usual = DELIMITERS[suffixes(self.path)[0]]
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
        width, end, k = len(self.names), position, 0

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
            elif len(cells) > width or any(
                name != f"col{i}" for i, name in enumerate(self.names[len(cells) :], len(cells) + 1)
            ):
                than = "more" if len(cells) > width else "fewer"
                shown = self.delimiter.join(row)[:40]
                msg = (
                    f"row '{shown}' has {than} cells than the header ({len(cells)} of {width}; "
                    f"row {k}, counted from 0)"
                )
                raise ValueError(msg)
            else:
                yield begin, end, cells + [""] * (width - len(cells))
                k += 1
            begin = end

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        with opened(self.path) as f:
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
        for name, unit in zip(self.names, self.units, strict=False):
            table[name].unit = unit or None
        return table


def unit_rows(
    names: Sequence[str], rows: Sequence[Sequence[str]], reading: Reading
) -> tuple[int, tuple[str, ...]]:
    """Return how many of the first two rows are units (and dashes), and the units."""
    if not rows:
        return 0, ()
    dashes = [bool(row) and all(re.fullmatch("-+", c) for c in row) for row in rows]
    if dashes[0] and max(map(len, rows[0])) > 3:  # shorter ones are missing values
        return 1, ()
    n = 2 if dashes[-1] else 1
    missing = [c.lower() in NO_NUMBER for c in rows[0]]
    units = ["" if m else c for c, m in zip(rows[0], missing, strict=True)]
    known = [m or n == 2 or is_unit(c) for c, m in zip(rows[0], missing, strict=True)]
    words = any(u for name, u in zip(names, units, strict=True) if _is_word(name, reading))
    numbers = any(_is_number(u) or _FOREIGN.fullmatch(u) for u in units)
    if words or not (any(units) or n == 2) or not all(known) or numbers:
        return 0, ()
    return n, tuple(units)


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
            # a float would lose digits of an identifier
            self.kind = "U" if re.fullmatch(r"\d{19,}", cell) else "f"
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


def free_text(text: str, kind: str, reading: Reading) -> Table:
    """Read text whose layout is guessed; identifiers and groups stay as they are written."""
    if "\n" not in text:  # line ends of old Macs; astropy takes one line for a file name
        text = text.replace("\r", "\n") + "\n"
    options: dict[str, Any] = {} if kind == "ascii" else {"format": kind.removeprefix("ascii.")}
    try:
        table = reader.read(text, **options)
        above = re.match(r"(?:#.*\n)+(?=#.*\n[^#])", text)  # comments before the last one
        if table.colnames[0] == "col1" and above and kind == "ascii":
            named = reader.read(text[above.end() :])  # which may be the header
            if named.colnames[0] != "col1":
                text, table = text[above.end() :], named
                comments = [line.lstrip("# ") for line in above[0].splitlines()]
                table.meta["comments"] = comments + table.meta.get("comments", [])
        one = len(table.colnames) == 1 and bool(re.search(r"[,;|\t]", table.colnames[0]))
    except reader.InconsistentTableError:
        one = kind == "ascii"
        if not one:
            raise
    if one:
        msg = (
            "no columns can be told apart; do all rows have equally many cells, and cells with "
            "blanks quotes? Save it as .csv"
        )
        raise ValueError(msg)
    names = [c for c in table.colnames if _is_word(c, reading) and table[c].dtype.kind in "fi"]
    if kind == "ascii" and names:  # 007 is another star than 7
        meta = table.meta
        table = reader.read(text, converters={c: [reader.convert_numpy(str)] for c in names})
        table.meta = meta
    rows = [["" if c is np.ma.masked else str(c).strip() for c in row] for row in table[:2]]
    n, units = unit_rows(table.colnames, rows, reading)
    table = table[n:]
    for name, unit in zip(table.colnames, units, strict=False):
        table[name].unit = unit or None
    return table


def _is_word(column: str, reading: Reading) -> bool:
    """Return whether a column holds identifiers or groups, which are words."""
    return normalise(column) in (*ID_NAMES, *GROUP_NAMES) or column in reading.words
