r"""Nuisance parameters of chempy: yields, drawn once per galaxy.

Per channel, a published table is drawn, and each element e has a factor

.. math:: 10^{\phi_e + s_e \log_{10}(Z/0.0134)}, \qquad
          \phi_e \sim t_3(0, f\,\sigma_e),\; s_e \sim t_3(0, f\,\sigma'_e)

with the scales :math:`\sigma` from the differences between studies
(:mod:`sbi_chempy.yields.scatter`); Student's t, since studies differ by outliers. f is 0.4, because
the table is drawn, too. In 30 % of the galaxies, stars above 25 or 40 solar masses collapse to
black holes and return nothing: studies differ in which stars explode.

References:
    | Philcox & Rybizki 2019, ApJ 887, 9 (errors of yields in the inference)
    | Griffith et al. 2021, ApJ 921, 73 (black holes and yields)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import FACTOR_CHANNELS, FACTOR_ELEMENTS
from sbi_chempy.yields.embedded import EMBEDDED
from sbi_chempy.yields.scatter import scatter
from sbi_chempy.yields.tables import YieldRows, YieldTable
from sbi_core import Parameter, ParameterSpace, Prior

__all__ = ["FAMILIES", "collapsed", "drawn_tables", "factors_of", "tables_of", "yield_nuisances"]

F64 = NDArray[np.float64]
FAMILIES = {"sn2": "SN II yields", "agb": "AGB yields", "sn1a": "SN Ia yields"}
_DOF = 3.0
_LEAST, _PART = 0.05, 0.4  # smallest scale, dex; part of the scatter, since tables are drawn, too
_LARGEST = 1.0  # dex: larger factors are cut
COLLAPSE = "sn2_collapse"
_LIMITS = (100.0, 40.0, 25.0)  # Msun: heavier stars return nothing


def drawn_tables(without: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return the tables of every channel, those of one study left out."""
    return {
        channel: tuple(n for n in EMBEDDED[channel] if without is None or not n.startswith(without))
        for channel in FACTOR_CHANNELS
    }


def yield_nuisances(without: str | None = None) -> dict[str, ParameterSpace]:
    """Return the families of nuisance parameters.

    Parameters
    ----------
    without
        Leave out the tables whose name starts with this, to test what they would do to others.
    """
    scales = np.maximum(_PART * scatter(without), _LEAST)
    spaces = {}
    for c, channel in enumerate(FACTOR_CHANNELS):
        tables = drawn_tables(without)[channel]
        parameters = [
            Parameter(
                f"{channel}_table",
                Prior("discrete", {"values": list(range(len(tables)))}),
                scope="nuisance",
                description=f"yield table: {', '.join(tables)}",
            )
        ]
        for kind, word in enumerate(("factor", "slope")):
            if channel == "sn1a" and word == "slope":
                continue
            parameters += [
                Parameter(
                    f"{channel}_{element.lower()}_{word}",
                    Prior("studentt", {"df": _DOF, "scale": float(scales[c, e, kind])}),
                    unit="dex" if word == "factor" else "",
                    scope="nuisance",
                    description=f"log10 {word} of the {element} yield",
                )
                for e, element in enumerate(FACTOR_ELEMENTS)
            ]
        if channel == "sn2":
            parameters.append(
                Parameter(
                    COLLAPSE,
                    Prior("discrete", {"values": list(_LIMITS), "pmf": [0.7, 0.15, 0.15]}),
                    unit="Msun",
                    scope="nuisance",
                    description="mass above which stars collapse without ejecta",
                )
            )
        spaces[FAMILIES[channel]] = ParameterSpace(tuple(parameters))
    return spaces


def tables_of(nuisances: Mapping[str, F64]) -> F64:
    """Return the number of the table of each channel, and the limit of collapse, (n, 4).

    Nominal values: -1, the simulator's own table, and 100 Msun.
    """
    columns = [np.nan_to_num(nuisances[FAMILIES[c]][:, 0], nan=-1.0) for c in FACTOR_CHANNELS]
    limit = np.nan_to_num(nuisances[FAMILIES["sn2"]][:, -1], nan=_LIMITS[0])
    return np.stack([*columns, limit], 1)


def collapsed(table: YieldTable, limit: float) -> YieldTable:
    """Return a SN II table in which stars above a limit, Msun, return nothing."""
    return replace(table, rows=tuple(_collapsed(rows, limit) for rows in table.rows))


def _collapsed(rows: YieldRows, limit: float) -> YieldRows:
    explodes = (rows.mass <= limit).astype(np.float64)
    return YieldRows(
        rows.mass,
        rows.edges,
        np.where(explodes > 0, rows.remnant, 1.0),
        rows.wind * explodes,
        rows.yields * explodes[:, None],
    )


def factors_of(nuisances: Mapping[str, F64]) -> F64:
    """Return yield factors (n, 3, 8, 2) for the engine; zero where a family has nominal values."""
    elements, n = len(FACTOR_ELEMENTS), len(nuisances[FAMILIES["sn2"]])
    factors = np.zeros((n, len(FACTOR_CHANNELS), elements, 2))
    for c, channel in enumerate(FACTOR_CHANNELS):
        values = np.clip(np.nan_to_num(nuisances[FAMILIES[channel]][:, 1:]), -_LARGEST, _LARGEST)
        factors[:, c, :, 0] = values[:, :elements]
        if channel != "sn1a":
            factors[:, c, :, 1] = values[:, elements : 2 * elements]
    return factors
