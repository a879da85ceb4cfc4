r"""Misspecification check: comparison of a group of objects with simulated ones.

Objects are compared with reference objects, simulated at the combined value of the shared
parameters and observed with the same errors and missing values. For any function
:math:`\phi` of one object, with mean and covariance S over M reference objects,

.. math:: \chi^2 = \delta^T \Big[S \Big(\frac1N + \frac1M\Big)\Big]^{-1} \delta, \qquad
          \delta = \bar\phi_\mathrm{data} - \bar\phi_\mathrm{reference} .

Four functions are used: standardised residuals of all observables (test the mean), their squares
(test the spread), squares of the single-object scores (test the scatter of objects about the common
value), and scores times covariates (test for trends with a covariate).

Shared parameters fitted to the same objects absorb the part of a difference that goes along with
the scores s of single objects. For means and spreads it is left out, with its variance,

.. math:: \phi' = \phi - \mathrm{Cov}(\phi, s)\,\mathrm{Cov}(s)^{-1} s .

The test is sensitive only to differences that the parameters cannot absorb. Means are compared
after the same regression on products of the data, whose means do not change with a small shift:
data lie near a curved surface, and their scatter about it is smaller than that about a plane.

Few objects with heavy tails scatter more than chi-squared does: its variance is 2k plus the excess
of Mardia's kurtosis over N for k numbers, and p is that of a gamma distribution with this variance.

Where simulated groups with the same shared parameters differ, because a group has more in common
than these, the reference consists of G groups of N objects. The covariance of their means, times
1 + 1/G, takes the place of S (1/N + 1/M), and chi-squared that of Hotelling.

References:
    | Hotelling 1931, Ann. Math. Stat. 2, 360
    | Mardia 1970, Biometrika 57, 519
    | docs/calibration.md
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Comparison", "Residuals", "compare", "residuals"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
I64 = NDArray[np.int64]
_CLIP = 5.0  # sigma: limits the effect of one outlier on the mean
_CONSTANT = 1e-9  # spread of a column that does not vary
_DEGENERATE = 1e-6  # variance, relative, of combinations of columns that do not vary
_ABSORBED = 0.01  # fraction of the variance that is left of combinations that are absorbed


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


def compare(
    name: str,
    data: F64,
    reference: F64,
    *,
    absorbed: tuple[F64, F64] | None = None,
    group: I64 | None = None,
) -> Comparison:
    """Compare means of columns (n, k) and (m, k).

    Columns that do not vary are left out of chi-squared and have sigma 0.

    Parameters
    ----------
    name
        The quantity that is compared.
    data, reference
        Its columns.
    absorbed
        Scores (or other functions) of both, (n, d) and (m, d): what goes along with them is
        left out.
    group
        Number of the group of every reference object, (m,), where groups differ.
    """
    n, m = len(data), len(reference)
    spread = reference.std(0)
    used = spread > _CONSTANT
    sigma = np.zeros(data.shape[1])
    if not used.any():
        return Comparison(name, sigma, 0.0, 0, 1.0)
    factor = 1.0 / n + 1.0 / m if group is None else 1.0 + 1.0 / len(np.unique(group))
    scaled = (reference[:, used] - reference[:, used].mean(0)) / spread[used]
    off = (data[:, used].mean(0) - reference[:, used].mean(0)) / spread[used]
    sigma[used] = off / _independent(scaled, group).std(0) / np.sqrt(factor)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(scaled.T, bias=True)))
    white = vectors[:, values > _DEGENERATE] / np.sqrt(values[values > _DEGENERATE])
    off, scaled = off @ white, scaled @ white
    if absorbed is not None:
        scores, others = absorbed
        centred = others - others.mean(0)
        slope = np.linalg.lstsq(centred, scaled, rcond=None)[0]
        off -= (scores.mean(0) - others.mean(0)) @ slope
        scaled = scaled - centred @ slope
    units = _independent(scaled, group)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(units.T, bias=True)))
    kept = values > _ABSORBED * len(units) / m
    kept[: -(len(units) // 2)] = False  # fewer numbers than groups
    dof = int(kept.sum())
    if not dof:  # one observable and one parameter: all is absorbed
        return Comparison(name, sigma, 0.0, 0, 1.0)
    chi2 = float(((off @ vectors[:, kept]) ** 2 / values[kept]).sum() / factor)
    if group is None:
        lengths = (((units @ vectors[:, kept]) ** 2) / values[kept]).sum(1)
        excess = float((lengths**2).mean()) - dof * (dof + 2)  # of the kurtosis
        scale = 1.0 + max(excess, 0.0) / (2.0 * dof * n)
        p = float(special.gammaincc(dof / (2.0 * scale), chi2 / (2.0 * scale)))
        return Comparison(name, sigma, chi2, dof, p)
    left = len(units) - dof
    f = chi2 * (len(units) - 1) / len(units) * left / (dof * (len(units) - 1))
    return Comparison(name, sigma, chi2, dof, float(special.fdtrc(dof, left, f)))


def _independent(rows: F64, group: I64 | None) -> F64:
    """Return what scatters independently: objects, or the means of groups."""
    if group is None:
        return rows
    number = np.unique(group, return_inverse=True)[1]
    size = np.bincount(number)
    return np.stack([np.bincount(number, column) / size for column in rows.T], 1)
