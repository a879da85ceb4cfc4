r"""Near copies: the same simulation twice, with numbers that were rounded differently.

Every row of n parameters and m numbers of data, each in units of its standard deviation (of its
logarithm where values extend over decades, which would be a crowd near zero), is projected on up to
three random directions of the parameters and as many of the data. Two rows are near if all
projections agree to :math:`r = 2\cdot10^{-3}`: those of parameters and data, or those of the
parameters (the same parameters with other noise).

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
_POINTS = 10_000  # whose neighbours are counted
_ENDS = (0.05, 0.95)
_DECADES = 100.0  # ratio of the sizes at these quantiles above which a column is compared in logs


class NearCopies:
    """Finds near copies in rows that come in blocks; the first block sets the units."""

    def __init__(self) -> None:
        self._parts: tuple[_Projection, _Projection] | None = None
        self._projected: tuple[list[F64], list[F64]] = [], []  # of theta and x

    def add(self, theta: F64, x: F64) -> None:
        """Take the next rows: theta (n, d) and x (n, m), of which NaN counts as the mean."""
        if self._parts is None:
            rng = stream(0, "near copies")
            self._parts = _Projection(theta, rng), _Projection(x, rng)
        for part, rows, kept in zip(self._parts, (theta, x), self._projected, strict=True):
            kept.append(part(rows))

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
        theta, x = map(np.concatenate, self._projected)
        first = np.unique(units, return_index=True)[1]
        pairs = [_near(np.hstack([theta, x])[first]), _near(theta[first])]
        one, two = np.concatenate(pairs).T
        graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(len(first), len(first)))
        joined = connected_components(graph, directed=False)[1].astype(np.int64)
        return joined[units], int(np.isin(units, np.union1d(one, two)).sum())


def _near(points: F64) -> I64:
    """Return the pairs of near points, (n, 2): none where they are near by chance."""
    tree = KDTree(points)
    some = stream(0, "near copies, points").permutation(len(points))[:_POINTS]
    near, wider = (
        int(tree.query_ball_point(points[some], r, p=np.inf, return_length=True).sum()) - len(some)
        for r in (_NEAR, _WIDER * _NEAR)
    )
    if near == 0 or near - (wider - near) / (_WIDER - 1) <= 0.5 * near:
        return np.empty((0, 2), np.int64)
    return np.asarray(tree.query_pairs(_NEAR, p=np.inf, output_type="ndarray"), np.int64)


class _Projection:
    """Rows (n, m) in units of the spread of their columns, along up to three directions."""

    def __init__(self, rows: F64, rng: np.random.Generator) -> None:
        finite = np.where(np.isfinite(rows), rows, np.nan)
        known = np.isfinite(finite).any(0)
        self._unit = np.full(rows.shape[1], np.inf)  # of columns over decades: below, linear
        size = np.where(finite == 0, np.nan, np.abs(finite))
        some = np.isfinite(size).any(0)
        if some.any():
            low, high = np.nanquantile(size[:, some], _ENDS, axis=0)
            self._unit[some] = np.where(high > _DECADES * low, low, np.inf)
        self._mean, sd = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):  # columns that large are constant
            scaled = self._scaled(finite[:, known], self._unit[known])
            self._mean[known], sd[known] = np.nanmean(scaled, 0), np.nanstd(scaled, 0)
        sd[~np.isfinite(sd)] = 0.0
        along = rng.standard_normal((rows.shape[1], min(_DIRECTIONS, rows.shape[1])))
        along /= np.linalg.norm(along, axis=0)
        self._along = along / np.where(sd > 0, sd, np.inf)[:, None]

    def __call__(self, rows: F64) -> F64:
        with np.errstate(over="ignore", invalid="ignore"):
            centred = self._scaled(rows, self._unit) - self._mean
        return np.asarray(np.nan_to_num(centred, posinf=0.0, neginf=0.0) @ self._along)

    @staticmethod
    def _scaled(rows: F64, unit: F64) -> F64:
        wide = np.isfinite(unit)
        if not wide.any():
            return rows
        rows = rows.copy()
        rows[:, wide] = np.arcsinh(rows[:, wide] / unit[wide])
        return rows
