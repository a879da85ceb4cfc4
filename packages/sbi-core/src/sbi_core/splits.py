"""Training, validation and test rows, chosen by key."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sbi_core.errors import TrainingError
from sbi_core.rng import stream

__all__ = ["Splits", "split_by_key"]

I64 = NDArray[np.int64]


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
    so that adding rows never moves others.

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
    words = np.asarray(keys).astype(np.int64).view(np.uint64)
    salt = stream(seed, "split").integers(0, 2**63, dtype=np.uint64)
    u = _mix(_mix(words ^ salt) + salt).astype(np.float64) / 2.0**64
    sides = [np.flatnonzero(s) for s in (u >= val + test, (u >= test) & (u < val + test), u < test)]
    for side, name in zip(sides, ("training", "validation", "test"), strict=True):
        if len(side) == 0:
            n, k = len(words), len(np.unique(words))
            msg = f"{n} simulations with {k} split key(s) leave the {name} split empty: need more"
            raise TrainingError(msg)
    digest = hashlib.sha256(b"|".join(s.astype("<i8").tobytes() for s in sides)).hexdigest()
    return Splits(sides[0], sides[1], sides[2], digest)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: every bit of the input changes every bit of the output."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
