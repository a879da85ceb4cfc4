r"""SN II and AGB tables merged into one grid of mass segments and metallicity nodes.

The mass a population returns between two ages is, with the turn-off masses
:math:`M_k < M_{k-1}` and rows q of the tables,

.. math::

    F_e(k) = \sum_q w_q(k)\,(y_{q,e} + u_q X_e), \qquad
    w_q(k) = C(\min(edge_{q+1}, M_{k-1})) - C(\max(edge_q, M_k)),

linear in log10 Z between tables. Two exact rewritings make this one small matrix product:
all edges of both channels and all metallicities, taken as indices of the IMF grid, cut the
mass axis into *segments* on which every table is constant; and a function that is linear in
log10 Z between the nodes of its own table is also linear between the nodes of the union.

See docs/chempy-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import ELEMENTS, Z_FLOOR
from sbi_chempy.imf import M_MIN_MSUN, grid_index
from sbi_chempy.yields.tables import YieldRows, YieldSet, YieldTable, YieldTableError

__all__ = ["ReturnGrid"]

_SAME_NODE = 1e-6  # relative; float32 tables store 0.004 as 0.00400000019


@dataclass(frozen=True, eq=False)
class ReturnGrid:
    """Merged tables.

    Parameters
    ----------
    bounds : (G+1,) int64
        Segment limits, ascending, as indices of the cumulative IMF.
    log_z : (nZ,)
        log10 of the metallicity nodes; a table at Z = 0 sits at -10.
    extrapolates : bool
        True if a table at Z = 0 exists; the original code then extrapolates below -10.
    table : (nZ, G, 10)
        y of the nine elements, then u, as fractions of the initial mass.
    agb_high : int
        Index of the IMF grid at the upper mass limit of the AGB channel.
    agb_low_msun : Msun
        Lower limit itself: ages beyond it return no AGB mass at all (quirk of Chempy).
    channel : (G,) int64
        Channel of each segment, an index of :data:`sbi_chempy.constants.FACTOR_CHANNELS`.
    gross : (G,) bool
        True where y is a gross yield.
    """

    bounds: NDArray[np.int64]
    log_z: NDArray[np.float64]
    extrapolates: bool
    table: NDArray[np.float64]
    agb_high: int
    agb_low_msun: float
    channel: NDArray[np.int64]
    gross: NDArray[np.bool_]

    @classmethod
    def merge(cls, yields: YieldSet) -> ReturnGrid:
        """Merge the SN II and AGB tables of a set."""
        sn2, agb = yields.sn2, yields.agb
        if agb.mass_range[1] > sn2.mass_range[0] or agb.mass_range[0] <= M_MIN_MSUN:
            raise YieldTableError("AGB mass range must lie below the SN II range")
        edges = [rows.edges for table in (sn2, agb) for rows in table.rows]
        bounds = np.unique(grid_index(np.concatenate(edges)))
        log_z = _union_nodes(_log_nodes(sn2), _log_nodes(agb))
        merged = sum(_on_union(t, bounds, log_z) for t in (sn2, agb))
        agb_high = int(grid_index(agb.mass_range[1]))
        low_mass = bounds[:-1] < agb_high
        return cls(
            bounds=bounds,
            log_z=log_z,
            extrapolates=bool(sn2.metallicity[0] == 0 or agb.metallicity[0] == 0),
            table=np.asarray(merged),
            agb_high=agb_high,
            agb_low_msun=agb.mass_range[0],
            channel=low_mass.astype(np.int64),
            gross=np.where(low_mass, not agb.net, not sn2.net),
        )


def _log_nodes(table: YieldTable) -> NDArray[np.float64]:
    return np.log10(np.where(table.metallicity == 0, Z_FLOOR, table.metallicity))


def _union_nodes(*nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted union; nodes that differ by float32 rounding only count once."""
    union = np.unique(np.concatenate(nodes))
    new = np.append(True, np.diff(union) > _SAME_NODE)
    return union[new]


def _on_union(
    table: YieldTable, bounds: NDArray[np.int64], log_z: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One channel on the common segments and metallicity nodes, (nZ, G, 10)."""
    own = np.stack([_on_segments(rows, bounds) for rows in table.rows])
    nodes = _log_nodes(table)
    result = np.empty((len(log_z), *own.shape[1:]))
    for i, value in enumerate(log_z):
        k = int(np.clip(np.searchsorted(nodes, value) - 1, 0, max(len(nodes) - 2, 0)))
        if len(nodes) == 1:
            result[i] = own[0]
            continue
        weight = (nodes[k + 1] - value) / (nodes[k + 1] - nodes[k])
        weight = float(np.clip(weight, 0.0, 1.0))
        for snap in (0.0, 1.0):  # a node of this very table: no rounding
            weight = snap if abs(weight - snap) < _SAME_NODE else weight
        result[i] = weight * own[k] + (1 - weight) * own[k + 1]
    return result


def _on_segments(rows: YieldRows, bounds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of one metallicity, repeated over the segments they cover, (G, 10)."""
    edges = grid_index(rows.edges)
    columns = np.concatenate([rows.yields, rows.wind[:, None]], axis=1)
    left = bounds[:-1]
    row = np.searchsorted(edges, left, side="right") - 1
    inside = (left >= edges[0]) & (left < edges[-1])
    segments = np.zeros((len(left), len(ELEMENTS) + 1))
    segments[inside] = columns[row[inside]]
    return segments
