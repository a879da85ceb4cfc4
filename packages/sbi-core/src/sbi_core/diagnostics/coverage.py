r"""Expected coverage: the fraction of credible regions that contain the truth.

For a credible region :math:`R_c(x)` of level :math:`c`,

.. math:: \mathrm{coverage}(c) = P_{\theta, x}\left(\theta \in R_c(x)\right) = c

if :math:`q` is the posterior. Two regions are used: the *central* interval of one parameter, read
from its SBC ranks, and the region of *highest posterior density* (HPD) of all parameters together,
read from :math:`\log q` of the draws and of the truth. Below the nominal value the posterior is
too narrow or biased, above it is too wide.

References:
    | Hermans et al. 2022, "A trust crisis in simulation-based inference? Your posterior
      approximations can be unfaithful", arXiv:2110.06581
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics._ranks import Cells, FloatArray, IntArray

__all__ = ["LEVELS", "coverage_band", "coverage_central", "coverage_hpd", "coverage_sd"]

LEVELS = (0.50, 0.68, 0.90, 0.95)


def coverage_central(
    ranks: IntArray, draws: int, levels: Sequence[float] = LEVELS
) -> NDArray[np.float64]:
    r"""Coverage of central intervals :math:`[\frac{1-c}{2}, \frac{1+c}{2}]`, per quantity.

    Parameters
    ----------
    ranks : (B, ...)
        Ranks of :func:`~sbi_core.diagnostics.sbc.sbc_ranks`.
    draws : int
        S, the number of draws the ranks were counted among.
    levels : (L,)
        Nominal levels in (0, 1).

    Returns
    -------
    (L, ...)
        Fraction of the B objects. A rank whose cell the edge of the interval cuts counts by the
        share inside, so that calibrated ranks give exactly ``c`` on average for every S.
    """
    ranks = np.asarray(ranks)
    cells = Cells.of_ranks(ranks, ranks, draws)
    half = [level / 2 for level in _checked(levels)]
    return np.array([cells.fraction(0.5 - h, 0.5 + h).mean(axis=0) for h in half])


def coverage_hpd(
    log_q_samples: FloatArray,
    log_q_truth: FloatArray,
    levels: Sequence[float] = LEVELS,
) -> NDArray[np.float64]:
    """Coverage of the highest-density regions of all parameters together.

    Parameters
    ----------
    log_q_samples : (S, B)
        log q(theta_sb | x_b) of the draws. An additive constant per object has no effect.
    log_q_truth : (B,)
        log q(theta*_b | x_b) of the truths; ``-inf`` where the posterior excludes the truth.
    levels : (L,)
        Nominal levels in (0, 1).

    Returns
    -------
    (L,)
        Fraction of the B objects whose truth lies in the region: the truth is inside at level c
        if less than a share c of the draws has a higher density. Ties count in parts.

    Notes
    -----
    The region, and so the coverage, depends on the parametrisation: use the density of one space
    for draws and truth alike.
    """
    samples, truth = np.asarray(log_q_samples), np.asarray(log_q_truth)
    if samples.ndim != 2 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"log_q_samples must be (draws, objects) and log_q_truth (objects,), "
            f"not {samples.shape} and {truth.shape}"
        )
    if np.isnan(samples).any() or np.isnan(truth).any():
        raise ValueError("log densities must not be NaN")
    higher = np.count_nonzero(samples > truth, axis=0)
    not_lower = np.count_nonzero(samples >= truth, axis=0)
    cells = Cells.of_ranks(higher, not_lower, samples.shape[0])
    return np.array([cells.fraction(0.0, level).mean() for level in _checked(levels)])


def coverage_sd(levels: Sequence[float], n: int) -> NDArray[np.float64]:
    r"""Binomial standard deviation :math:`\sqrt{c(1-c)/n}` of a calibrated coverage.

    Parameters
    ----------
    levels : (L,)
    n : int
        Number of objects the coverage is taken over.

    Returns
    -------
    (L,)
    """
    c = np.asarray(_checked(levels))
    return np.asarray(np.sqrt(c * (1.0 - c) / n))


def coverage_band(
    levels: Sequence[float], n: int, *, sigmas: float = 3.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge of the binomial band around calibrated coverage.

    Parameters
    ----------
    levels : (L,)
    n : int
        Number of objects.
    sigmas : float
        Half width in standard deviations.

    Returns
    -------
    (L,), (L,)
        Clipped to [0, 1].
    """
    c = np.asarray(_checked(levels))
    margin = sigmas * coverage_sd(levels, n)
    return np.clip(c - margin, 0.0, 1.0), np.clip(c + margin, 0.0, 1.0)


def _checked(levels: Sequence[float]) -> list[float]:
    values = [float(level) for level in levels]
    if any(not 0.0 < value < 1.0 for value in values):
        raise ValueError(f"levels must lie strictly between 0 and 1, not {values}")
    return values
