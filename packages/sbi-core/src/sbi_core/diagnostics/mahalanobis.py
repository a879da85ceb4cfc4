r"""How far is a point from a cloud of points, in units of the cloud's own scatter?

.. math:: D^2 = (x - \bar x)^\top C^{+} (x - \bar x)

with mean and covariance of the cloud (Mahalanobis 1936) and C+ the pseudo-inverse. For summaries of
a trained network, where errors and missing elements have no meaning; observations themselves are
scored by :class:`sbi_core.diagnostics.support.SupportScale`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["mahalanobis_percentile"]

F64 = NDArray[np.float64]
_DEAD = 1e-6  # columns that vary less than this, relative to the widest, carry nothing


def mahalanobis_percentile(points: F64, cloud: F64, reference: F64 | None = None) -> F64:
    """Return the percentile (n,), 0 to 100, of D of points among those of a reference.

    Parameters
    ----------
    points
        (n, d).
    cloud
        (m, d), sets mean and covariance.
    reference
        (r, d), sets the percentiles: points like the cloud's, but not among them, if the cloud has
        few points per dimension (D of its own points is then too small). Default: the cloud.

    Raises
    ------
    ValueError
        If the numbers of columns differ, a value is not finite, or the cloud has fewer than two
        points.
    """
    others = cloud if reference is None else reference
    _check(points=points, cloud=cloud, reference=others)
    spread = cloud.std(0)
    varies = spread > _DEAD * spread.max(initial=0.0)
    mean = cloud[:, varies].mean(0)
    inverse = np.linalg.pinv(np.cov(cloud[:, varies].T).reshape(len(mean), len(mean)))

    def distance(x: F64) -> F64:
        off = x[:, varies] - mean
        return np.asarray(np.einsum("ni,ij,nj->n", off, inverse, off))

    known = np.sort(distance(others))
    return np.asarray(100.0 * np.searchsorted(known, distance(points)) / len(known))


def _check(**arrays: F64) -> None:
    shapes = {name: np.shape(a) for name, a in arrays.items()}
    if any(len(s) != 2 for s in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        words = ", ".join(f"{name} {s}" for name, s in shapes.items())
        raise ValueError(f"Mahalanobis distance needs arrays (rows, d) of one d, not {words}")
    if min(shapes["cloud"][0], 2 * shapes["reference"][0]) < 2:
        raise ValueError(
            f"Mahalanobis distance needs a cloud of two points and a reference of one, not "
            f"{shapes['cloud'][0]} and {shapes['reference'][0]}"
        )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"Mahalanobis distance: {name} holds values that are not finite")
