"""Large files of objects, some rows at a time.

A file is cut into chunks of equally many rows; a chunk is read without the others: FITS tables and
HDF5 by position, text by the offsets of its lines, parquet by its row groups. Formats that cannot
be read in parts (VOTable, gzip, npz, ASCII of unknown form) are read whole, within the limits of
:mod:`sbi_core.data.limits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_core.data.batch import Batch
from sbi_core.data.gate import checked_file
from sbi_core.data.limits import check_names
from sbi_core.data.observations import (
    FORMATS,
    LABEL,
    Observable,
    Observations,
    decoded,
    holds_arrays,
)
from sbi_core.data.tables import FITS_OPTIONS, GROUP_NAMES, ID_NAMES, normalise, read_table
from sbi_core.errors import ConfigError, DataFileError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Slices", "open_slices"]

_TEXT = {".csv": "csv", ".tsv": "tab", ".ecsv": "ecsv"}
_WORDS = ("observables", "units", "context_names", "truth_names")


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
    """

    path: Path
    rows: int
    n: int = 0

    def __len__(self) -> int:
        return -(-self.n // self.rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return first row and end of a chunk."""
        if not 0 <= chunk < len(self):
            msg = f"chunk {chunk} of {len(self)}"
            raise IndexError(msg)
        return chunk * self.rows, min((chunk + 1) * self.rows, self.n)

    def name(self, chunk: int) -> str:
        """Return the name under which the rows of a chunk appear in messages."""
        start, stop = self.bounds(chunk)
        return f"{self.path}[rows {start}:{stop}]"

    def read(self, chunk: int) -> Table | Observations:
        """Return the rows of one chunk.

        Raises
        ------
        DataFileError
            If they cannot be read.
        """
        start, stop = self.bounds(chunk)
        try:
            found = self._read(chunk, start, stop)
        except DataFileError:
            raise
        except Exception as error:  # readers raise many kinds of errors on broken files
            first = str(error).strip().split("\n")[0]
            msg = f"'{self.path}' cannot be read, rows {start} to {stop - 1}: {first}"
            raise DataFileError(msg) from None
        if isinstance(found, Observations):
            return found
        if len(found) != stop - start:
            msg = (
                f"'{self.path}' is damaged: rows {start} to {stop - 1} hold {len(found)} objects, "
                f"not {stop - start}"
            )
            raise DataFileError(msg)
        if not {normalise(c) for c in found.colnames} & set(ID_NAMES):
            found["id"] = [str(k) for k in range(start, stop)]
        return found

    def _read(self, chunk: int, start: int, stop: int) -> Table | Observations:
        raise NotImplementedError


@dataclass
class FitsSlices(Slices):
    """Rows of the first binary table of a FITS file, read by position."""

    header: str = ""
    offset: int = 0
    width: int = 0

    @classmethod
    def open(cls, path: Path, rows: int) -> Slices | None:
        """Return the slices, or None when the table is not one that can be cut."""
        from astropy.io import fits

        with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
            hdu = next((h for h in hdus if isinstance(h, (fits.BinTableHDU, fits.TableHDU))), None)
            if not isinstance(hdu, fits.BinTableHDU) or isinstance(hdu, fits.CompImageHDU):
                return None
            if hdu.header["PCOUNT"] != 0:  # columns of variable length lie behind the rows
                return None
            return cls(
                path,
                rows,
                int(hdu.header["NAXIS2"]),
                hdu.header.tostring(),
                int(hdu.fileinfo()["datLoc"]),
                int(hdu.header["NAXIS1"]),
            )

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        from astropy.io import fits
        from astropy.table import Table

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
        return Table.read(hdu, **FITS_OPTIONS)


@dataclass
class TextSlices(Slices):
    """Rows of a CSV, TSV or ECSV file, found by the offsets of their lines.

    A line ends no row while a quote is open. The columns of identifiers and groups are of one type
    in all chunks, as they are when the file is read whole.
    """

    head: bytes = b""
    offsets: tuple[int, ...] = ()
    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, rows: int) -> Slices | None:
        """Find the lines at which chunks begin."""
        if path.suffix.lower() != ".ecsv":
            check_names(path, "," if path.suffix.lower() == ".csv" else "\t")
        head, offsets, n = _index_lines(path, rows)
        new = cls(path, rows, n, head, offsets)
        if path.suffix.lower() != ".ecsv":  # those say what type a column has
            new.types = new._types()
        return new

    def _types(self) -> dict[str, str]:
        kinds: dict[str, set[str]] = {}
        for chunk in range(len(self)):
            table = self.read(chunk)
            assert not isinstance(table, Observations)
            for name in table.colnames:
                if normalise(name) in (*ID_NAMES, *GROUP_NAMES) and name in table.colnames:
                    kinds.setdefault(name, set()).add(table[name].dtype.kind)
        order = {"U": "str", "S": "str", "O": "str", "f": "float64", "i": "int64"}
        found = {}
        for name, seen in kinds.items():
            if len(seen) > 1:
                found[name] = next(order[k] for k in order if k in seen)
        return found

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        from astropy.io import ascii as text

        with self.path.open("rb") as f:
            f.seek(self.offsets[chunk])
            body = f.read(self.offsets[chunk + 1] - self.offsets[chunk])
        options: dict[str, Any] = {}
        if self.types:
            options["converters"] = {k: [text.convert_numpy(v)] for k, v in self.types.items()}
        content = (self.head + body).decode("utf-8")
        form = _TEXT[self.path.suffix.lower()]
        return text.read(content, format=form, guess=False, **options)


def _index_lines(path: Path, rows: int) -> tuple[bytes, tuple[int, ...], int]:
    """Return the header, the offset of every ``rows``-th row and of the end, and their number."""
    comments = path.suffix.lower() == ".ecsv"
    head: list[bytes] = []
    offsets: list[int] = []
    n, position, named, quotes = 0, 0, False, 0
    with path.open("rb") as f:
        for line in f:
            begins = quotes % 2 == 0
            quotes += line.count(b'"')
            if not named:
                head.append(line)
                blank = not line.strip() or (comments and line.startswith(b"#"))
                named = quotes % 2 == 0 and not blank
                quotes = 0 if blank else quotes
            elif begins and line.strip():
                if n % rows == 0:
                    offsets.append(position)
                n += 1
            position += len(line)
    if quotes % 2:
        msg = f"'{path}' cannot be read: a quote that is opened is never closed"
        raise DataFileError(msg)
    return b"".join(head), (*offsets, position), n


@dataclass
class Hdf5Slices(Slices):
    """Rows of the only table of an HDF5 file."""

    key: str = ""

    @classmethod
    def open(cls, path: Path, rows: int) -> Slices | None:
        """Return the slices, or None when there is not exactly one table."""
        import h5py

        with h5py.File(path, "r") as f:
            tables = [k for k in f if isinstance(f[k], h5py.Dataset) and f[k].dtype.names]
            if len(tables) != 1:
                return None
            return cls(path, rows, len(f[tables[0]]), tables[0])

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        import h5py
        from astropy.table import Table

        with (
            h5py.File(self.path, "r") as f,
            h5py.File("part", "w", driver="core", backing_store=False) as part,
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
        import h5py

        with h5py.File(path, "r") as f:
            if "rows" not in f:
                return cls(path, rows, len(f["x"]))
        return WholeObservations.of(Observations.read(path), rows)  # rows are excluded: not cut

    def _read(self, chunk: int, start: int, stop: int) -> Observations:
        import h5py

        with h5py.File(self.path, "r") as f:
            words: dict[str, Any] = {k: tuple(v.decode() for v in f[k][()]) for k in _WORDS}
            arrays = {k: f[k][start:stop] for k in f if k not in _WORDS}
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
        return {"path": self.path, "rows": self.rows, "n": self.n, "_batches": None, "_next": -1}

    @classmethod
    def open(cls, path: Path, rows: int) -> Slices | None:
        """Return the slices."""
        with _parquet().ParquetFile(path) as f:
            return cls(path, rows, int(f.metadata.num_rows))

    def _read(self, chunk: int, start: int, stop: int) -> Table:
        if self._batches is None or self._next != chunk:
            self._batches, self._next = self._from(start), chunk
        assert self._batches is not None
        found = next(self._batches)
        self._next = chunk + 1
        return found

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


def _from_arrow(found: Any) -> Table:
    from astropy.table import MaskedColumn, Table

    table = Table()
    meta = (found.schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    units = _units_of(meta.split("\n")) if meta else {}
    for name in found.column_names:
        column = found.column(name)
        values = column.to_numpy()
        mask = column.is_null().to_numpy()
        if values.dtype == object:
            values = np.asarray(["" if m else str(v) for v, m in zip(values, mask, strict=True)])
        table[name] = MaskedColumn(values, mask=mask) if mask.any() else values
        own = (found.schema.field(name).metadata or {}).get(b"unit", b"").decode()
        table[name].unit = own or units.get(name) or None
    for name in [c for c in table.colnames if c.endswith(".mask")]:  # as astropy stores masks
        if (of := name.removesuffix(".mask")) in table.colnames:
            table[of] = MaskedColumn(table[of], mask=np.asarray(table[name], bool))
            table.remove_column(name)
    return table


def _units_of(lines: list[str]) -> dict[str, str]:
    from astropy.table.meta import get_header_from_yaml

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
        return cls(Path(observations.source), rows, observations.n_rows, observations)

    def _read(self, chunk: int, start: int, stop: int) -> Observations:
        assert self.observations is not None
        return self.observations.in_source(start, stop)


def open_slices(path: str | Path, rows: int) -> Slices:
    """Return the chunks of a file.

    Parameters
    ----------
    path
        FITS, HDF5, CSV, TSV, ECSV or parquet, read in parts; anything else that astropy reads, and
        npz, read whole.
    rows
        Rows per chunk.

    Raises
    ------
    DataFileError
        If the file is missing, empty, of an unknown format, unreadable, or has no rows.
    """
    path = Path(path)
    if holds_arrays(path):
        if path.suffix == ".npz":
            return WholeObservations.of(Observations.read(path), rows)
        opener: Any = ArraySlices
    elif path.name.endswith(".gz") or not path.is_file() or path.stat().st_size == 0:
        opener = None
    else:
        kind = FORMATS.get(path.suffix.lower(), "")
        openers: dict[str, Any] = {"fits": FitsSlices, "hdf5": Hdf5Slices, "parquet": ParquetSlices}
        opener = TextSlices if path.suffix.lower() in _TEXT else openers.get(kind)
    try:
        if opener is not None:
            checked_file(path, rows)
        found: Slices | None = None if opener is None else opener.open(path, rows)
    except (DataFileError, ConfigError):
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        first = str(error).strip().split("\n")[0]
        msg = f"'{path}' cannot be read: {first}"
        raise DataFileError(msg) from None
    if found is None:
        table = read_table(path)  # says what is wrong, where something is
        return WholeTable(path, rows, len(table), table)
    if found.n == 0:
        msg = f"observations file '{path}' has no rows"
        raise DataFileError(msg)
    return found
