"""Fluxes and redshifts of the rows of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Photometry", "repeated"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Photometry:
    """Fluxes of a catalogue.

    Parameters
    ----------
    id : (n,)
        Identifiers.
    flux, sigma : (n, 7)
        Fluxes and errors [nanomaggies]; NaN where missing or unusable.
    z, z_dist : (n,)
        Observed redshift, and redshift for the distance; NaN where unknown.
    more
        Further columns to keep, (n,) each: ``ra``, ``dec``, ``mass`` (Msun), ``quality``.
    notes
        Conversions and masked values, one sentence each.
    source
        File.
    """

    id: list[str]
    flux: F64
    sigma: F64
    z: F64
    z_dist: F64
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.id)


def repeated(photometry: Photometry) -> Bool:
    """Return which rows repeat an identifier, (n,): all but its first most complete row."""
    ids = np.asarray(photometry.id)
    values = np.isfinite(photometry.flux).sum(1) + 8 * (photometry.z > 0)
    best = np.lexsort((np.arange(len(ids)), -values, ids))  # rows of one identifier, best first
    leads = np.ones(len(ids), bool)
    leads[1:] = ids[best][1:] != ids[best][:-1]
    out = np.ones(len(ids), bool)
    out[best[leads]] = False
    return out
