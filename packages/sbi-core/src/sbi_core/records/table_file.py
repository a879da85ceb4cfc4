"""Tables of any length, written part by part: nothing but the current part is in memory.

All parts have the same columns. The file appears under its name when the last part is written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        _WRITERS[path.suffix](temporary, parts, n)
        with temporary.open("rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None
    finally:
        temporary.unlink(missing_ok=True)


def _text(form: str) -> Callable[[Path, Callable[[], Iterator[Table]], int], None]:
    def write(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
        with path.open("w", encoding="utf-8", newline="") as f:
            for k, part in enumerate(parts()):
                text = io.StringIO()
                part.write(text, format=form)
                content = text.getvalue()
                if k:  # the header once: comment lines and the line of names
                    lines = content.split("\n")
                    comments = next(i for i, x in enumerate(lines) if not x.startswith("#"))
                    content = "\n".join(lines[comments + 1 :])
                f.write(content)

    return write


def _fits(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    from astropy.io import fits

    widths: dict[str, int] = {}
    for part in parts():  # FITS columns of words have one width
        for name in part.colnames:
            if part[name].dtype.kind == "U":
                longest = int(np.char.str_len(np.char.encode(part[name], "utf-8")).max(initial=1))
                widths[name] = max(widths.get(name, 1), longest)
    written = 0
    with path.open("wb") as f:
        for k, part in enumerate(parts()):
            for name, width in widths.items():
                encoded = np.char.encode(np.asarray(part[name]), "utf-8")
                part[name] = encoded.astype(f"S{width}")
            hdu = fits.table_to_hdu(part)
            if k == 0:
                header = hdu.header.copy()
                header["NAXIS2"] = n
                f.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
                f.write(header.tostring().encode("ascii"))
            rows = np.ascontiguousarray(np.asarray(hdu.data))
            assert rows.dtype.itemsize == header["NAXIS1"]
            f.write(rows.tobytes())
            written += rows.nbytes
        f.write(bytes(-written % _BLOCK))


def _hdf5(path: Path, parts: Callable[[], Iterator[Table]], n: int) -> None:
    import h5py

    with h5py.File(path, "w") as f:
        start, rows = 0, None
        for k, part in enumerate(parts()):
            words = [c for c in part.colnames if part[c].dtype.kind == "U"]
            if k == 0:
                first = part[:1].copy()
                for name in words:
                    first[name] = first[name].astype("S1")
                with h5py.File("part", "w", driver="core", backing_store=False) as described:
                    first.write(described, path="table", format="hdf5", serialize_meta=True)
                    described.copy("table.__table_column_meta__", f)
                types = [
                    (c, h5py.string_dtype() if c in words else part[c].dtype)
                    for c in part.colnames
                ]
                rows = f.create_dataset("table", (n,), np.dtype(types), chunks=True)
            assert rows is not None
            block = np.empty(len(part), rows.dtype)
            for name in part.colnames:
                column = np.asarray(part[name])
                block[name] = column.astype(object) if name in words else column
            rows[start : start + len(part)] = block
            start += len(part)


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

    whole = vstack(list(parts()), metadata_conflicts="silent")
    whole.write(path, format="votable", overwrite=True)


_WRITERS: dict[str, Callable[[Path, Callable[[], Iterator[Table]], int], None]] = {
    **{suffix: _text(form) for suffix, form in _TEXT.items()},
    ".fits": _fits,
    ".h5": _hdf5,
    ".parquet": _parquet,
    ".vot": _votable,
}
STREAMED = tuple(_WRITERS)
