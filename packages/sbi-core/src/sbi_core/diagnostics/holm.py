r"""Holm's correction of p-values for the number of tests.

With p-values ordered :math:`p_{(1)} \le \dots \le p_{(d)}`,

.. math:: \tilde p_{(k)} = \max_{j \le k} \min\left(1, (d - j + 1)\, p_{(j)}\right) .

The probability that any :math:`\tilde p` of a calibrated quantity falls below :math:`\alpha` is at
most :math:`\alpha`, whatever the dependence of the tests. Never weaker than Bonferroni's, which
multiplies all of them by d.

References:
    | Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6, 65
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["holm"]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values for their number.

    Parameters
    ----------
    p : (d,)
        NaN stays NaN and counts as a test.

    Returns
    -------
    (d,)

    Examples
    --------
    >>> holm([0.01, 0.5, 0.02])
    array([0.03, 0.5 , 0.04])
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(f"p-values must be a list of numbers in [0, 1], not {p}")
    order = np.argsort(p)  # NaN last
    steps = np.minimum(1.0, np.arange(len(p), 0, -1) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted
