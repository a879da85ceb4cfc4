"""Training, validation and test rows, chosen by key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sbi_core.errors import TrainingError
from sbi_core.rng import stream

__all__ = ["Splits", "split_blocks", "split_by_key"]

I64 = NDArray[np.int64]
_HASHED_ROWS = 1 << 20  # row numbers that are hashed at a time


class Splits(NamedTuple):
    """Row numbers of the three splits, each increasing, and the hash of all of them."""

    train: I64
    val: I64
    test: I64
    hash: str


def split_by_key(
    keys: NDArray[np.int64] | Tensor, seed: int, *, val: float = 0.1, test: float = 0.1
) -> Splits:
    """Split rows so that equal keys stay together.

    A row's side depends on its key and the seed alone (a 64-bit mixing function, splitmix64),
    so that adding rows never moves others. The keys -1, -2 and -3 name the side themselves:
    training, validation, test.

    Parameters
    ----------
    keys
        Unit of splitting per row, (n,) integers.
    seed
        Root seed.
    val, test
        Expected share of keys.

    Raises
    ------
    TrainingError
        If one side is left empty.
    """
    return split_blocks([np.asarray(keys)], seed, val=val, test=test)


def split_blocks(
    blocks: Iterable[NDArray[np.int64]], seed: int, *, val: float = 0.1, test: float = 0.1
) -> Splits:
    """Split rows whose keys come in blocks, to the same result as all of them at once.

    Parameters
    ----------
    blocks
        Keys of consecutive rows.
    seed, val, test
        As in :func:`split_by_key`.

    Raises
    ------
    TrainingError
        If one side is left empty.
    """
    salt = stream(seed, "split").integers(0, 2**63, dtype=np.uint64)
    found, some = [], set[int]()
    for keys in blocks:
        words = keys.astype(np.int64).view(np.uint64)
        u = _mix(_mix(words ^ salt) + salt).astype(np.float64) / 2.0**64
        side = (u < val + test).astype(np.int8) + (u < test)  # 0 train, 1 val, 2 test
        named = (keys < 0) & (keys >= -3)
        found.append(np.where(named, -1 - keys, side).astype(np.int8))
        if len(some) < 1000:
            some.update(words[:1000].tolist())
    side = np.concatenate(found)
    sides = [np.flatnonzero(side == k) for k in range(3)]
    for rows, name in zip(sides, ("training", "validation", "test"), strict=True):
        if len(rows) == 0:
            n, k = len(side), len(some)
            many = "or more " if k >= 1000 else ""
            msg = (
                f"{n} simulations with {k} {many}split key(s) leave the {name} split empty: "
                "need more"
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
    """splitmix64: every bit of the input changes every bit of the output."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
