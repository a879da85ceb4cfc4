r"""Importance-sampling efficiency of q as a proposal for the exact posterior; needs a likelihood.

For draws :math:`\theta_s \sim q(\theta \mid x)`,

.. math:: w_s = \frac{p(x \mid \theta_s)\, p(\theta_s)}{q(\theta_s \mid x)} , \qquad
          \epsilon = \frac{\mathrm{ESS}}{S} = \frac{(\sum_s w_s)^2}{S \sum_s w_s^2} , \qquad
          \hat Z = \frac1S \sum_s w_s .

:math:`\epsilon = 1` if q is the posterior; about :math:`e^{-D}` with D the Renyi divergence of
order 2. The weights are also the correction, see ``sbi_core.refine.importance_resample``.

Limits: :math:`\epsilon` is blind to modes where q has no draws, and unreliable where the weights
have heavy tails: above a Pareto index of 0.7.

References:
    | Kong 1992, "A note on importance sampling using standardized weights"
    | Dax et al. 2023, "Neural importance sampling for rapid and reliable gravitational-wave
      inference", arXiv:2210.05686
    | Vehtari et al. 2024, "Pareto smoothed importance sampling", arXiv:1507.02646
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sbi_core.diagnostics._ranks import FloatArray

__all__ = ["ImportanceWeights", "importance_weights", "is_efficiency", "pareto_k"]


@dataclass(frozen=True, slots=True)
class ImportanceWeights:
    """Weights of S draws for each of B objects.

    Attributes
    ----------
    weights : (S, B)
        Normalised: every column sums to 1.
    efficiency : (B,)
        ESS / S, in (0, 1]; 0 where every weight vanishes.
    log_evidence : (B,)
        Log of the mean weight: log p(x), if likelihood and prior are normalised.
    pareto_k : (B,)
        Index of the tail of the largest weights; below 0.7 the weights are reliable.
    """

    weights: NDArray[np.float64]
    efficiency: NDArray[np.float64]
    log_evidence: NDArray[np.float64]
    pareto_k: NDArray[np.float64]


def importance_weights(
    log_likelihood: FloatArray, log_prior: FloatArray, log_q: FloatArray
) -> ImportanceWeights:
    """Weights of draws of q with respect to the exact posterior.

    Parameters
    ----------
    log_likelihood, log_prior, log_q : (S,) or (S, B)
        At the draws; natural logarithms. -inf of likelihood or prior gives weight 0.

    Returns
    -------
    ImportanceWeights
        For input (S,) with B = 1.

    Raises
    ------
    ValueError
        If shapes differ, a value is NaN or +inf, or log_q is not finite at a draw of q.
    """
    parts = [np.asarray(v, dtype=np.float64) for v in (log_likelihood, log_prior, log_q)]
    if len({v.shape for v in parts}) != 1 or parts[0].ndim not in (1, 2) or not parts[0].size:
        raise ValueError(
            "log_likelihood, log_prior and log_q must have one shape, (draws,) or "
            f"(draws, objects), not {', '.join(str(v.shape) for v in parts)}"
        )
    likelihood, prior, q = (v.reshape(len(v), -1) for v in parts)
    if not np.isfinite(q).all():
        raise ValueError("log_q must be finite at every draw of q")
    for name, v in (("log_likelihood", likelihood), ("log_prior", prior)):
        if np.isnan(v).any() or np.isposinf(v).any():
            raise ValueError(f"{name} is NaN or +inf at {int((~(v < np.inf)).sum())} draws")
    log_w = likelihood + prior - q
    total = special.logsumexp(log_w, axis=0)
    dead = np.isneginf(total)
    log_w = np.where(dead, -np.inf, log_w - np.where(dead, 0.0, total))
    weights = np.exp(log_w)
    square = (weights**2).sum(axis=0)
    efficiency = np.where(dead, 0.0, 1.0 / (np.where(dead, 1.0, square) * len(weights)))
    log_evidence = total - np.log(len(weights))
    return ImportanceWeights(weights, efficiency, log_evidence, pareto_k(weights))


def is_efficiency(
    log_likelihood: FloatArray, log_prior: FloatArray, log_q: FloatArray
) -> NDArray[np.float64]:
    """ESS / S of every object, (B,); see :func:`importance_weights`."""
    return importance_weights(log_likelihood, log_prior, log_q).efficiency


def pareto_k(weights: FloatArray) -> NDArray[np.float64]:
    """Index of a generalised Pareto distribution of the largest weights (Zhang & Stephens 2009).

    Parameters
    ----------
    weights : (S, B)
        Of S draws for each of B objects; any normalisation.

    Returns
    -------
    (B,)
        Above 0.7 the weights are unreliable; NaN for fewer than 25 draws or without weight.
    """
    weights = np.asarray(weights, dtype=np.float64)
    n = len(weights)
    size = int(min(n / 5, 3 * np.sqrt(n)))
    if size < 5:
        return np.full(weights.shape[1], np.nan)
    top = np.sort(np.partition(weights, n - size - 1, axis=0)[n - size - 1 :], axis=0)
    excess, largest = top[1:] - top[0], top[-1]
    quarter = excess[max(int(size / 4 + 0.5) - 1, 0)]
    even = ~(excess[-1] > 1e-12 * largest)  # no tail: all weights are alike
    alone = ~even & (quarter <= 1e-200 * excess[-1])  # a few weights are all there is
    k = np.where(even, np.where(largest > 0, 0.0, np.nan), np.inf)
    for b in np.flatnonzero(~even & ~alone):
        k[b] = _tail_index(excess[:, b], quarter[b])
    return k


def _tail_index(excess: NDArray[np.float64], quarter: float) -> float:
    size = len(excess)
    count = 30 + int(np.sqrt(size))
    grid = 1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    grid = grid / (3 * quarter) + 1 / excess[-1]
    shape = np.log1p(-grid[:, None] * excess).mean(axis=1)
    log_l = size * (np.log(-grid / shape) - shape - 1)
    b = float((special.softmax(log_l) * grid).sum())
    k = float(np.log1p(-b * excess).mean())
    return (k * size + 5.0) / (size + 10.0)  # a weak prior towards 0.5, for small tails
