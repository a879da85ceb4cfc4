r"""Two-component dust: birth clouds over young stars, a diffuse screen over all.

.. math:: A_\mathrm{old}(\lambda) = \exp[-\tau_\mathrm{ISM}\,\kappa(\lambda)], \qquad
          A_\mathrm{young} = A_\mathrm{old} \exp[-\tau_\mathrm{BC}\,(\lambda/5500)^{-1}]

.. math:: \kappa = \frac{k_C(\lambda) + E_b D(\lambda)}{4.05}\,
          \left(\frac{\lambda}{5500}\right)^{n}, \quad E_b = 0.85 - 1.9\,n, \quad
          D = \frac{(350\lambda)^2}{(\lambda^2 - 2175^2)^2 + (350\lambda)^2}

with :math:`k_C` the starburst curve, extended to the ultraviolet and set to 0 where it would be
negative. The bump is negative for n > 0.447, as in the published relation.

References:
    | Charlot & Fall 2000, ApJ 539, 718 (birth clouds)
    | Calzetti et al. 2000, ApJ 533, 682, eq. 4 (k_C)
    | Kriek & Conroy 2013, ApJL 775, L16, eqs. 1-3 (slope and bump)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BUMP_AT_FLAT", "BUMP_SLOPE", "bump", "calzetti"]

F64 = NDArray[np.float64]
R_V = 4.05
BUMP_AT_FLAT, BUMP_SLOPE = 0.85, -1.9
_CENTRE, _WIDTH = 2175.0, 350.0  # Angstrom


def calzetti(wave: F64) -> F64:
    """Return k_C / R_V of the starburst curve, normalised to 1 near 5500 Angstrom.

    Parameters
    ----------
    wave : (P,) Angstrom
        Wavelengths.
    """
    x = 1e4 / wave  # 1 / micron
    blue = 1.17 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 1.78
    red = 1.17 * (-1.857 + 1.040 * x) + 1.78
    return np.maximum(np.where(wave < 6300.0, blue, red) / 0.44, 0.0) / R_V


def bump(wave: F64) -> F64:
    """Return D / R_V, the Lorentzian-like 2175 Angstrom feature, for wavelengths in Angstrom."""
    top = (_WIDTH * wave) ** 2
    return np.asarray(top / ((wave**2 - _CENTRE**2) ** 2 + top) / R_V)
