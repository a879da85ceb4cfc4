r"""Gaussian combination of single-object posteriors.

For objects i = 1..N that share :math:`\Lambda`, with training prior
:math:`N(\mu_0, P_0^{-1})` and single-object posteriors :math:`N(\mu_i, P_i^{-1})`, Bayes' rule
for conditionally independent data, :math:`p(\Lambda)^{1-N} \prod_i p(\Lambda | x_i)`, gives

.. math:: P = \sum_i P_i - (N-1) P_0, \qquad P\mu = \sum_i P_i\mu_i - (N-1) P_0\mu_0 .

The minus sign removes the prior that every posterior already contains. Exact when all factors
are Gaussian. Works in unconstrained space, where the prior is exactly :math:`N(0, I)`.

A posterior estimated too broad can make an eigenvalue of :math:`P` small or negative. In directions
where it is below a quarter of :math:`P_0`, the data add no information and the result is the prior.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sbi_core.combiners.moments import (
    F64,
    Gaussian,
    MomentCombiner,
    MomentConfig,
    ObjectMoments,
    group_consistency,
)

__all__ = [
    "GaussianCombiner",
    "GaussianConfig",
    "combine_gaussian",
    "combine_moments",
    "starting_point",
]

_LEAST = 0.25  # eigenvalue of P in units of P_0: twice the standard deviation of the prior


def combine_gaussian(
    mean: F64,
    cov: F64,
    prior: Gaussian,
    *,
    draws: int | None = None,
) -> Gaussian:
    """Product of N posteriors divided by N - 1 copies of the prior.

    Parameters
    ----------
    mean : (n_obs, d)
        Single-object posterior means.
    cov : (n_obs, d, d)
        Their full covariances. Diagonal input is accepted but rarely right.
    prior : Gaussian
        The prior the estimator was *trained* with.
    draws : int, optional
        Number of draws behind the covariances, when these are estimates.

    Returns
    -------
    Gaussian
        With ``n_obs == 0`` this is the prior.

    Notes
    -----
    Source: Bayes' rule for conditionally independent data.
    """
    return combine_moments(ObjectMoments.of(mean, cov, draws=draws), prior)[0]


def combine_moments(moments: ObjectMoments, prior: Gaussian) -> tuple[Gaussian, float]:
    """Return the combination and the smallest eigenvalue of P in units of P_0."""
    p0 = np.linalg.inv(prior.cov)
    # Sums of differences, in float64: the two sums of the equation nearly cancel when objects
    # carry little information.
    precision = p0 + (moments.precision - p0).sum(0)
    information = p0 @ prior.mean + (moments.information - p0 @ prior.mean).sum(0)
    chol0 = np.asarray(np.linalg.cholesky(prior.cov), np.float64)
    values, vectors = np.linalg.eigh(chol0.T @ precision @ chol0)
    smallest = float(values[0])
    if not smallest >= _LEAST:  # also where it is NaN
        values[~(values >= _LEAST)] = 1.0
        shift = vectors.T @ (chol0.T @ (information - precision @ prior.mean))
        shift[values == 1.0] = 0.0
        root = chol0 @ vectors
        mean = prior.mean + root @ (shift / values)
        return Gaussian(mean, (root / values) @ root.T), smallest
    cov = np.linalg.inv(precision)
    cov = 0.5 * (cov + cov.T)
    return Gaussian(cov @ information, cov), smallest


def starting_point(moments: ObjectMoments) -> tuple[Gaussian, list[str]]:
    """Return where rules without the Gaussian approximation start: there or at the prior; flags."""
    prior = Gaussian.standard(moments.information.shape[1])
    combined, smallest = combine_moments(moments, prior)
    return (combined, []) if smallest >= _LEAST else (prior, ["gaussian_impossible"])


class GaussianConfig(MomentConfig):
    """Options of the Gaussian combiner."""

    consistency_groups: int = Field(10, ge=2, description="groups of the consistency test")


class GaussianCombiner(MomentCombiner):
    """Precision-weighted combination with the prior divided out (see the module).

    N = 0 gives the prior, N = 1 the (Gaussian) posterior itself.
    """

    name = "gaussian"
    config: GaussianConfig

    def __init__(self, config: GaussianConfig | None = None) -> None:
        self.config = config or GaussianConfig()

    def solve(self, objects: ObjectMoments) -> tuple[Gaussian, dict[str, float], tuple[str, ...]]:
        """Return the combination, with the consistency of the parts of the sample."""
        prior = Gaussian.standard(objects.information.shape[1])
        combined, smallest = combine_moments(objects, prior)
        agreement = group_consistency(
            objects.precision, objects.information, self.config.consistency_groups
        )
        flags = ("broader_than_prior",) if smallest < 1 - 1e-9 else ()
        return combined, {"smallest_precision_ratio": smallest, **agreement}, flags
