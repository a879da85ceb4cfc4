r"""How unlike a cloud of points is a point? For summaries that a trained network makes of data.

.. math:: w = W\,(x - \bar x), \qquad W^\top W = C^{+}, \qquad
          D_0 = |w|, \qquad D_k = |w - w_{(k)}|

with mean and covariance C of the cloud: D_0 is the distance from its centre (Mahalanobis 1936), D_k
that to the k-th nearest of its points, which sees holes and bends of the cloud, too. Observations
themselves, with errors and missing elements, are scored by
:class:`sbi_core.diagnostics.support.SupportScale`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cloud_percentile"]

F64 = NDArray[np.float64]
_DEAD = 1e-6  # columns that vary less than this, relative to the widest, carry nothing
_FLAT = 1e-10  # nor do directions with less than this share of the largest correlation eigenvalue
_ROWS = 500  # points at a time


def cloud_percentile(
    points: F64, cloud: F64, reference: F64 | None = None, *, neighbours: int = 0
) -> F64:
    """Return the percentile (n,), 0 to 100, of the distance of points among that of a reference.

    Parameters
    ----------
    points
        (n, d).
    cloud
        (m, d), sets mean and covariance.
    reference
        (r, d), sets the percentiles: points like the cloud's, but not among them, if the cloud has
        few points per dimension (its own points are then too near). Default: the cloud.
    neighbours
        0: distance from the centre; k: from the k-th nearest point of the cloud.

    Raises
    ------
    ValueError
        If the numbers of columns differ, a value is not finite, or the cloud has fewer than two
        points, or fewer than ``neighbours + 1``.
    """
    others = cloud if reference is None else reference
    _check(neighbours, points=points, cloud=cloud, reference=others)
    mean, axes = _whitening(cloud)
    mine, theirs = (points - mean) @ axes, (others - mean) @ axes
    if neighbours:
        near = (cloud - mean) @ axes
        own = reference is None  # every point of the cloud is nearest to itself
        ours = _to_neighbour(mine, near, neighbours)
        known = _to_neighbour(theirs, near, neighbours + own)
    else:
        ours, known = np.linalg.norm(mine, axis=1), np.linalg.norm(theirs, axis=1)
    return np.asarray(100.0 * np.searchsorted(np.sort(known), ours) / len(known))


def _whitening(cloud: F64) -> tuple[F64, F64]:
    """Return the mean (d,) and axes (d, e) to project on; e directions vary."""
    spread = cloud.std(0)
    varies = spread > _DEAD * spread.max(initial=0.0)
    unit = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
    values, vectors = np.linalg.eigh(np.cov((cloud * unit).T).reshape(len(unit), len(unit)))
    wide = values > _FLAT * values.max(initial=0.0)
    return cloud.mean(0), unit[:, None] * vectors[:, wide] / np.sqrt(values[wide])


def _to_neighbour(points: F64, cloud: F64, k: int) -> F64:
    """Return the distance of every point to the k-th nearest of the cloud.

    All pairs: in tens of dimensions a tree visits nearly all of them, too, and slower.
    """
    square = (cloud**2).sum(1)
    found = np.empty(len(points))
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        off = square - 2.0 * points[rows] @ cloud.T
        found[rows] = np.partition(off, k - 1, axis=1)[:, k - 1] + (points[rows] ** 2).sum(1)
    return np.sqrt(np.maximum(found, 0.0))


def _check(neighbours: int, **arrays: F64) -> None:
    shapes = {name: np.shape(a) for name, a in arrays.items()}
    if any(len(s) != 2 for s in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        words = ", ".join(f"{name} {s}" for name, s in shapes.items())
        raise ValueError(f"distance from a cloud needs arrays (rows, d) of one d, not {words}")
    least = max(2, neighbours + 1)
    if neighbours < 0 or shapes["cloud"][0] < least or not shapes["reference"][0]:
        raise ValueError(
            f"distance from a cloud (neighbours = {neighbours}) needs at least {least} points in "
            f"the cloud and one of reference, not {shapes['cloud'][0]} and "
            f"{shapes['reference'][0]}"
        )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"distance from a cloud: {name} holds values that are not finite")
