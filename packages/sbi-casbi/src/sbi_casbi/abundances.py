r"""[Fe/H] and [O/Fe] or [Mg/Fe] of mass fractions, and solar scales.

.. math:: X_\mathrm{H} = 1 - Z - (0.236 + 2.1 Z), \qquad
          [\mathrm{Fe/H}] = \log_{10}\frac{X_\mathrm{Fe}}{X_\mathrm{H}}
                            - \log_{10}\frac{X_{\mathrm{Fe}\odot}}{X_{\mathrm{H}\odot}}

and likewise [O/Fe] and [Mg/Fe]. Stars without iron or the other element (mass fraction below 1e-8)
are masked and counted.

References:
    | Pontzen et al. 2013, pynbody, ascl:1305.002 (the hydrogen fraction and the scale ``pynbody``)
    | Asplund, Grevesse, Sauval & Scott 2009, ARA&A 47, 481 (the scale ``asplund09``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError

__all__ = [
    "LABELS",
    "SMALLEST",
    "SOLAR",
    "Element",
    "SolarScale",
    "abundances",
    "hydrogen_of",
    "metals_of",
    "offsets",
    "solar_scale",
]

F64 = NDArray[np.float64]
SMALLEST = 1e-8
Element = Literal["o", "mg"]  # the alpha element beside iron
LABELS: Mapping[str, str] = {"o": "[O/Fe]", "mg": "[Mg/Fe]"}


@dataclass(frozen=True, slots=True)
class SolarScale:
    """Solar mass fractions of iron, oxygen, hydrogen and magnesium."""

    fe: float
    o: float
    h: float
    mg: float


SOLAR: Mapping[str, SolarScale] = {
    "pynbody": SolarScale(1.25e-3, 8.4e-3, 0.706, 6.44e-4),
    "asplund09": SolarScale(1.31e-3, 5.8e-3, 0.74, 7.08e-4),
    "embedded": SolarScale(1.2e-3, 5.6e-3, 0.74, 7.1e-4),
}


def solar_scale(name: str) -> SolarScale:
    """Return a solar scale by name.

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    if name not in SOLAR:
        msg = f"unknown solar scale '{name}'; known: {', '.join(SOLAR)}"
        raise ConfigError(msg)
    return SOLAR[name]


def offsets(have: str, want: str, element: Element = "o") -> tuple[float, float]:
    """Return the offsets of [Fe/H] and [O/Fe] [dex] from solar scale ``have`` to ``want``.

    With ``element = "mg"``, those of [Fe/H] and [Mg/Fe].
    """
    a, b = solar_scale(have), solar_scale(want)
    fe_h = np.log10(a.fe / a.h) - np.log10(b.fe / b.h)
    alpha = [np.log10(getattr(s, element) / s.fe) for s in (a, b)]
    return float(fe_h), float(alpha[0] - alpha[1])


def abundances(
    fe: F64, alpha: F64, hydrogen: F64, scale: SolarScale, element: Element = "o"
) -> tuple[F64, F64]:
    """Return [Fe/H] and [O/Fe] or [Mg/Fe] [dex]; NaN for stars without one of the elements.

    Parameters
    ----------
    fe, alpha, hydrogen
        Mass fractions of iron, of oxygen or magnesium, and of hydrogen, (n,).
    scale
        Solar mass fractions.
    element
        The element of ``alpha``.
    """
    good = (fe > SMALLEST) & (alpha > SMALLEST) & (hydrogen > 0)
    safe = [np.where(good, v, 1.0) for v in (fe, alpha, hydrogen)]
    fe_h = np.log10(safe[0] / safe[2]) - np.log10(scale.fe / scale.h)
    alpha_fe = np.log10(safe[1] / safe[0]) - np.log10(getattr(scale, element) / scale.fe)
    return np.where(good, fe_h, np.nan), np.where(good, alpha_fe, np.nan)


def hydrogen_of(metals: F64) -> F64:
    """Return the mass fraction of hydrogen beside metals and primordial and produced helium."""
    return 1.0 - metals - (0.236 + 2.1 * metals)


def metals_of(fe: F64, o: F64) -> F64:
    """Return the mass fraction of all metals as defined by Gasoline: 1.06 Fe + 2.09 O.

    Shen, Wadsley & Stinson 2010, MNRAS 407, 1581 (Gasoline).
    """
    return 1.06 * fe + 2.09 * o
