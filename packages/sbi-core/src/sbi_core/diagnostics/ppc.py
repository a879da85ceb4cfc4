r"""Posterior predictive check with chi-squared.

For noise-free predictions :math:`f(\theta_s)` of posterior draws,

.. math:: \chi^2_s = \sum_i m_i \frac{(x_i - f_i(\theta_s))^2}{\sigma_i^2} , \qquad
          p = \frac1S \sum_s P(\chi^2_\nu \ge \chi^2_s) , \quad \nu = \sum_i m_i .

p is the posterior-predictive p-value of Gelman, Meng & Stern with the realised discrepancy: given
:math:`\theta_s` and Gaussian errors, the discrepancy of replicated data is exactly
:math:`\chi^2_\nu`, so that no replicates are needed. The smallest :math:`\chi^2_s` is that of the
best draw, the median that of a typical one.

Limits: the data are used twice, so that p concentrates around 0.5. The fraction of well-specified
objects with p < a is smaller than a (the stated bound of the false-alarm rate), and small misfits
pass, above all with many parameters for few data. Correlated errors need whitened data.

References:
    | Gelman, Meng & Stern 1996, "Posterior predictive assessment of model fitness",
      Statistica Sinica 6, 733
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.diagnostics._ranks import FloatArray

__all__ = ["Ppc", "ppc_chi2"]


@dataclass(frozen=True, slots=True)
class Ppc:
    """Posterior-predictive check of B objects.

    Attributes
    ----------
    minimum, median : (B,)
        Smallest and median chi-squared of the draws.
    dof : (B,)
        Number of observed elements.
    p : (B,)
        Posterior-predictive p-value; NaN where nothing was observed.
    """

    minimum: NDArray[np.float64]
    median: NDArray[np.float64]
    dof: NDArray[np.int64]
    p: NDArray[np.float64]


def ppc_chi2(
    x: FloatArray,
    predicted: FloatArray,
    x_err: FloatArray,
    mask: NDArray[np.bool_] | None = None,
) -> Ppc:
    """Chi-squared of B observations against S noise-free predictions each.

    Parameters
    ----------
    x : (B, ...)
        Data.
    predicted : (S, B, ...)
        Noise-free predictions at posterior draws.
    x_err : (B, ...)
        One standard deviation.
    mask : (B, ...)
        True = observed; all, when left out. Other elements are ignored.

    Raises
    ------
    ValueError
        If shapes do not fit, an observed element or a prediction of one is not finite, or its
        error is not positive.
    """
    x, predicted, x_err = (np.asarray(v, dtype=np.float64) for v in (x, predicted, x_err))
    if predicted.ndim < 2 or predicted.shape[1:] != x.shape or x_err.shape != x.shape:
        raise ValueError(
            "predicted must be (draws, objects, ...) and x, x_err (objects, ...), "
            f"not {predicted.shape}, {x.shape} and {x_err.shape}"
        )
    seen = np.ones(x.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    if seen.shape != x.shape:
        raise ValueError(f"mask must have the shape of x, {x.shape}, not {seen.shape}")
    with np.errstate(invalid="ignore"):
        wrong = seen & ~(np.isfinite(x) & np.isfinite(x_err) & (x_err > 0))
    wrong |= seen & ~np.isfinite(predicted).all(axis=0)
    if wrong.any():
        bad = np.unique(np.argwhere(wrong)[:, 0])
        raise ValueError(
            f"values are not finite, or errors not positive, for objects {bad[:10].tolist()}"
        )
    n = len(x)
    error = np.where(seen, x_err, 1.0)
    scaled = np.where(seen, (np.where(seen, x, 0.0) - predicted) / error, 0.0)
    chi2 = (scaled.reshape(len(predicted), n, -1) ** 2).sum(axis=2)
    dof = seen.reshape(n, -1).sum(axis=1)
    p = np.where(dof > 0, stats.chi2.sf(chi2, np.maximum(dof, 1)).mean(axis=0), np.nan)
    return Ppc(chi2.min(axis=0), np.median(chi2, axis=0), dof, p)
