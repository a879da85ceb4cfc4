"""Training, validation and test rows, chosen by a hash of their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.errors import TrainingError, counted
from sbi_core.rng import splitmix64, stream
from sbi_core.training.config import config_of

__all__ = ["Splits", "split_blocks", "split_by_key", "split_seed", "splits_of"]

I64 = NDArray[np.int64]
_HASHED_ROWS = 1 << 20  # row numbers per hash update


class Splits(NamedTuple):
    """Row numbers of the three splits, each increasing, and a hash of them."""

    train: I64
    val: I64
    test: I64
    hash: str


def split_seed(training: Training) -> int:
    """Return the seed of the splits and of the noise of held-out rows."""
    return training.seed if training.split_seed is None else training.split_seed


def splits_of(training: Training) -> Splits:
    """Return the splits of a training.

    Raises
    ------
    TrainingError
        If one split is empty.
    """
    config, rows = config_of(training), training.batch
    seed = split_seed(training)
    if not isinstance(rows, Batch):
        blocks = (rows.keys(k) for k in range(len(rows.ends) - 1))
        return split_blocks(blocks, seed, val=config.val_fraction, test=config.test_fraction)
    keys = np.arange(len(rows)) if rows.split_key is None else rows.split_key.cpu().numpy()
    return split_by_key(keys, seed, val=config.val_fraction, test=config.test_fraction)


def split_by_key(
    keys: NDArray[np.int64] | Tensor, seed: int, *, val: float = 0.1, test: float = 0.1
) -> Splits:
    """Split rows so that rows with equal keys end in the same split.

    The split of a row depends on its key and the seed alone (splitmix64), so adding rows never
    moves others. The keys -1, -2 and -3 are always training, validation and test.

    Parameters
    ----------
    keys
        Key of every row, (n,) integers.
    seed
        Root seed.
    val, test
        Expected fraction of keys.

    Raises
    ------
    TrainingError
        If a split is empty.
    """
    return split_blocks([np.asarray(keys)], seed, val=val, test=test)


def split_blocks(
    blocks: Iterable[NDArray[np.int64]], seed: int, *, val: float = 0.1, test: float = 0.1
) -> Splits:
    """Split rows whose keys come in blocks; the result is that of :func:`split_by_key`.

    Parameters
    ----------
    blocks
        Keys of consecutive rows.
    seed, val, test
        As in :func:`split_by_key`.

    Raises
    ------
    TrainingError
        If a split is empty.
    """
    salt = stream(seed, "split").integers(0, 2**63, dtype=np.uint64)
    parts, some = [], set[int]()
    for keys in blocks:
        words = keys.astype(np.int64).view(np.uint64)
        u = _mix(_mix(words ^ salt) + salt).astype(np.float64) / 2.0**64
        side = (u < val + test).astype(np.int8) + (u < test)  # 0 train, 1 val, 2 test
        fixed = (keys < 0) & (keys >= -3)
        parts.append(np.where(fixed, -1 - keys, side).astype(np.int8))
        if len(some) < 1000:
            some.update(words[:1000].tolist())
    side = np.concatenate(parts)
    sides = [np.flatnonzero(side == k) for k in range(3)]
    for rows, name in zip(sides, ("training", "validation", "test"), strict=True):
        if len(rows) == 0:
            n, k = len(side), len(some)
            many = "or more " if k >= 1000 else ""
            msg = (
                f"{counted(n, 'simulation')} with {counted(k, f'{many}split key')} leave the "
                f"{name} split empty: simulate more"
            )
            raise TrainingError(msg)
    return Splits(sides[0], sides[1], sides[2], _digest(sides))


def _digest(sides: list[I64]) -> str:
    total = hashlib.sha256()
    for k, rows in enumerate(sides):
        total.update(b"|" if k else b"")
        for start in range(0, len(rows), _HASHED_ROWS):
            total.update(rows[start : start + _HASHED_ROWS].astype("<i8").tobytes())
    return total.hexdigest()


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the splitmix64 hash of every number."""
    return splitmix64(x + np.uint64(0x9E3779B97F4A7C15))
