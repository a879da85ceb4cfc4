"""Many shards in one file: ``pack.h5`` beside them, read wherever a shard file is missing.

The rows of all shards lie one behind the other in chunked data sets with checksums; a table says
which rows are which shard's. A packed shard reads like the file that it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sbi_core.errors import RunDirectoryError

__all__ = ["PACK", "is_packed", "open_shard", "write_pack"]

PACK = "pack.h5"
_CHUNK_BYTES = 2**20
_NUMBERS = ("schema", "seed", "number", "rows", "failed", "seconds")


class _Rows:
    """Some rows of a data set, indexed like a data set of their own."""

    def __init__(self, data: h5py.Dataset, start: int, stop: int) -> None:
        self._data, self._start, self._stop = data, start, stop
        self.shape = (stop - start, *data.shape[1:])
        self.dtype = data.dtype

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            found = self._data[self._start + begin : self._start + end : step]
        else:
            found = self._data[self._start : self._stop][rows]
        return np.asarray(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


class _Packed(Mapping[str, _Rows]):
    """One shard of a pack, like an open shard file."""

    def __init__(self, f: h5py.File, name: str) -> None:
        names = [v.decode() for v in f["shards/name"][()]]
        if name not in names:
            raise FileNotFoundError(name)
        k = names.index(name)
        stop = np.cumsum(f["shards/rows"][()])
        self._f = f
        self._rows = int(stop[k] - f["shards/rows"][k]), int(stop[k])
        self.attrs: dict[str, Any] = {n: f[f"shards/{n}"][k] for n in _NUMBERS}
        self.attrs["identity"] = f.attrs["identity"]

    def __getitem__(self, name: str) -> _Rows:
        return _Rows(self._f["rows"][name], *self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._f["rows"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._f["rows"])

    def __len__(self) -> int:
        return len(self._f["rows"])


@contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """Open a shard: its own file, or its rows of the pack beside it.

    Raises
    ------
    OSError
        If it is in neither, or what is there is damaged.
    """
    pack = path.with_name(PACK)
    if path.exists() or not pack.exists():
        with h5py.File(path, "r") as f:
            _refuse_empty(f)
            yield f
        return
    with h5py.File(pack, "r") as f:
        _refuse_empty(f["rows"])
        yield _Packed(f, path.name)


def _refuse_empty(group: h5py.Group) -> None:
    """Raise OSError when a data set promises more than is stored: ours are not compressed."""
    for name, data in group.items():
        if isinstance(data, h5py.Dataset) and data.nbytes > data.id.get_storage_size():
            msg = f"'{name}' of shape {data.shape} is not in the file"
            raise OSError(msg)


def is_packed(path: Path) -> bool:
    """Return whether a shard has no file, but a place in the pack."""
    pack = path.with_name(PACK)
    if path.exists() or not pack.exists():
        return False
    try:
        with open_shard(path):
            return True
    except FileNotFoundError:
        return False
    except (OSError, KeyError, RuntimeError) as error:
        msg = f"'{pack}' is damaged ({error}); pass --restart simulate to make it again"
        raise RunDirectoryError(msg) from None


def write_pack(paths: Sequence[Path]) -> Path:
    """Put shards, in order, into one file; one shard in memory. The shard files stay.

    Parameters
    ----------
    paths
        All shards of one run; some may be packed already.

    Raises
    ------
    RunDirectoryError
        If a shard is missing or damaged.
    """
    pack = paths[0].with_name(PACK)
    temporary = pack.with_name(f".{pack.name}.tmp{os.getpid()}")
    try:
        with h5py.File(temporary, "w") as f:
            _copy(f, paths)
        with temporary.open("rb+") as raw:
            os.fsync(raw.fileno())
        os.replace(temporary, pack)
    except (KeyError, OSError) as error:
        msg = f"cannot pack the shards in '{pack.parent}': {error}"
        raise RunDirectoryError(msg) from None
    finally:
        temporary.unlink(missing_ok=True)
    return pack


def _copy(f: h5py.File, paths: Sequence[Path]) -> None:
    facts: dict[str, list[Any]] = {name: [] for name in _NUMBERS}
    start = 0
    rows = f.create_group("rows")
    for k, path in enumerate(paths):
        with open_shard(path) as shard:
            if k == 0:
                f.attrs["identity"] = shard.attrs["identity"]
            for name in _NUMBERS:
                facts[name].append(shard.attrs[name])
            n = int(shard.attrs["rows"])
            for name in shard:
                value = np.asarray(shard[name][:])
                if name not in rows:
                    per = max(value.dtype.itemsize * int(np.prod(value.shape[1:], dtype=int)), 1)
                    length = int(np.clip(_CHUNK_BYTES // per, 1, max(n, 1)))
                    rows.create_dataset(
                        name,
                        (0, *value.shape[1:]),
                        value.dtype,
                        maxshape=(None, *value.shape[1:]),
                        chunks=(length, *value.shape[1:]),
                        fletcher32=True,
                    )
                rows[name].resize(start + n, axis=0)
                rows[name][start : start + n] = value
            start += n
    for name, values in facts.items():
        f[f"shards/{name}"] = np.asarray(values)
    f["shards/name"] = np.asarray([p.name.encode() for p in paths])
