"""Tables of any length, written part by part: nothing but the current part is in memory.

All parts have the same columns. The file appears under its name when the last part is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.observations import text_of
from sbi_core.data.writing import harmless, written
from sbi_core.errors import ConfigError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["STREAMED", "write_parts"]

_TEXT = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".tsv": "ascii.tab"}
_BLOCK = 2880  # bytes of a FITS block


def write_parts(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    """Write a table from its parts.

    Parameters
    ----------
    path
        ``.ecsv``, ``.csv``, ``.tsv``, ``.fits``, ``.h5`` or ``.parquet``; with ``.vot`` all parts
        are held in memory.
    parts
        Yields the parts, from the first one whenever it is called.
    n
        Rows of all parts.

    Raises
    ------
    ConfigError
        If the disk is full or the file cannot be written.
    """
    try:
        with written(path) as temporary:
            _WRITERS[path.suffix.lower()](temporary, parts, n)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None


def _harmless(part: Table, suffix: str) -> Table:
    """Return the table with words in the form that the format holds."""
    out = part.copy(copy_data=False)
    for name in part.colnames:
        words = harmless(part[name], suffix)
        if words is not part[name]:
            out[name] = words
    return out


def _text(form: str, suffix: str) -> Callable[[Path, Callable[[], Iterator[Table]], int], None]:
    def write(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
        with path.open("w", encoding="utf-8", newline="") as f:
            for k, part in enumerate(parts()):
                content = text_of(_harmless(part, suffix), form)
                if k:  # the header once: comment lines and the line of names
                    lines = content.split("\n")
                    comments = next(i for i, x in enumerate(lines) if not x.startswith("#"))
                    content = "\n".join(lines[comments + 1 :])
                f.write(content)

    return write


def _widths(parts: Iterator[Table]) -> dict[str, int]:
    """Return the bytes of the longest word of every column of words."""
    widths: dict[str, int] = {}
    for part in parts:
        for name in part.colnames:
            if part[name].dtype.kind == "U":
                words = np.char.encode(np.asarray(part[name]), "utf-8")
                widths[name] = max(widths.get(name, 1), int(np.char.str_len(words).max(initial=1)))
    return widths


def _encoded(part: Table, widths: dict[str, int]) -> NDArray[Any]:
    """Return the rows as a structured array with words of one width."""
    types = [(c, f"S{widths[c]}" if c in widths else part[c].dtype) for c in part.colnames]
    rows = np.empty(len(part), types)
    for name in part.colnames:
        column = np.asarray(part[name])
        rows[name] = np.char.encode(column, "utf-8") if name in widths else column
    return rows


def _fits(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    from astropy.io import fits

    widths = _widths(parts())
    written = 0
    with path.open("wb") as f:
        for k, part in enumerate(parts()):
            rows = _encoded(part, widths)
            if k == 0:
                header = fits.BinTableHDU(rows[:1]).header
                header["NAXIS2"] = n
                for i, name in enumerate(part.colnames):  # any unit, dex among them
                    if part[name].unit is not None:
                        header[f"TUNIT{i + 1}"] = str(part[name].unit)
                for key, value in part.meta.items():
                    header[key[:8].upper()] = str(value)[:60]
                f.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
                f.write(header.tostring().encode("ascii"))
            big_endian = rows.astype(rows.dtype.newbyteorder(">"))
            f.write(big_endian.tobytes())
            written += big_endian.nbytes
        f.write(bytes(-written % _BLOCK))


def _hdf5(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    import h5py

    widths = _widths(parts())
    with h5py.File(path, "w") as f:
        start, stored = 0, None
        for part in parts():
            rows = _encoded(part, widths)
            if stored is None:
                first = part[:1].copy()
                for name in widths:
                    first[name] = rows[name][:1]
                with h5py.File(token_hex(8), "w", driver="core", backing_store=False) as described:
                    first.write(described, path="table", format="hdf5", serialize_meta=True)
                    described.copy("table.__table_column_meta__", f)
                stored = f.create_dataset("table", (n,), rows.dtype, chunks=True)
            stored[start : start + len(rows)] = rows
            start += len(rows)


def _parquet(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        msg = f"parquet files need pyarrow: python -m pip install 'sbi-core[parquet]' ({error})"
        raise ConfigError(msg) from None
    writer: Any = None
    try:
        for part in parts():
            columns = [pyarrow.array(np.asarray(part[c]).tolist() if part[c].dtype.kind == "U"
                                     else np.asarray(part[c])) for c in part.colnames]  # fmt: skip
            fields = [
                pyarrow.field(c, a.type, metadata={"unit": str(part[c].unit or "")})
                for c, a in zip(part.colnames, columns, strict=True)
            ]
            table = pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields))
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _votable(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    from astropy.table import vstack

    harmless_parts = [_harmless(part, ".vot") for part in parts()]
    whole = vstack(harmless_parts, metadata_conflicts="silent")
    whole.write(path, format="votable", overwrite=True)


_WRITERS: dict[str, Callable[[Path, Callable[[], Iterator[Table]], int], None]] = {
    **{suffix: _text(form, suffix) for suffix, form in _TEXT.items()},
    ".fits": _fits,
    ".h5": _hdf5,
    ".parquet": _parquet,
    ".vot": _votable,
}
STREAMED = tuple(_WRITERS)
