r"""Calibration of Gaussian posteriors, such as combined ones, against known truths.

R repeats of an experiment give means :math:`m_k`, covariances :math:`C_k` and truths :math:`t_k`.
If the posteriors are right,

.. math:: z_{kj} = \frac{m_{kj} - t_{kj}}{\sqrt{C_{k,jj}}} \sim N(0, 1), \qquad
   \chi^2_k = (m_k - t_k)^T C_k^{-1} (m_k - t_k) \sim \chi^2_d .

The root mean square of z is sensitive to a bias that does not shrink with N as the error bar does,
unlike a comparison of widths. Its relative error is :math:`1/\sqrt{2Rd}`. The integral transform
:math:`u = \Phi(-z)` is the rank of the truth among infinitely many draws, whose uniformity SBC
tests.

References:
    | docs/calibration.md
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.diagnostics._ranks import FloatArray

__all__ = ["GaussianCalibration", "calibrate_gaussian", "chi_squared", "z_rms", "z_scores"]


@dataclass(frozen=True, slots=True)
class GaussianCalibration:
    r"""Result of :func:`calibrate_gaussian` for d parameters.

    Attributes
    ----------
    repeats : int
        R.
    z_mean : (d,)
        Mean z: the bias in units of the quoted sigma. Its error is :math:`1/\sqrt{R}`.
    z_rms : (d,)
        Root mean square of z; 1 when calibrated, above when overconfident or biased.
    coverage_68, coverage_95 : (d,)
        Fraction of truths inside the central 68 and 95 % interval of each parameter.
    z_rms_joint : float
        :math:`\sqrt{\overline{\chi^2}/d}`, which is also sensitive to wrong correlations.
    coverage_68_joint : float
        Fraction of truths inside the 68 % ellipsoid.
    sbc_p : (d,)
        Kolmogorov-Smirnov p-value of uniform ranks. Repeats must be independent for it: parts of
        one group share their truth.
    """

    repeats: int
    z_mean: NDArray[np.float64]
    z_rms: NDArray[np.float64]
    coverage_68: NDArray[np.float64]
    coverage_95: NDArray[np.float64]
    z_rms_joint: float
    coverage_68_joint: float
    sbc_p: NDArray[np.float64]


def calibrate_gaussian(mean: FloatArray, cov: FloatArray, truth: FloatArray) -> GaussianCalibration:
    """Compare R Gaussian posteriors with their truths.

    Parameters
    ----------
    mean : (R, d)
        Posterior means.
    cov : (R, d, d)
        Posterior covariances.
    truth : (R, d) or (d,)
        The truths; one for all repeats is allowed, but tests one point of the prior only.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a covariance is not positive definite.
    """
    z = z_scores(mean, cov, truth)
    chi2 = chi_squared(mean, cov, truth)
    d = z.shape[1]
    return GaussianCalibration(
        repeats=len(z),
        z_mean=z.mean(axis=0),
        z_rms=z_rms(z),
        coverage_68=(np.abs(z) < stats.norm.ppf(0.84)).mean(axis=0),
        coverage_95=(np.abs(z) < stats.norm.ppf(0.975)).mean(axis=0),
        z_rms_joint=float(np.sqrt(chi2.mean() / d)),
        coverage_68_joint=float((chi2 < stats.chi2.ppf(0.68, d)).mean()),
        sbc_p=np.array([stats.kstest(column, stats.norm.cdf).pvalue for column in z.T]),
    )


def z_scores(mean: FloatArray, cov: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    """(mean - truth) / sigma of every repeat and parameter.

    Parameters
    ----------
    mean : (R, d)
    cov : (R, d, d)
    truth : (R, d) or (d,)

    Returns
    -------
    (R, d)
        Positive where the posterior lies too high.
    """
    mean, cov, truth = _checked(mean, cov, truth)
    return np.asarray((mean - truth) / np.sqrt(np.diagonal(cov, axis1=1, axis2=2)))


def chi_squared(mean: FloatArray, cov: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    """Squared Mahalanobis distance of every truth from its posterior.

    Parameters
    ----------
    mean : (R, d)
    cov : (R, d, d)
    truth : (R, d) or (d,)

    Returns
    -------
    (R,)
    """
    mean, cov, truth = _checked(mean, cov, truth)
    whitened = np.linalg.solve(np.linalg.cholesky(cov), (mean - truth)[:, :, None])[:, :, 0]
    return np.asarray((whitened**2).sum(axis=1))


def z_rms(z: FloatArray) -> NDArray[np.float64]:
    """Root mean square over repeats.

    Parameters
    ----------
    z : (R, ...)
        :func:`z_scores`.

    Returns
    -------
    (...)
    """
    return np.asarray(np.sqrt((np.asarray(z, dtype=np.float64) ** 2).mean(axis=0)))


def _checked(
    mean: FloatArray, cov: FloatArray, truth: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    # float64: combined covariances are tiny beside their means.
    m, c, t = (np.asarray(a, dtype=np.float64) for a in (mean, cov, truth))
    if m.ndim != 2 or c.shape != (*m.shape, m.shape[1]) or t.shape not in (m.shape, m.shape[1:]):
        raise ValueError(
            "mean, cov and truth must be (R, d), (R, d, d) and (R, d) or (d,), "
            f"not {m.shape}, {c.shape} and {t.shape}"
        )
    if not len(m):
        raise ValueError("no repeats")
    if not (np.isfinite(m).all() and np.isfinite(c).all() and np.isfinite(t).all()):
        raise ValueError("mean, cov and truth must be finite")
    smallest = np.linalg.eigvalsh(c)[:, 0]
    if (smallest <= 0.0).any():
        bad = np.flatnonzero(smallest <= 0.0)[:10].tolist()
        raise ValueError(f"covariances of repeats {bad} are not positive definite")
    return m, c, t
