r"""Accuracy of point estimates, per parameter.

Accuracy measures the distance of estimates from the true values, without regard to the error bars,
which the other modules of this package test. For estimates :math:`\hat\theta_b` (posterior means or
medians) of truths :math:`\theta_b`, :math:`e_b = \hat\theta_b - \theta_b`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics._ranks import FloatArray

__all__ = ["accuracy", "mae", "median_ape", "r2", "rmse"]


def mae(estimate: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    r"""Mean absolute error :math:`\overline{|e|}`, in the unit of the parameter.

    Parameters
    ----------
    estimate, truth : (B, ...)

    Returns
    -------
    (...)
    """
    return np.asarray(np.abs(_error(estimate, truth)).mean(axis=0))


def rmse(estimate: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    r"""Root mean square error :math:`\sqrt{\overline{e^2}}`, in the unit of the parameter.

    Parameters
    ----------
    estimate, truth : (B, ...)

    Returns
    -------
    (...)
    """
    return np.asarray(np.sqrt((_error(estimate, truth) ** 2).mean(axis=0)))


def r2(estimate: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    r"""Coefficient of determination :math:`1 - \sum e^2 / \sum (\theta - \bar\theta)^2`.

    Parameters
    ----------
    estimate, truth : (B, ...)

    Returns
    -------
    (...)
        1 is perfect, 0 as good as the mean truth, negative is worse; NaN where the truth
        does not vary. It depends on the spread of the test truths: compare only on one test set.
    """
    error = _error(estimate, truth)
    t = np.asarray(truth, dtype=np.float64)
    spread = ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    unexplained = (error**2).sum(axis=0)
    ratio = np.divide(unexplained, spread, out=np.full_like(unexplained, np.nan), where=spread > 0)
    return np.asarray(1.0 - ratio)


def median_ape(estimate: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    r"""Median absolute percentage error :math:`100\,\mathrm{med}|e/\theta|`, in per cent.

    .. warning::
        Unfit for parameters that come near 0, and meaningless for logarithms (dex, magnitudes),
        where it depends on the unit. It is provided because papers quote it; prefer :func:`mae` or
        :func:`rmse`.

    Parameters
    ----------
    estimate, truth : (B, ...)

    Returns
    -------
    (...)
        Infinite for objects whose truth is exactly 0, unless estimated exactly.
    """
    error = np.abs(_error(estimate, truth))
    size = np.abs(np.asarray(truth, dtype=np.float64))
    # A miss of a zero is infinite, a hit is 0; neither warns.
    fallback = np.where(error > 0.0, np.inf, 0.0)
    ratio = np.divide(error, size, out=fallback, where=size > 0.0)
    return np.asarray(100.0 * np.median(ratio, axis=0))


def accuracy(
    estimate: FloatArray, truth: FloatArray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return all four numbers per parameter, as in ``report.json``.

    Parameters
    ----------
    estimate, truth : (B, d)
    names : (d,)
        Parameter names.

    Returns
    -------
    dict
        ``{name: {"mae": ..., "rmse": ..., "r2": ..., "median_ape": ...}}``
    """
    columns = {f.__name__: f(estimate, truth) for f in (mae, rmse, r2, median_ape)}
    return {
        name: {key: float(values[j]) for key, values in columns.items()}
        for j, name in enumerate(names)
    }


def _error(estimate: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    e, t = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if e.shape != t.shape or e.ndim == 0 or not len(e):
        raise ValueError(
            f"estimate and truth must have one shape (B, ...), not {e.shape} and {t.shape}"
        )
    return np.asarray(e - t)
