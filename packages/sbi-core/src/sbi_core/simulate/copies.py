r"""Near copies: the same simulation twice, with numbers that were rounded differently.

Every row of n parameters and m numbers of data, each in units of its standard deviation, is
projected on up to three random directions of the parameters and as many of the data. Two rows are
near if all projections agree to :math:`r = 2\cdot10^{-3}`.

Rows may also be near by chance, in sets with few parameters and no noise. In k dimensions chance
gives :math:`P(r) \propto r^k` pairs, copies give the same number at every r. With :math:`k \ge 1`
at least :math:`P(r) - [P(4r) - P(r)]/3` of the pairs are copies; unless that is more than half of
them, rows are left alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sbi_core.rng import stream

__all__ = ["NearCopies"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_DIRECTIONS = 3
_NEAR = 2e-3  # in standard deviations
_WIDER = 4.0


class NearCopies:
    """Finds near copies in rows that come in blocks; the first block sets the units."""

    def __init__(self) -> None:
        self._directions: list[tuple[F64, F64]] = []  # (mean, directions / sd) of theta and x
        self._projected: list[F64] = []

    def add(self, theta: F64, x: F64) -> None:
        """Take the next rows: theta (n, d) and x (n, m), of which NaN counts as the mean."""
        parts = (theta, x)
        if not self._directions:
            rng = stream(0, "near copies")
            self._directions = [_directions(part, rng) for part in parts]
        both = [
            np.nan_to_num(part - mean, posinf=0.0, neginf=0.0) @ along
            for part, (mean, along) in zip(parts, self._directions, strict=True)
        ]
        self._projected.append(np.concatenate(both, axis=1))

    def joined(self, units: I64) -> tuple[I64, int]:
        """Join units of copies that are near each other.

        Parameters
        ----------
        units : (n,)
            Number of the unit of every row, from 0 on.

        Returns
        -------
        (n,)
            Numbers of the units, joined.
        int
            Number of rows that are near copies of a row of another unit.
        """
        points, first = np.concatenate(self._projected), np.unique(units, return_index=True)[1]
        tree = KDTree(points[first])
        near, wider = (_pairs(tree, r) for r in (_NEAR, _WIDER * _NEAR))
        if near == 0 or near - (wider - near) / (_WIDER - 1) <= 0.5 * near:
            return units, 0
        one, two = tree.query_pairs(_NEAR, p=np.inf, output_type="ndarray").T
        graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(len(first), len(first)))
        joined = connected_components(graph, directed=False)[1].astype(np.int64)
        return joined[units], int(np.isin(units, np.union1d(one, two)).sum())


def _directions(rows: F64, rng: np.random.Generator) -> tuple[F64, F64]:
    """Return the means (m,) of columns, and directions (m, k) in units of their spread."""
    finite = np.where(np.isfinite(rows), rows, np.nan)
    known = np.isfinite(finite).any(0)
    mean, sd = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    with np.errstate(over="ignore"):  # a column that large counts as constant
        mean[known], sd[known] = np.nanmean(finite[:, known], 0), np.nanstd(finite[:, known], 0)
    sd[~np.isfinite(sd)] = 0.0
    along = rng.standard_normal((rows.shape[1], min(_DIRECTIONS, rows.shape[1])))
    along /= np.linalg.norm(along, axis=0)
    return mean, along / np.where(sd > 0, sd, np.inf)[:, None]


def _pairs(tree: KDTree, distance: float) -> int:
    """Return the number of pairs within a distance."""
    count = int(tree.count_neighbors(tree, distance, p=np.inf))  # pairs twice, and each point
    return (count - int(tree.n)) // 2
