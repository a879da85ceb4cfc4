r"""Importance-sampling refinement: draws of the exact posterior; needs a likelihood.

Draws :math:`\theta_s \sim q(\theta \mid x)` with weights
:math:`w_s \propto p(x \mid \theta_s)\, p(\theta_s) / q(\theta_s \mid x)` are draws of the exact
posterior; resampling with these probabilities gives equal weights. The efficiency is ESS / S, with
ESS the effective sample size.

References:
    | Dax et al. 2023, arXiv:2210.05686
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics import Verdict, importance_weights, judge_importance

__all__ = ["ImportanceResult", "importance_resample"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class ImportanceResult:
    """Result of importance sampling of S draws of one object.

    Parameters
    ----------
    draws
        (n, d), equally weighted; draws of large weight repeat.
    weights
        Normalised weights of the S input draws, (S,).
    efficiency
        ESS / S.
    pareto_k
        Index of the tail of the weights; above 0.7 they are unreliable.
    log_evidence
        log p(x), for normalised likelihood and prior.
    """

    draws: F64
    weights: F64
    efficiency: float
    pareto_k: float
    log_evidence: float

    @property
    def ess(self) -> float:
        """Effective sample size."""
        return self.efficiency * len(self.weights)

    @property
    def verdict(self) -> Verdict:
        """Verdict on efficiency and tail of the weights."""
        return judge_importance("the posterior", self.efficiency, self.pareto_k)

    def __repr__(self) -> str:
        return (
            f"ImportanceResult({len(self.draws)} draws, efficiency {self.efficiency:.3f}, "
            f"Pareto k {self.pareto_k:.2f})"
        )


def importance_resample(
    draws: F64,
    log_q: F64,
    log_likelihood: F64,
    log_prior: F64,
    rng: np.random.Generator,
    *,
    n: int | None = None,
) -> ImportanceResult:
    """Return draws of the exact posterior, resampled from draws of q.

    Parameters
    ----------
    draws
        Draws of q for one object, (S, d).
    log_q, log_likelihood, log_prior
        Log densities at the draws, (S,), in the same coordinates.
    rng
        Random numbers of the resampling.
    n
        Number of draws to return; default S. Systematic resampling: a draw of weight w
        appears n w times, rounded up or down.

    Raises
    ------
    ValueError
        If shapes do not fit, or no draw has a positive weight.
    """
    draws = np.asarray(draws, dtype=np.float64)
    if draws.ndim != 2 or np.shape(log_q) != (len(draws),):
        msg = f"draws must be (S, d) and log_q (S,), not {draws.shape} and {np.shape(log_q)}"
        raise ValueError(msg)
    result = importance_weights(log_likelihood, log_prior, log_q)
    weights = result.weights[:, 0]
    if not result.efficiency[0] > 0:
        msg = "no draw has a positive likelihood and prior: q does not overlap the posterior"
        raise ValueError(msg)
    n = len(draws) if n is None else n
    steps = (np.arange(n) + rng.random()) / n
    chosen = np.searchsorted(np.cumsum(weights), steps * weights.sum())
    chosen = rng.permutation(np.minimum(chosen, len(draws) - 1))
    return ImportanceResult(
        draws[chosen],
        weights,
        float(result.efficiency[0]),
        float(result.pareto_k[0]),
        float(result.log_evidence[0]),
    )
