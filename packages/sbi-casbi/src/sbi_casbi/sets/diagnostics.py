r"""Calibration and accuracy of integers and of sets.

The 90 % highest-probability set of an integer contains its most probable values. The value at which
the cumulative probability passes the level is included at random, with the probability that makes
the expected coverage exact. Sets are compared by the OSPA distance: with cut-off c and
:math:`m \le n` members,

.. math:: d^2 = \frac1n \left[\min_\pi \sum_{i=1}^{m} \min(c, |a_i - b_{\pi(i)}|)^2
                + c^2 (n - m)\right].

References:
    | Schuhmacher, Vo & Vo 2008, IEEE Trans. Signal Process. 56, 3447 (OSPA)
    | Czado, Gneiting & Held 2009, Biometrics 65, 1254
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["in_probability_set", "ospa", "pmf_of_draws", "pp_deviation", "randomised_ranks"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def in_probability_set(
    pmf: F64, index: I64, level: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return True where the truth is in the highest-probability set, (n,).

    Parameters
    ----------
    pmf
        Probabilities, (n, R).
    index
        Index of the truth, (n,).
    level
        Probability of the set.
    rng
        Random generator for the boundary value.
    """
    rows = np.arange(len(pmf))
    order = np.argsort(-pmf, axis=1, kind="stable")
    ranked = np.take_along_axis(pmf, order, axis=1)
    rank = np.argmax(order == index[:, None], axis=1)
    above = np.cumsum(ranked, axis=1)[rows, rank] - ranked[rows, rank]
    share = (level - above) / np.maximum(ranked[rows, rank], 1e-300)
    return np.asarray(rng.random(len(pmf)) < share)


def pmf_of_draws(draws: I64, low: int, high: int) -> F64:
    """Return the frequencies of integers low..high among draws (S, n), (n, R)."""
    shifted = np.clip(draws, low, high) - low
    size = high - low + 1
    n = draws.shape[1]
    flat = np.bincount((shifted + size * np.arange(n)).ravel(), minlength=n * size)
    return np.asarray(flat.reshape(n, size) / len(draws))


def randomised_ranks(samples: F64, truth: F64, rng: np.random.Generator) -> F64:
    """Return the ranks of truths (n, ...) among samples (S, n, ...), uniform in 0..1 if calibrated.

    Ties are broken at random, so that discrete values (for example, a member that does not exist)
    are handled exactly.
    """
    below = (samples < truth).sum(0)
    equal = (samples == truth).sum(0)
    return np.asarray((below + rng.random(truth.shape) * (equal + 1)) / (len(samples) + 1))


def pp_deviation(ranks: F64) -> F64:
    """Return the largest deviation of the ranks' distribution (n, ...) from uniform, (...)."""
    n = len(ranks)
    ordered = np.sort(ranks, axis=0)
    shape = (n,) + (1,) * (ranks.ndim - 1)
    upper = np.arange(1, n + 1).reshape(shape) / n - ordered
    lower = ordered - np.arange(n).reshape(shape) / n
    return np.asarray(np.maximum(upper, lower).max(axis=0))


def ospa(a: F64, b: F64, scale: F64, cutoff: float = 1.0) -> float:
    """Return the OSPA distance of sets (m, d) and (n, d), in units of ``scale`` (d,).

    Parameters
    ----------
    a, b
        The sets.
    scale
        Units of the coordinates.
    cutoff
        Distance from which a member counts as missed.
    """
    if len(a) > len(b):
        a, b = b, a
    if len(b) == 0:
        return 0.0
    if len(a) == 0:
        return cutoff
    distance = np.sqrt((((a[:, None] - b[None]) / scale) ** 2).sum(-1))
    squared = np.minimum(distance, cutoff) ** 2
    rows, columns = linear_sum_assignment(squared)
    total = squared[rows, columns].sum() + cutoff**2 * (len(b) - len(a))
    return float(np.sqrt(total / len(b)))
