"""Files of objects: one reader per format, for whole files and for some rows at a time.

A file is cut into chunks of equally many rows; a whole file is one chunk. FITS tables and HDF5 are
read by position, CSV, TSV and ECSV by the offsets of their rows, parquet by its row groups. Formats
that cannot be read in parts (VOTable, MRT, compressed FITS, npz, text of unknown form) are read
whole and then cut, within the limits of :mod:`sbi_core.data.limits`. Text, FITS and VOTable may be
compressed (``.gz``, ``.bz2``, ``.xz``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from warnings import catch_warnings, simplefilter

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml
from numpy.typing import NDArray

from sbi_core.data.gate import checked_file
from sbi_core.data.observations import (
    FORMATS,
    WORDS,
    Observable,
    Observations,
    decoded,
    holds_arrays,
)
from sbi_core.data.reading import Reading
from sbi_core.data.slices import COMPRESSED, Slices, opened, suffixes, unreadable
from sbi_core.data.tables import (
    ColumnReader,
    as_table,
    checked,
    observations_from_columns,
    prepared,
)
from sbi_core.data.text import DELIMITERS, EcsvSlices, TextSlices, free_text
from sbi_core.errors import ConfigError, DataFileError, near_matches

__all__ = ["Slices", "is_table", "open_slices", "read_observations", "read_table"]

# units that FITS does not know (dex) are read as they are written; we check units by ourselves
_OPTIONS: dict[str, Any] = {
    "fits": {"unit_parse_strict": "silent"},
    "votable": {"use_names_over_ids": True},
}


def read_table(path: str | Path, reading: Reading | None = None) -> Table:
    """Read a table; the format follows from the suffix.

    Parameters
    ----------
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
    return suffixes(path)[0] in FORMATS


def read_observations(
    path: Any,
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
        wrote as npz or HDF5; or a table in memory.
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
    table = as_table(path)
    source = str(path) if table is None else "table in memory"
    if table is None and holds_arrays(path):
        return Observations.read(path)
    table = prepared(read_table(path) if table is None else table, Reading(strict=strict), source)
    reader = ColumnReader(table, source)
    found = observations_from_columns(reader, observables, default_error=default_error)
    return checked(found, strict)


def open_slices(path: str | Path, rows: int, reading: Reading | None = None) -> Slices:
    """Return the chunks of a file, ``rows`` rows each.

    Parameters
    ----------
    path
        A table, or npz or HDF5 as :meth:`Observations.write` makes it.

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
    suffix, compressed = suffixes(path)
    kind = FORMATS[suffix]
    try:
        checked_file(path, rows)
        source: Slices | None = None
        if suffix in (*DELIMITERS, ".ecsv"):
            source = (EcsvSlices if suffix == ".ecsv" else TextSlices).open(path, rows, reading)
        elif compressed:
            pass
        elif rows is not None and holds_arrays(path):
            source = ArraySlices.open(path, rows)
        elif kind in _IN_PARTS:
            source = _IN_PARTS[kind].open(path, rows)
        if source is None:
            table = _read_whole(path, kind, reading)
            source = WholeTable(path, rows or max(len(table), 1), len(table), reading, table=table)
        names, option = _tables(path, kind)
    except (DataFileError, ConfigError):
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        raise unreadable(path, error) from None
    if source.n == 0:
        msg = f"file '{path}' has no rows: it must have one per object, or per simulation"
        raise DataFileError(msg)
    source.reading = reading
    if len(names) > 1:
        other = f"astropy's Table.read('{path.name}', {option}).write('other.fits') writes another"
        source.notes = (f"the file has {len(names)} tables ({', '.join(names)}): '{names[0]}' is "
                        f"read; {other}",)  # fmt: skip
    return source


def _tables(path: Path, kind: str) -> tuple[list[str], str]:
    """Return the tables of a FITS or HDF5 file, and astropy's option for the second one."""
    names: list[str] = []
    option = ""
    if kind == "fits":
        with catch_warnings(), opened(path) as f, fits.open(f) as hdus:
            simplefilter("ignore")
            with suppress(OSError):  # bytes after the last extension
                for k, hdu in enumerate(hdus):
                    if _is_fits_table(hdu):
                        option = f"hdu={k}" if len(names) == 1 else option
                        names.append(hdu.name or str(k))
    elif kind == "hdf5" and not holds_arrays(path):
        with h5py.File(path, "r") as f:
            names = _hdf5_tables(f)
        option = f"path='{names[-1]}'" if names else ""
    return names, option


def _is_fits_table(hdu: Any) -> bool:
    tables = (fits.BinTableHDU, fits.TableHDU)
    return isinstance(hdu, tables) and not isinstance(hdu, fits.CompImageHDU)


def _hdf5_tables(f: h5py.File) -> list[str]:
    names: list[str] = []
    f.visititems(lambda name, node: names.append(name) if _is_hdf5_table(node) else None)
    return names


def _is_hdf5_table(node: Any) -> bool:
    return isinstance(node, h5py.Dataset) and bool(node.dtype.names)


def _check_file(path: Path) -> None:
    """Raise DataFileError for what is no file, or of no known format."""
    problem = ""
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        problem = f"file '{path}' does not exist{near_matches(path.name, siblings)}"
    elif path.is_dir():
        problem = f"'{path}' is a directory; pass one table file"
    elif not path.is_file():  # a pipe, such as <(...), or a device
        problem = f"'{path}' is not a regular file; write the table to a file first"
    elif path.stat().st_size == 0:
        problem = f"file '{path}' is empty: it must have a header and rows"
    else:
        suffix, compressed = suffixes(path)
        if suffix not in FORMATS or (compressed and FORMATS[suffix] in ("hdf5", "parquet")):
            known = ", ".join([*FORMATS, ".npz"])
            problem = (
                f"unknown format '{suffix}{compressed}' of '{path}'; known suffixes: {known}; "
                "text, FITS and VOTable also with .gz, .bz2 or .xz"
            )
    if problem:
        raise DataFileError(problem)


def _read_whole(path: Path, kind: str, reading: Reading) -> Table:
    if kind in ("ascii", "ascii.mrt"):
        with opened(path) as f:
            return free_text(f.read().decode("utf-8-sig"), kind, reading)
    if path.suffix.lower() not in COMPRESSED:
        return Table.read(path, format=kind, **_OPTIONS.get(kind, {}))
    with opened(path) as f:
        return Table.read(f, format=kind, **_OPTIONS.get(kind, {}))


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
            hdu = next(filter(_is_fits_table, hdus), None)
            if not isinstance(hdu, fits.BinTableHDU):
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
    """Rows of the first table of an HDF5 file."""

    key: str = ""

    @classmethod
    def open(cls, path: Path, rows: int | None) -> Slices | None:
        """Return the slices."""
        with h5py.File(path, "r") as f:
            tables = _hdf5_tables(f)
            if not tables:
                msg = (
                    f"'{path}' has no table, but {', '.join(list(f)[:8]) or 'nothing'}; columns "
                    "that are data sets make one: astropy's Table({k: f[k][()] for k in NAMES})"
                )
                raise DataFileError(msg)
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
            whole = (*WORDS, "notes")
            arrays = {k: decoded(f[k][()] if k in whole else f[k][start:stop]) for k in f}
        return Observations.of_arrays(arrays, str(self.path))


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
