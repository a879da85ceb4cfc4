"""Simulations on disk, read in blocks: for training data that do not fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_core.data.batch import Batch
from sbi_core.errors import RunDirectoryError, SimulationError, counted
from sbi_core.simulate.store import open_shard

__all__ = ["ShardedBatch"]

I64 = NDArray[np.int64]
_FIELDS = ("theta", "x", "x_err", "mask", "context", "split_key", "theta_mask", "theta_set")
_FLOAT = ("theta", "x", "x_err", "context", "theta_set")


class _Block(NamedTuple):
    """Stored rows start..stop of one file, of which ``kept`` succeeded."""

    file: int
    start: int
    stop: int
    kept: int


class ShardedBatch:
    """The successful rows of many shard files, as if they were one batch.

    Row k is the k-th row that succeeded, as in ``Batch.succeeded`` of all shards joined. Nothing
    is kept in memory but the number of rows of every block.

    Parameters
    ----------
    paths
        HDF5 files with the fields of :class:`~sbi_core.Batch`, in order.
    block_rows
        Rows that are read at a time.

    Raises
    ------
    RunDirectoryError
        If a file is missing or damaged.
    SimulationError
        If no simulation succeeded.
    """

    def __init__(self, paths: Iterable[str | Path], *, block_rows: int = 16_384) -> None:
        self.paths = [Path(p) for p in paths]
        blocks: list[_Block] = []
        total = hashlib.sha256()
        self._row_bytes = 0
        for number, path in enumerate(self.paths):
            try:
                with open_shard(path) as f:
                    ok = np.asarray(f["ok"]) if "ok" in f else np.ones(len(f["x"]), bool)
                    self._row_bytes = self._row_bytes or _row_bytes(f)
                    for key in ("identity", "seed", "number"):
                        total.update(str(f.attrs.get(key, "")).encode())
                    for name in ("theta", "x"):
                        total.update(str(f[name].shape).encode())
                        total.update(np.asarray(f[name][:1], np.float32).tobytes())
                    total.update(np.packbits(ok).tobytes())
            except (OSError, KeyError) as error:
                msg = f"simulation shard '{path}' is missing or damaged ({error}); run simulate"
                raise RunDirectoryError(msg) from None
            for start in range(0, len(ok), block_rows):
                part = ok[start : start + block_rows]
                blocks.append(_Block(number, start, start + len(part), int(part.sum())))
        self._blocks = blocks
        self.ends: I64 = np.cumsum([0, *(b.kept for b in blocks)])
        if self.ends[-1] == 0:
            msg = f"no valid simulation in {counted(len(self.paths), 'shard file')}: all failed"
            raise SimulationError(msg)
        self.identity = total.hexdigest()

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def blocks(self) -> int:
        """Number of blocks; block k holds rows ``ends[k] .. ends[k + 1]``."""
        return len(self._blocks)

    @property
    def nbytes(self) -> int:
        """Memory that all rows would take in float32."""
        return len(self) * self._row_bytes

    @property
    def succeeded(self) -> ShardedBatch:
        """Itself: failed rows are never read."""
        return self

    def read(self, block: int, only: Sequence[str] = _FIELDS) -> Batch:
        """Return the rows of one block, in float32.

        Parameters
        ----------
        block
            Its number.
        only
            Fields to read; ``x`` is empty when it is not among them.

        Raises
        ------
        RunDirectoryError
            If the file is damaged.
        """
        b = self._blocks[block]
        rows = slice(b.start, b.stop)
        try:
            with open_shard(self.paths[b.file]) as f:
                arrays: dict[str, Any] = {k: f[k][rows] for k in _FIELDS if k in only and k in f}
                if b.kept < b.stop - b.start:
                    ok = np.asarray(f["ok"][rows], bool)
                    arrays = {k: v[ok] for k, v in arrays.items()}
        except (OSError, KeyError) as error:
            msg = f"simulation shard '{self.paths[b.file]}' is damaged ({error}); run simulate"
            raise RunDirectoryError(msg) from None
        for name in _FLOAT:
            if name in arrays:
                arrays[name] = arrays[name].astype(np.float32, copy=False)
        arrays.setdefault("x", np.empty((b.kept, 0), np.float32))
        return Batch.of_arrays(**arrays)

    def keys(self, block: int) -> I64:
        """Return the units of splitting of one block; row numbers where none are stored."""
        with open_shard(self.paths[self._blocks[block].file]) as f:
            stored = "split_key" in f
        if not stored:
            return np.arange(self.ends[block], self.ends[block + 1])
        found = self.read(block, ("split_key",)).split_key
        assert found is not None
        return np.asarray(found.numpy())

    def __getitem__(self, rows: Any) -> Batch:
        """Return the rows chosen by a slice or an index array, in that order."""
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        wanted = np.atleast_1d(wanted)
        if wanted.dtype == bool:
            wanted = np.flatnonzero(wanted)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < len(self):
            msg = f"rows {ordered[0]}..{ordered[-1]} of {len(self)} simulations"
            raise IndexError(msg)
        where = np.searchsorted(self.ends, ordered, side="right") - 1
        parts = [
            self.read(int(block))[ordered[where == block] - self.ends[block]]
            for block in np.unique(where)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return Batch.cat(parts)[torch.as_tensor(back)] if parts else self.read(0)[:0]

    def load(self) -> Batch:
        """Return all rows."""
        return Batch.cat([self.read(k) for k in range(self.blocks)])

    def __repr__(self) -> str:
        size = self.nbytes / 2**30
        return f"ShardedBatch({len(self)} rows in {len(self.paths)} files, {size:.2f} GiB)"


def _row_bytes(f: Any) -> int:
    total = 0
    for name in _FIELDS:
        if name in f:
            per = 4 if name in _FLOAT else f[name].dtype.itemsize
            total += per * int(np.prod(f[name].shape[1:], dtype=int))
    return total
