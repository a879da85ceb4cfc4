r"""Ranks of a truth among draws, and how much of a rank lies in an interval.

With :math:`S` draws a rank takes the :math:`S+1` values :math:`0..S`. Rank :math:`r` stands for the
cell :math:`[r/(S+1), (r+1)/(S+1)]` of the unit interval; spreading each rank evenly over its cell
makes a uniform rank exactly uniform on [0, 1], whatever :math:`S` is.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cells", "FloatArray", "IntArray", "below_and_equal", "check_draws", "rank_with_ties"]

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]


def below_and_equal(samples: FloatArray, theta: FloatArray) -> tuple[IntArray, IntArray]:
    """How many draws (S, B, d) lie below the truths (B, d), and how many tie with them."""
    samples, theta = np.asarray(samples), np.asarray(theta)
    check_draws(samples, theta)
    return np.count_nonzero(samples < theta, axis=0), np.count_nonzero(samples == theta, axis=0)


def rank_with_ties(below: IntArray, equal: IntArray, rng: np.random.Generator) -> IntArray:
    """Rank of a value that exceeds ``below`` draws and ties with ``equal``, at random among them.

    Only a random place among the ties leaves the rank of an integer parameter, or of one that
    piles up on a bound, uniform.
    """
    return np.asarray(below + rng.integers(0, equal, endpoint=True))


@dataclass(frozen=True, slots=True)
class Cells:
    """Intervals [left, right] of the unit interval, over each of which one truth is spread evenly.

    Attributes
    ----------
    left, right : (B, ...)
    """

    left: FloatArray
    right: FloatArray

    @classmethod
    def of_ranks(cls, low: IntArray, high: IntArray, draws: int) -> Self:
        """Cells of the ranks ``low`` to ``high`` (inclusive; they differ for ties)."""
        return cls(low / (draws + 1), (high + 1) / (draws + 1))

    def fraction(self, start: float, stop: float) -> NDArray[np.float64]:
        """Share of every cell that lies in [start, stop]."""
        inside = np.minimum(self.right, stop) - np.maximum(self.left, start)
        return np.asarray(np.clip(inside, 0.0, None) / (self.right - self.left), dtype=np.float64)


def check_draws(samples: FloatArray, theta: FloatArray) -> None:
    """Raise ``ValueError`` unless samples (S, B, d) and theta (B, d) fit and are finite."""
    if samples.ndim != 3 or theta.ndim != 2 or samples.shape[1:] != theta.shape:
        raise ValueError(
            "samples must be (draws, objects, parameters) and theta (objects, parameters), "
            f"not {samples.shape} and {theta.shape}"
        )
    if 0 in samples.shape:
        raise ValueError(f"nothing to diagnose: samples have shape {samples.shape}")
    for name, values in (("samples", samples), ("theta", theta)):
        if not np.isfinite(values).all():
            # A NaN compares as "not below" and would pass silently for rank 0.
            bad = np.unique(np.argwhere(~np.isfinite(values))[:, -2])
            raise ValueError(f"{name} are not finite for objects {bad[:10].tolist()}")
