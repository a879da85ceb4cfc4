"""The physical quantities of galaxies as they are shown: logarithms, labels, units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHOWN", "Quantity", "shown"]

F64 = NDArray[np.float64]
_LEAST_RATE = 1e-6  # Msun / yr, where the logarithm of a rate ends


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity of tables and figures.

    Parameters
    ----------
    source
        Parameter or derived quantity.
    label
        TeX, without dollars.
    unit
        TeX of its unit, without brackets.
    heading
        Plain heading of a column.
    log
        Whether the logarithm (base 10) is shown.
    """

    source: str
    label: str
    unit: str
    heading: str
    log: bool = False

    @property
    def title(self) -> str:
        """Label and unit, TeX without dollars."""
        return rf"{self.label}\ [{self.unit}]" if self.unit else self.label


_RATE = r"M_\odot / \mathrm{yr}"
SHOWN = (
    Quantity("logmstar", r"\log M_\star", r"M_\odot", "log mass formed [Msun]"),
    Quantity("logmsurv", r"\log M_\mathrm{surv}", r"M_\odot", "log surviving mass [Msun]"),
    Quantity("sfr_1gyr", r"\log\mathrm{SFR}", _RATE, "log SFR, 1 Gyr [Msun/yr]", log=True),
    Quantity(
        "sfr_100myr", r"\log\mathrm{SFR}_{100}", _RATE, "log SFR, 100 Myr [Msun/yr]", log=True
    ),
    Quantity("tage_mw", r"t_\mathrm{mw}", r"\mathrm{Gyr}", "mass-weighted age [Gyr]"),
    Quantity("z_mw", r"\log Z_\mathrm{mw}", "", "log Z", log=True),
)


def shown(logmstar: F64, derived: Mapping[str, F64]) -> F64:
    """Return the quantities of :data:`SHOWN` in the last axis, (..., 6).

    Parameters
    ----------
    logmstar : (...)
        Logarithm of the mass formed.
    derived
        Derived quantities of the same shape.
    """
    values = {"logmstar": logmstar, **derived}
    columns = [
        np.log10(np.maximum(values[q.source], _LEAST_RATE)) if q.log else values[q.source]
        for q in SHOWN
    ]
    return np.stack(columns, -1)
