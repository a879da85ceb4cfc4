r"""Prior-data conflict: the posterior lies in the tail of the prior.

Averaged over data from the prior, :math:`\mathrm{Var}(\theta) = E[C] + \mathrm{Var}(m)` with m and
C mean and covariance of the posterior. In unconstrained coordinates, where the prior is
:math:`N(0, I)`, the posterior mean of an object from the prior has therefore covariance
:math:`I - C`, and

.. math:: T = m^T (I - C)^{-1} m \sim \chi^2_\nu

(exactly for linear-Gaussian models) with :math:`\nu` the number of directions in which the data are
informative: eigenvalues of :math:`I - C` above a tenth. A very small p means that data from this
prior hardly ever move the posterior that far: the object is not a draw of the prior, or the
simulator is misspecified.

Limits: the chi-squared distribution is exact for Gaussian posteriors of constant covariance; for
curved or multimodal ones p < 0.001 occurs more often than in 0.1 % of cases. Out-of-distribution
data are detected by :mod:`sbi_core.diagnostics.support`.

References:
    | Evans & Moshonov 2006, "Checking for prior-data conflict", Bayesian Analysis 1, 893
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.diagnostics._ranks import FloatArray

__all__ = ["PriorConflict", "prior_conflict"]

_INFORMED = 0.1  # share of the prior's variance that the data must remove in a direction


@dataclass(frozen=True, slots=True)
class PriorConflict:
    """Test of B objects.

    Attributes
    ----------
    chi2 : (B,)
        T.
    dof : (B,)
        Informed directions; 0 where the posterior is the prior.
    p : (B,)
        1 where the data are not informative.
    """

    chi2: NDArray[np.float64]
    dof: NDArray[np.int64]
    p: NDArray[np.float64]


def prior_conflict(mean: FloatArray, cov: FloatArray) -> PriorConflict:
    """Test whether posteriors lie in the tail of their prior N(0, I).

    Parameters
    ----------
    mean : (B, d)
        Posterior means in unconstrained coordinates (standard deviations of the prior).
    cov : (B, d, d)
        Posterior covariances there.

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 2 or cov.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(f"mean must be (B, d) and cov (B, d, d), not {mean.shape}, {cov.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("means and covariances must be finite")
    gain, axes = np.linalg.eigh(np.eye(mean.shape[1]) - cov)
    informed = gain > _INFORMED
    along = np.einsum("bij,bi->bj", axes, mean)
    chi2 = np.where(informed, along**2 / np.where(informed, gain, 1.0), 0.0).sum(axis=1)
    dof = informed.sum(axis=1)
    p = np.where(dof > 0, stats.chi2.sf(chi2, np.maximum(dof, 1)), 1.0)
    return PriorConflict(chi2, dof, p)
