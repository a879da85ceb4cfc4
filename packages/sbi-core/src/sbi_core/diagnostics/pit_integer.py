r"""Randomised probability integral transform of integer parameters.

For probabilities :math:`p_b(j)` with distribution function :math:`F_b`, a truth :math:`n_b` and
:math:`v_b \sim U(0, 1)`,

.. math:: u_b = F_b(n_b - 1) + v_b\, p_b(n_b)

is uniform on [0, 1] if :math:`p_b` is the posterior. Without the random part the values of a
discrete distribution pile up and no test of uniformity applies.

References:
    | Czado, Gneiting & Held 2009, "Predictive model assessment for count data",
      Biometrics 65, 1254
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.diagnostics._ranks import FloatArray, IntArray, below_and_equal

__all__ = ["pit_integer", "pit_integer_draws", "pit_uniformity"]


def pit_integer(
    probabilities: FloatArray, n: IntArray, rng: np.random.Generator, *, low: int = 0
) -> NDArray[np.float64]:
    """Randomised PIT of B truths given their probabilities.

    Parameters
    ----------
    probabilities : (B, K)
        Of the integers low..low+K-1; every row sums to 1.
    n : (B,)
        The truths.
    rng : numpy.random.Generator
        Draws v.
    low : int
        The smallest integer.

    Returns
    -------
    (B,)

    Raises
    ------
    ValueError
        If a row does not sum to 1, or a truth lies outside the range.
    """
    probabilities, k = check_probabilities(probabilities, n, low)
    here = np.take_along_axis(probabilities, k[:, None], axis=1)[:, 0]
    up_to = np.take_along_axis(np.cumsum(probabilities, axis=1), k[:, None], axis=1)[:, 0]
    return np.asarray(np.clip(up_to - here + rng.random(len(k)) * here, 0.0, 1.0))


def pit_integer_draws(
    samples: FloatArray, theta: FloatArray, rng: np.random.Generator
) -> NDArray[np.float64]:
    r"""Randomised PIT of B truths given draws: :math:`(\#\{<\} + v\,(\#\{=\} + 1)) / (S + 1)`.

    Parameters
    ----------
    samples : (S, B, d)
    theta : (B, d)
    rng : numpy.random.Generator

    Returns
    -------
    (B, d)
        Exactly uniform for a calibrated posterior, for any number of draws.
    """
    below, equal = below_and_equal(samples, theta)
    return np.asarray((below + rng.random(below.shape) * (equal + 1)) / (len(samples) + 1))


def pit_uniformity(u: FloatArray) -> NDArray[np.float64]:
    """p-value of the Kolmogorov-Smirnov test that ``u`` (B, ...) is uniform on [0, 1].

    Parameters
    ----------
    u : (B, ...)
        One quantity per further index.
    """
    u = np.asarray(u, dtype=np.float64)
    if len(u) == 0 or not np.isfinite(u).all():
        raise ValueError("PIT values must be finite and not empty")
    flat = u.reshape(len(u), -1)
    p = [stats.kstest(column, "uniform").pvalue for column in flat.T]
    return np.array(p).reshape(u.shape[1:])


def check_probabilities(
    probabilities: FloatArray, n: IntArray, low: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities (B, K) and columns (B,) of the truths; ``ValueError`` if unfit."""
    probabilities, n = np.asarray(probabilities, dtype=np.float64), np.asarray(n)
    if probabilities.ndim != 2 or n.shape != probabilities.shape[:1] or not n.size:
        raise ValueError(
            f"probabilities must be (objects, integers) and n (objects,), "
            f"not {probabilities.shape} and {n.shape}"
        )
    if not np.all(n == np.round(n)):
        raise ValueError("the truths must be integers")
    wrong = ~(np.abs(probabilities.sum(axis=1) - 1.0) < 1e-4) | (probabilities < 0).any(axis=1)
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"row {k} of probabilities must sum to 1, not {probabilities[k].sum():.6g}"
        )
    columns = n.astype(np.int64) - low
    if columns.min() < 0 or columns.max() >= probabilities.shape[1]:
        raise ValueError(f"truths must lie in {low}..{low + probabilities.shape[1] - 1}")
    return probabilities.astype(np.float64), columns
