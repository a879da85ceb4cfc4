r"""Misspecification check: comparison of a group of objects with simulated ones.

Objects are compared with reference objects, simulated at the combined value of the shared
parameters and observed with the same errors and missing values. For any function
:math:`\phi` of one object, with mean and covariance S over M reference objects,

.. math:: \chi^2 = \delta^T \Big[S \Big(\frac1N + \frac1M\Big)\Big]^{-1} \delta, \qquad
          \delta = \bar\phi_\mathrm{data} - \bar\phi_\mathrm{reference} .

Four functions are used: standardised residuals of all observables (test the mean), their squares
(test the spread), squares of the single-object scores (test the scatter of objects about the common
value), and scores times covariates (test for trends with a covariate). Shared parameters fitted to
the same objects absorb part of the difference, which makes the test slightly conservative; it is
sensitive only to differences that the parameters cannot absorb.

References:
    | Hotelling 1931, Ann. Math. Stat. 2, 360
    | docs/calibration.md
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Comparison", "Residuals", "compare", "residuals"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_CLIP = 5.0  # sigma: limits the effect of one outlier on the mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outcome of one comparison.

    Attributes
    ----------
    name : str
        The quantity that is compared.
    sigma : (k,)
        Difference of every column in its standard error.
    chi2, dof, p : float
        Of all columns together.
    """

    name: str
    sigma: F64
    chi2: float
    dof: int
    p: float


@dataclass(frozen=True, slots=True)
class Residuals:
    """Standardised residuals (n, k), zero where not observed, and the scales behind them."""

    data: F64
    reference: F64
    centre: F64


def residuals(data: tuple[F64, F64, Mask], reference: tuple[F64, F64, Mask]) -> Residuals:
    """Return residuals from the mean of the reference, in units of its spread and the noise.

    Parameters
    ----------
    data, reference
        Values (n, k), errors (n, k) and mask (n, k, True where observed).
    """
    x, err, mask = reference
    count = np.maximum(mask.sum(0), 1)
    centre = np.where(mask, x, 0).sum(0) / count
    total = (np.where(mask, x - centre, 0) ** 2).sum(0) / count
    noise = (np.where(mask, err, 0) ** 2).sum(0) / count
    own = np.maximum(total - noise, 1e-3 * total + 1e-300)

    def scaled(values: F64, errors: F64, seen: Mask) -> F64:
        off = np.where(seen, values - centre, 0.0)
        width = np.sqrt(own + np.where(seen, errors, 0.0) ** 2)
        return np.asarray(np.clip(off / width, -_CLIP, _CLIP))

    return Residuals(scaled(*data), scaled(*reference), centre)


def compare(name: str, data: F64, reference: F64) -> Comparison:
    """Compare means of columns (n, k) and (m, k).

    Columns that do not vary are left out of chi-squared and have sigma 0.
    """
    n, m = len(data), len(reference)
    delta = data.mean(0) - reference.mean(0)
    spread = reference.std(0)
    used = spread > 1e-9
    sigma = np.zeros(len(delta))
    factor = 1.0 / n + 1.0 / m
    sigma[used] = delta[used] / spread[used] / np.sqrt(factor)
    if not used.any():
        return Comparison(name, sigma, 0.0, 0, 1.0)
    cov = np.atleast_2d(np.corrcoef(reference[:, used].T))
    values, vectors = np.linalg.eigh(cov)
    kept = values > 1e-6
    white = (vectors[:, kept].T @ sigma[used]) / np.sqrt(values[kept])
    chi2, dof = float((white**2).sum()), int(kept.sum())
    return Comparison(name, sigma, chi2, dof, float(special.gammaincc(dof / 2, chi2 / 2)))
