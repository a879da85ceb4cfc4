r"""TARP: tests of accuracy with random points, a joint test of all parameters.

Choose a reference point :math:`\theta_r` for every object, and count the draws that lie nearer to
it than the truth does,

.. math:: f_b = \frac{1}{S}\,\#\{s : d(\theta_{sb}, \theta_{rb}) < d(\theta^*_b, \theta_{rb})\},
   \qquad \mathrm{ECP}(\alpha) = P(f < \alpha) .

If :math:`q` is the posterior, :math:`\mathrm{ECP}(\alpha) = \alpha` whatever the reference points
are, as long as they depend on the data alone, never on the truth. The converse needs *all* such
points, also those that depend on :math:`x`: with references independent of :math:`x` the prior
returned as posterior passes, because truths and prior draws are exchangeable if the data are not
used. :func:`references_from_data` makes references that depend on the data.

Distances are Euclidean after every parameter was scaled to [0, 1] by its smallest and largest
truth.

References:
    | Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023, "Sampling-based accuracy testing of
      posterior estimators for general inference", arXiv:2302.03026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics._ranks import Cells, FloatArray, check_draws, rank_with_ties
from sbi_core.diagnostics.sbc import sbc_uniformity

__all__ = ["Tarp", "references_from_data", "tarp"]


@dataclass(frozen=True, slots=True)
class Tarp:
    """Result of :func:`tarp`.

    Attributes
    ----------
    alpha : (K,)
        Credibility levels.
    ecp : (K,)
        Expected coverage probability at each; on average equal to ``alpha`` when calibrated.
    max_deviation : float
        Largest absolute ECP - alpha. Its scale depends on the number of objects B (0.03 is usual
        for a calibrated posterior at B = 1000): judge by ``p``.
    p : float
        Kolmogorov-Smirnov p-value of ECP = alpha, as in
        :func:`~sbi_core.diagnostics.sbc.sbc_uniformity`.
    """

    alpha: NDArray[np.float64]
    ecp: NDArray[np.float64]
    max_deviation: float
    p: float


def tarp(
    samples: FloatArray,
    theta: FloatArray,
    rng: np.random.Generator,
    *,
    references: FloatArray | None = None,
    points: int = 101,
) -> Tarp:
    """Expected coverage of regions around reference points.

    Parameters
    ----------
    samples : (S, B, d)
        S draws for each of B objects.
    theta : (B, d)
        The truths.
    rng : numpy.random.Generator
        Draws the references and breaks ties.
    references : (B, d), optional
        One point per object, in the units of ``theta``. The default is uniform in the box that the
        truths span: sensitive to wrong widths and shifts but *not* to a posterior that ignores the
        data. Test also with :func:`references_from_data`.
    points : int
        Number of levels on the curve.

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    samples, theta = np.asarray(samples), np.asarray(theta)
    check_draws(samples, theta)
    low, span = _box(theta)
    if references is None:
        references = low + span * rng.random(theta.shape)
    if references.shape != theta.shape:
        raise ValueError(f"references must be {theta.shape} like theta, not {references.shape}")

    truth_distance = (((theta - references) / span) ** 2).sum(axis=-1)
    # One parameter at a time: (S, B) temporaries, never (S, B, d).
    distance = np.zeros(samples.shape[:2])
    for j in range(theta.shape[1]):
        distance += ((samples[:, :, j] - references[:, j]) / span[j]) ** 2
    nearer = np.count_nonzero(distance < truth_distance, axis=0)
    equal = np.count_nonzero(distance == truth_distance, axis=0)

    draws = samples.shape[0]
    ranks = rank_with_ties(nearer, equal, rng)
    cells = Cells.of_ranks(ranks, ranks, draws)
    alpha = np.linspace(0.0, 1.0, points)
    ecp = np.array([cells.fraction(0.0, float(a)).mean() for a in alpha])
    return Tarp(
        alpha=alpha,
        ecp=ecp,
        max_deviation=float(np.abs(ecp - alpha).max()),
        p=float(sbc_uniformity(ranks, draws)),
    )


def references_from_data(
    x: FloatArray, theta: FloatArray, rng: np.random.Generator, *, folds: int = 5
) -> NDArray[np.float64]:
    r"""Reference points that depend on the data: a linear guess of theta from x.

    Every object's point is :math:`\hat\theta(x_b)`, the ridge regression of theta on x fitted to
    the *other* folds of objects. With the object itself in the fit, the reference would depend on
    its truth beyond x, and a calibrated posterior would be rejected.

    Parameters
    ----------
    x : (B, ...)
        The observations, or summaries of them. Not finite entries (masked) count as the column's
        mean.
    theta : (B, d)
        The truths.
    rng : numpy.random.Generator
        Assigns objects to folds.
    folds : int
        Number of folds, at least 2.

    Returns
    -------
    (B, d)
    """
    n = len(theta)
    if len(x) != n:
        raise ValueError(f"{len(x)} observations for {n} truths")
    if not 2 <= folds <= n:
        raise ValueError(f"need 2..{n} folds, not {folds}")
    flat = np.asarray(x, dtype=np.float64).reshape(n, -1)
    fold = rng.permutation(n) % folds
    guess = np.empty(theta.shape, dtype=np.float64)
    for k in range(folds):
        train, test = fold != k, fold == k
        guess[test] = _ridge(flat[train], np.asarray(theta)[train], flat[test])
    return guess


def _ridge(x: FloatArray, theta: FloatArray, x_new: FloatArray) -> NDArray[np.float64]:
    """Prediction at ``x_new`` of a ridge regression with one standardised unit of penalty."""
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / count
    sd = np.sqrt(np.where(known, (x - mean) ** 2, 0.0).sum(axis=0) / count)
    sd[sd == 0.0] = 1.0
    a = np.where(known, (x - mean) / sd, 0.0)
    b = np.where(np.isfinite(x_new), (x_new - mean) / sd, 0.0)
    centre = theta.mean(axis=0)
    # Ridge in its dual or primal form, whichever system is smaller (x may be a spectrum).
    n, width = a.shape
    if width <= n:
        solved = np.linalg.solve(a.T @ a + np.eye(width), a.T @ (theta - centre))
    else:
        solved = a.T @ np.linalg.solve(a @ a.T + np.eye(n), theta - centre)
    return np.asarray(centre + b @ solved)


def _box(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    low = theta.min(axis=0)
    span = theta.max(axis=0) - low
    # A parameter that never varies must not dominate the distance by division by zero.
    return low, np.where(span > 0.0, span, 1.0)
