r"""The history between percentiles that fits a spectrum best.

Percentiles fix the mass of every interval, not when in the interval it formed; young stars of the
last tenth outshine the rest. The interval of mass :math:`f_i` is therefore divided into steps of
constant star formation, equal in the square root of the lookback time, with

.. math:: \min_{w \ge 0} \Big\lVert \frac{x - \sum_{ij} w_{ij} S_{ij}}{\sigma} \Big\rVert^2
          \quad\text{with}\quad \sum_j w_{ij} = f_i \sum_{kj} w_{kj} .

A weak preference for even star formation (a rate twice that of the interval costs 0.1 in
:math:`\chi^2`) decides where the spectrum does not. Spectra are linear in few basis vectors B: with
:math:`G = B\sigma^{-2}B^T = LL^T` the least squares are those of :math:`L^{-1} B \sigma^{-2} x` and
:math:`L^T c`, tens of numbers in place of pixels. What calibration and velocity can
make up is left out of both sides: they are fitted again afterwards.

References:
    | Lawson & Hanson 1974, Solving least squares problems (non-negative least squares)
    | Tojeiro et al. 2007, MNRAS 381, 1252 (histories in bins from spectra)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from sbi_sfh.populations import Synthesis

__all__ = ["complete"]

F64 = NDArray[np.float64]
_STEPS = 10  # per interval
_EVEN = 1e-4  # of an interval's mass at an even rate: growth does not pause at a percentile
_SMOOTH = 0.3  # standard deviations per unit of rate over that of the interval
_FIRM = 1e4  # weight of the constraints, over the largest coefficient
_FLOOR = 1e-10  # of the diagonal of G: basis vectors that masks hide


def complete(
    synthesis: Synthesis,
    theta: F64,
    fractions: tuple[float, ...],
    basis: F64,
    flux: F64,
    weight: F64,
    start: float = 0.0,
    free: F64 | None = None,
) -> F64:
    """Return growth curves (n, 1000) with the percentiles of theta.

    Parameters
    ----------
    synthesis
        Library and times.
    theta : (n, d)
        Percentiles, [M/H] and, with two [alpha/Fe] planes, [alpha/Fe].
    fractions
        Mass fractions of the percentiles.
    basis : (K, L)
        Vectors of the library as they are observed.
    flux, weight : (L,)
        Spectrum and one over its errors; 0 where nothing is observed.
    start
        Time before which nothing formed, Gyr.
    free : (m, L)
        Spectra that are added with any factor: flux calibration and velocity.
    """
    scaled, data = basis * weight, flux * weight
    if free is not None:
        outside, _ = np.linalg.qr((free * weight).T)
        scaled = scaled - (scaled @ outside) @ outside.T
        data = data - outside @ (outside.T @ data)
    gram: F64 = scaled @ scaled.T
    gram[np.diag_indices_from(gram)] += _FLOOR * np.trace(gram) / len(gram)
    factor = np.asarray(np.linalg.cholesky(gram), np.float64)
    data = solve_triangular(factor, scaled @ data, lower=True)
    share = np.diff([0.0, *fractions, 1.0])
    return np.stack([_one(synthesis, row, share, factor, data, start) for row in theta])


def _one(synthesis: Synthesis, theta: F64, share: F64, factor: F64, data: F64, start: float) -> F64:
    time, k = synthesis.time, len(share) - 1
    edges = _edges(np.concatenate([[start], np.maximum(theta[:k], start), [time[-1]]]))
    width = np.maximum(np.diff(edges), 1e-9)[:, None]
    steps = np.clip((time - edges[:-1, None]) / width, 0.0, 1.0)
    steps[:, -1] = 1.0
    weights, _ = synthesis.weights(steps)
    afe = np.full(len(steps), theta[k + 1]) if len(theta) > k + 1 else None
    c = synthesis.library.coefficients(weights, np.full(len(steps), theta[k]), afe)
    design = factor.T @ c.T
    design /= np.abs(design).max()
    interval = np.repeat(np.eye(k + 1), _STEPS, axis=1)
    firm = _FIRM * (interval - share[:, None])
    even = np.repeat(share, _STEPS) / _STEPS
    flat = design @ even
    total = max(float(flat @ data), 1e-12) / float(flat @ flat)  # of the mass, roughly
    smooth = _SMOOTH * (np.diag(1.0 / even) - 1.0) / total
    rows = np.vstack([design, firm, smooth])
    try:
        mass, _ = nnls(rows, np.concatenate([data, np.zeros(len(rows) - len(data))]))
    except RuntimeError:  # no convergence: even star formation in every interval
        mass = np.zeros(len(steps))
    mass = mass.reshape(k + 1, _STEPS)
    formed = mass.sum(1, keepdims=True)
    spread = np.where(formed > 0, _EVEN, 1.0)
    mass = (1.0 - spread) * mass / np.where(formed > 0, formed, 1.0) + spread / _STEPS
    return np.asarray((share[:, None] * mass).ravel() @ steps)


def _edges(times: F64) -> F64:
    """Return the edges of the steps, (intervals * steps + 1,), of interval ends (k + 2,)."""
    root = np.sqrt(times[-1] - times)
    part = np.arange(_STEPS) / _STEPS
    inner = root[:-1, None] + np.diff(root)[:, None] * part
    return np.append(times[-1] - inner.ravel() ** 2, times[-1])
