r"""Rows for the training loop: from memory, or from blocks through a shuffle buffer.

Every epoch gets each training row once, in slices of equal size (to within one row); the order is a
function of (seed, epoch). In memory it is a permutation of all rows. Streamed, it is a permutation
of the blocks, and a permutation of the rows in every full buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_core.components import RowSource
from sbi_core.data.batch import Batch
from sbi_core.training.checkpoint import digest

__all__ = ["Feed", "InMemory", "Slice", "Streamed", "Targets", "slice_sizes"]

I64 = NDArray[np.int64]
Targets = Callable[[Batch], Tensor]
_GATHERED = 1 << 16  # rows gathered at once; slices are views of them
_LARGEST_MEASURED = 100_000  # held-out rows kept in memory while streaming


class Slice(NamedTuple):
    """Rows of one step: numbers, targets and data."""

    rows: I64
    targets: Tensor
    batch: Batch


class Feed(Protocol):
    """Source of rows for the loop."""

    identity: str

    def take(self, rows: I64) -> tuple[Tensor, Batch]:
        """Return targets and noise-free data of some rows, in that order."""
        ...

    def measured(self, rows: I64) -> I64:
        """Return the held-out rows over which losses are averaged."""
        ...

    def slices(self, train: I64, rng: np.random.Generator, steps: int) -> Iterator[Slice]:
        """Yield the training rows of one epoch in ``steps`` slices."""
        ...


def slice_sizes(n: int, steps: int) -> I64:
    """Return sizes (steps,) that sum to n and differ by at most one."""
    sizes = np.full(steps, n // steps)
    sizes[: n % steps] += 1
    return sizes


def _cut(rows: I64, targets: Tensor, batch: Batch, sizes: I64) -> Iterator[Slice]:
    """Yield consecutive slices of rows in memory."""
    start = 0
    for size in sizes:
        part = slice(start, start + int(size))
        yield Slice(rows[part], targets[part], batch[part])
        start += int(size)


class InMemory:
    """All rows, on the device, in float32."""

    def __init__(self, batch: Batch, targets: Tensor, device: torch.device) -> None:
        self.batch = batch.to(device, torch.float32)
        self.targets = targets.to(device, torch.float32)
        self.identity = digest(self.targets, self.batch.x)

    def take(self, rows: I64) -> tuple[Tensor, Batch]:
        """Return targets and noise-free data of some rows, in that order."""
        ix = torch.as_tensor(rows, device=self.targets.device)
        return self.targets[ix], self.batch[ix]

    def measured(self, rows: I64) -> I64:
        """Return all of them: they are in memory."""
        return rows

    def slices(self, train: I64, rng: np.random.Generator, steps: int) -> Iterator[Slice]:
        """Yield the training rows of one epoch in ``steps`` slices."""
        order = rng.permutation(train)
        sizes = slice_sizes(len(order), steps)
        per = max(1, _GATHERED // max(int(sizes[0]), 1))
        start = 0
        for k in range(0, steps, per):
            group = sizes[k : k + per]
            rows = order[start : start + int(group.sum())]
            yield from _cut(rows, *self.take(rows), group)
            start += len(rows)


class Streamed:
    """Rows read in blocks, with at most ``max_bytes`` of them in memory.

    Parameters
    ----------
    source
        The rows.
    targets
        Function of a batch that returns the targets of its rows.
    device
        Device that slices are sent to, in float32.
    max_bytes
        Memory for rows; a quarter of it is the shuffle buffer, the rest is for copies.
    """

    def __init__(
        self, source: RowSource, targets: Targets, device: torch.device, max_bytes: float
    ) -> None:
        self.source, self.targets, self.device = source, targets, device
        self.buffer = max(1, int(max_bytes / 4 / max(source.nbytes / len(source), 1)))
        self.identity = source.identity
        self._rest: list[tuple[I64, Tensor, Batch]] = []  # rows that did not fill a slice

    def _sent(self, targets: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        return targets.to(self.device, torch.float32), batch.to(self.device, torch.float32)

    def take(self, rows: I64) -> tuple[Tensor, Batch]:
        """Return targets and noise-free data of some rows, in that order."""
        batch = self.source[rows]
        return self._sent(self.targets(batch), batch)

    def measured(self, rows: I64) -> I64:
        """Return at most 1e5 of them, evenly spaced: enough for a mean."""
        if len(rows) <= _LARGEST_MEASURED:
            return rows
        return rows[np.linspace(0, len(rows) - 1, _LARGEST_MEASURED).astype(np.int64)]

    def slices(self, train: I64, rng: np.random.Generator, steps: int) -> Iterator[Slice]:
        """Yield the training rows of one epoch in ``steps`` slices."""
        sizes = slice_sizes(len(train), steps)
        done = 0
        for rows, targets, batch, last in self._buffers(train, rng):
            fit = int(np.searchsorted(np.cumsum(sizes[done:]), len(rows), side="right"))
            group = sizes[done : done + fit] if not last else sizes[done:]
            order = rng.permutation(len(rows))
            per = max(1, _GATHERED // max(int(sizes[0]), 1))
            start = 0
            for k in range(0, len(group), per):
                some = group[k : k + per]
                chosen = order[start : start + int(some.sum())]
                ix = torch.as_tensor(chosen)
                yield from _cut(rows[chosen], *self._sent(targets[ix], batch[ix]), some)
                start += len(chosen)
            done += len(group)
            ix = torch.as_tensor(order[start:])
            self._rest = [(rows[order[start:]], targets[ix], batch[ix])]

    def _buffers(
        self, train: I64, rng: np.random.Generator
    ) -> Iterator[tuple[I64, Tensor, Batch, bool]]:
        """Yield full buffers; the rows that one leaves over begin the next one."""
        ends = self.source.ends
        edges = np.searchsorted(train, ends)
        blocks = rng.permutation(np.flatnonzero(np.diff(edges)))
        parts: list[tuple[I64, Tensor, Batch]] = []
        self._rest = []
        for k, block in enumerate(blocks):
            rows = train[edges[block] : edges[block + 1]]
            batch = self.source.read(int(block))[torch.as_tensor(rows - ends[block])]
            parts.append((rows, self.targets(batch).to(torch.float32), batch))
            last = k == len(blocks) - 1
            if last or sum(len(p[0]) for p in parts) >= self.buffer:
                full = _joined([*self._rest, *parts])
                parts, self._rest = [], []  # free the pieces before the buffer is used
                yield (*full, last)
                del full


def _joined(parts: list[tuple[I64, Tensor, Batch]]) -> tuple[I64, Tensor, Batch]:
    return (
        np.concatenate([p[0] for p in parts]),
        torch.cat([p[1] for p in parts]),
        Batch.cat([p[2] for p in parts]),
    )
