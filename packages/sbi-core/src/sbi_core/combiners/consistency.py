r"""Do the parts of a group of objects agree?

Split the objects into K parts; each part's likelihood alone has precision
:math:`L_k = \sum_{i \in k} (P_i - P_0)` and mean :math:`m_k`. If all objects share
:math:`\Lambda`,

.. math:: \chi^2 = \sum_k (m_k - \bar m)^T L_k (m_k - \bar m) \sim \chi^2_{d(K-1)} .

It sees differences between parts, not an error common to all: no proof of unbiasedness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["group_consistency"]


def group_consistency(
    precision: NDArray[np.float64], information: NDArray[np.float64], groups: int
) -> dict[str, float]:
    """Return ``consistency_chi2``, ``consistency_dof`` and ``consistency_p``.

    Parameters
    ----------
    precision : (n, d, d)
        Single-object posterior precisions, in units where the prior is N(0, I).
    information : (n, d)
        Precision times mean.
    groups : int
        Number of parts K; fewer when there are less than five objects per part.

    Returns
    -------
    dict
        Empty when there are fewer than ten objects, or a part says less than the prior.
    """
    n, d = information.shape
    k = min(groups, n // 5)
    if k < 2:
        return {}
    part = np.arange(n) % k
    ratio = np.stack([(precision[part == g] - np.eye(d)).sum(0) for g in range(k)])
    vector = np.stack([information[part == g].sum(0) for g in range(k)])
    if np.linalg.eigvalsh(ratio).min() <= 0:
        return {}
    means = np.linalg.solve(ratio, vector[..., None])[..., 0]
    common = np.linalg.solve(ratio.sum(0), vector.sum(0))
    chi2 = float(np.einsum("ki,kij,kj->", means - common, ratio, means - common))
    dof = d * (k - 1)
    return {
        "consistency_chi2": chi2,
        "consistency_dof": float(dof),
        "consistency_p": float(special.gammaincc(dof / 2, chi2 / 2)),
    }
