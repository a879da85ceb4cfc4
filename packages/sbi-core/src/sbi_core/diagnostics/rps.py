r"""Ranked probability score of integer parameters.

.. math:: \mathrm{RPS}_b = \sum_j \left(F_b(j) - \mathbf 1[n_b \le j]\right)^2 , \qquad
          \mathrm{skill} = 1 - \frac{\sum_b \mathrm{RPS}_b}{\sum_b \mathrm{RPS}^{\pi}_b}

with :math:`F_b` the distribution function of the posterior and :math:`\mathrm{RPS}^\pi` the score
of the prior. It is a proper score: its expectation is best for the true posterior. It is 0 for
certainty about the truth and grows with the distance of an error. The skill is 1 for certain and
correct posteriors, 0 for the prior, and negative for worse than the prior. It measures accuracy and
calibration together.

References:
    | Epstein 1969, J. Appl. Meteor. 8, 985
    | Gneiting & Raftery 2007, "Strictly proper scoring rules", JASA 102, 359
"""

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics._ranks import FloatArray, IntArray
from sbi_core.diagnostics.pit_integer import check_probabilities

__all__ = ["rps", "rps_skill"]


def rps(probabilities: FloatArray, n: IntArray, *, low: int = 0) -> NDArray[np.float64]:
    """Score of B distributions over the integers low..low+K-1.

    Parameters
    ----------
    probabilities : (B, K)
    n : (B,)
        The truths.
    low : int

    Returns
    -------
    (B,)

    Raises
    ------
    ValueError
        If a row does not sum to 1, or a truth lies outside the range.

    Examples
    --------
    >>> rps(np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]), np.array([1, 0]))
    array([0.  , 0.25])
    """
    probabilities, k = check_probabilities(probabilities, n, low)
    step = np.arange(probabilities.shape[1]) >= k[:, None]
    return np.asarray(((np.cumsum(probabilities, axis=1) - step) ** 2).sum(axis=1))


def rps_skill(probabilities: FloatArray, n: IntArray, prior: FloatArray, *, low: int = 0) -> float:
    """Skill of B posteriors relative to the prior.

    Parameters
    ----------
    probabilities : (B, K)
    n : (B,)
    prior : (K,)
        Prior probabilities.
    low : int

    Returns
    -------
    float
        NaN if the prior is certain.
    """
    ours = rps(probabilities, n, low=low).sum()
    theirs = rps(np.broadcast_to(prior, np.shape(probabilities)), n, low=low).sum()
    return float(1.0 - ours / theirs) if theirs > 0 else float("nan")
