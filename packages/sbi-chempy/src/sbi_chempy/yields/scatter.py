r"""How much published yields differ: scales for the prior of yield factors.

For each table and metallicity, the mass of an element that stars of a channel newly make per unit
mass formed (IMF slope -2.3, all stars dead),

.. math:: Y_e = \sum_q w_q \max(\nu_{q,e}, 0),

with the net yields :math:`\nu` that factors of :class:`sbi_chempy.engine.ChempyEngine` scale.
Less than 3 % of what all channels make together counts as 3 %: differences of traces do not matter.
Two tables of different studies differ by

.. math:: \log_{10} Y'_e - \log_{10} Y_e \approx \Delta_e + s_e \log_{10}(Z/0.0134)

(least squares over five metallicities). The scale of a factor is the median of :math:`|\Delta_e|`
over all pairs of studies, divided by 0.75: the scale of a Student t of 3 to 4 degrees of freedom
with this quartile. The factor thus covers the way from the table in use to another study, not only
to the mean of all. Few studies make this number noisy: its logarithm is shrunk towards the mean
of the channel, with the weight of two studies.

The numbers of all tables are in ``data/yield_scatter.json``, written by
``scripts/build_scatter.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_chempy.constants import (
    ATOMIC_MASS,
    ELEMENTS,
    FACTOR_CHANNELS,
    FACTOR_ELEMENTS,
    SOLAR_A,
    Z_FLOOR,
    Z_SUN,
)
from sbi_chempy.imf import cumulative_mass, grid_index
from sbi_chempy.yields.tables import SnIaYield, YieldTable

__all__ = ["LOG_Z", "common_scatter", "imf_weighted", "scatter"]

Array = NDArray[np.float64]

LOG_Z = (-1.5, -1.0, -0.5, 0.0, 0.5)
"""log10(Z/0.0134) at which tables are compared."""

FLOOR_DEX = 0.05  # least scale of a factor; per dex of metallicity for slopes
TRACE = 0.03  # fraction of the production of an element below which a channel does not matter
T_QUARTILE = 0.75  # median of |t| for 3 (0.765) to 4 (0.741) degrees of freedom
SHRINK_STUDIES = 2.0  # weight of the mean over elements, in studies
_H, _HE = ELEMENTS.index("H"), ELEMENTS.index("He")
_KEEP = [ELEMENTS.index(e) for e in FACTOR_ELEMENTS]
_METALS = [FACTOR_ELEMENTS.index(e) for e in FACTOR_ELEMENTS if e != "He"]
_SN_IA_PER_MSUN = 10**-2.89


def imf_weighted(table: YieldTable | SnIaYield) -> Array:
    """Newly made mass of the eight elements per unit mass formed, (5, 8) at :data:`LOG_Z`.

    NaN for elements that the table does not carry. For an SN Ia yield: 10^-2.89 events per Msun.
    """
    if isinstance(table, SnIaYield):
        return np.tile(_SN_IA_PER_MSUN * table.yields[_KEEP], (len(LOG_Z), 1))
    imf = cumulative_mass(torch.tensor([-2.3], dtype=torch.float64))[0].numpy()
    made = []
    for z, rows in zip(table.metallicity, table.rows, strict=True):
        net = rows.yields
        if not table.net:
            net = net - net.sum(1, keepdims=True) * _scaled_solar(z)
        weights = np.diff(imf[grid_index(rows.edges)])
        made.append(weights @ net.clip(min=0))
    at = np.log10(np.maximum(table.metallicity, Z_FLOOR) / Z_SUN)
    result = np.stack([np.interp(LOG_Z, at, column) for column in np.transpose(made)], axis=1)
    result[:, [ELEMENTS.index(e) for e in table.absent]] = np.nan
    return result[:, _KEEP]


def _scaled_solar(z: float) -> Array:
    """Mass fractions of the nine elements of unprocessed material."""
    mass = 10 ** np.array(SOLAR_A) * np.array(ATOMIC_MASS)
    mix = mass / mass[_H] * 0.738 * z / Z_SUN
    mix[_HE] = 0.24 + 0.01 * z / Z_SUN
    mix[_H] = 1 - mix[_HE] - z
    return mix


def scatter(without: str | None = None) -> Array:
    """Scales of yield factors from the differences between studies.

    Parameters
    ----------
    without : str, optional
        Leave out the tables whose name or study starts with this, for example ``"limongi18"`` or
        ``"karakas16"``.

    Returns
    -------
    (3, 8, 2)
        Scale of a Student t of 3 to 4 degrees of freedom, in the shape of one row of factors: dex,
        and dex per dex of metallicity (zero for SN Ia).

    Raises
    ------
    ValueError
        If no table has the name ``without``.
    """
    scales = np.zeros((len(FACTOR_CHANNELS), len(FACTOR_ELEMENTS), 2))
    for c, pairs in enumerate(_pairs(without)):
        raw = np.maximum(np.nanmedian(pairs.change, axis=0) / T_QUARTILE, FLOOR_DEX)
        shrunk = SHRINK_STUDIES / (SHRINK_STUDIES + pairs.studies)
        scales[c] = raw ** (1 - shrunk) * np.exp(np.log(raw).mean(0)) ** shrunk
    scales[FACTOR_CHANNELS.index("sn1a"), :, 1] = 0
    return scales


def common_scatter(without: str | None = None) -> Array:
    """Scale of a factor that all metals of a channel share, (3,) dex.

    Of a pair of tables, the median change of the metals that are more than a trace. Part of
    :func:`scatter`, not in addition to it.
    """
    return np.array([np.median(pairs.common) / T_QUARTILE for pairs in _pairs(without)])


class _Pairs(NamedTuple):
    """Pairs of studies: size of the change (P, 8, 2), of the common one (P,); means over tables."""

    studies: int
    change: Array
    common: Array


def _pairs(without: str | None) -> list[_Pairs]:
    names = [t.name for tables in _tables().values() for t in tables]
    if without is not None and not any(
        t.belongs_to(without) for tables in _tables().values() for t in tables
    ):
        raise ValueError(f"no yield table {without!r}; have {', '.join(dict.fromkeys(names))}")
    kept = {
        channel: [t for t in tables if without is None or not t.belongs_to(without)]
        for channel, tables in _tables().items()
    }
    return [_compare(kept[channel], _trace()) for channel in FACTOR_CHANNELS]


@cache
def _trace() -> Array:
    """Production (5, 8) that does not matter; from all tables, also those left out."""
    made = (np.nanmedian([t.made for t in tables], axis=0) for tables in _tables().values())
    return TRACE * np.sum(list(made), axis=0)


def _compare(tables: Sequence[_Table], trace: Array) -> _Pairs:
    line = np.linalg.pinv(np.stack([np.ones(len(LOG_Z)), LOG_Z], axis=1))  # (2, 5)
    change: dict[tuple[str, str], list[Array]] = {}
    common: dict[tuple[str, str], list[float]] = {}
    for a, b in combinations(tables, 2):
        if a.study == b.study:
            continue
        low, high = (np.log10(np.maximum(t.made, trace)) for t in (a, b))  # keeps NaN
        fit = line @ (high - low)
        matters = np.any(np.fmax(a.made, b.made) > trace, axis=0)[_METALS]
        change.setdefault((a.study, b.study), []).append(np.abs(fit.T))
        common.setdefault((a.study, b.study), []).append(
            abs(float(np.nanmedian(fit[0, _METALS][matters]))) if matters.any() else 0.0
        )
    return _Pairs(
        studies=len({t.study for t in tables}),
        change=np.array([np.mean(c, axis=0) for c in change.values()]),
        common=np.array([np.mean(c) for c in common.values()]),
    )


class _Table(NamedTuple):
    name: str
    study: str
    made: Array

    def belongs_to(self, start: str) -> bool:
        return self.name.startswith(start) or self.study.startswith(start)


@cache
def _tables() -> dict[str, list[_Table]]:
    path = resources.files("sbi_chempy") / "data" / "yield_scatter.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        channel: [
            _Table(name, entry["study"], np.array(entry["made"], dtype=float))
            for name, entry in content["channels"][channel].items()
        ]
        for channel in FACTOR_CHANNELS
    }
