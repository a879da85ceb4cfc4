r"""Oxygen and iron of a one-zone galaxy with outflow (Weinberg, Andrews & Freudenburg 2017).

With star-formation rate :math:`\psi`, gas mass :math:`M_g = \tau_* \psi`, mass loading
:math:`\eta`, recycling r and depletion time :math:`\tau_\mathrm{dep} = \tau_* / (1 + \eta - r)`,

.. math::
    \dot M_\mathrm{O} = y_\mathrm{O}\,\psi - M_\mathrm{O} / \tau_\mathrm{dep}, \qquad
    \dot M_\mathrm{Fe} = y_\mathrm{cc}\,\psi + y_\mathrm{Ia} R_\mathrm{Ia}
                         - M_\mathrm{Fe} / \tau_\mathrm{dep},

    R_\mathrm{Ia}(t) = \sum_k w_k \int_{t' < t - t_D} \psi(t')\,
                       \frac{e^{-(t - t' - t_D)/\tau_k}}{\tau_k}\, dt'.

Each step is exact for constant sources, :math:`M \to M f + S\,(1 - f)\,\tau_\mathrm{dep}` with
:math:`f = e^{-dt/\tau_\mathrm{dep}}`, hence stable for any step size, and vectorised over galaxies.
Magnesium is produced like oxygen, with its own yield: [Mg/Fe] and [O/Fe] differ by a constant.

References:
    | Weinberg, Andrews & Freudenburg 2017, ApJ 837, 183 (arXiv:1604.07435), eqs. 8-11, 48-53
    | Maoz & Graur 2017, ApJ 848, 25 (delay times, t^-1.1, here as two exponentials)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "DTD", "Constants", "abundances", "evolve"]

F64 = NDArray[np.float64]
DTD = ((0.5, 0.478), (5.0, 0.522))  # (time scale [Gyr], fraction): close to t^-1.1
# yield and solar mass fraction of the alpha element: plateaus of +0.43 ([O/Fe]), +0.40 ([Mg/Fe])
ALPHA = {"o": (0.015, 0.0056), "mg": (0.0018, 0.00071)}


@dataclass(frozen=True, slots=True)
class Constants:
    """Yields and solar mass fractions.

    Parameters
    ----------
    y_o, y_cc
        Mass of oxygen and iron from core-collapse supernovae per mass of stars formed.
    y_ia
        Mass of iron from type Ia supernovae per mass of stars formed.
    recycling
        Fraction of the mass of stars formed that is returned immediately.
    delay
        Shortest delay of type Ia supernovae [Gyr].
    solar_o, solar_fe
        Solar mass fractions.
    dtd
        Delay times: (time scale [Gyr], fraction) per exponential.
    """

    y_o: float = 0.015
    y_cc: float = 0.0012
    y_ia: float = 0.0017
    recycling: float = 0.40
    delay: float = 0.15
    solar_o: float = 0.0056
    solar_fe: float = 0.0012
    dtd: tuple[tuple[float, float], ...] = DTD


def evolve(
    psi: F64, psi_delayed: F64, dt: F64, tau_star: F64, eta: F64, constants: Constants
) -> tuple[F64, F64]:
    """Return mass fractions of oxygen and iron in the gas at the midpoint of each step.

    Parameters
    ----------
    psi
        Star-formation rate at the midpoint of each step, (n, steps), any mass unit per Gyr.
    psi_delayed
        The same, ``constants.delay`` earlier, (n, steps).
    dt
        Lengths of the steps [Gyr], (n, steps).
    tau_star
        Gas mass over star-formation rate [Gyr], (n,).
    eta
        Mass loading of the outflow, (n, steps).
    constants
        Yields.

    Returns
    -------
    tuple
        Two arrays (n, steps).
    """
    c, n = constants, len(psi)
    oxygen, iron = np.zeros(n), np.zeros(n)
    pools = [np.zeros(n) for _ in c.dtd]
    out = np.empty((2, *psi.shape))
    for j in range(psi.shape[1]):
        h = dt[:, j]
        rate = np.zeros(n)
        for k, (tau, share) in enumerate(c.dtd):
            f = np.exp(-h / tau)
            later = pools[k] * f + psi_delayed[:, j] * (1.0 - f)
            rate += share * 0.5 * (pools[k] + later)
            pools[k] = later
        depletion = tau_star / (1.0 + eta[:, j] - c.recycling)
        f = np.exp(-h / depletion)
        gained = (1.0 - f) * depletion
        gas = tau_star * psi[:, j]
        next_o = oxygen * f + c.y_o * psi[:, j] * gained
        next_fe = iron * f + (c.y_cc * psi[:, j] + c.y_ia * rate) * gained
        out[0, :, j] = 0.5 * (oxygen + next_o) / gas
        out[1, :, j] = 0.5 * (iron + next_fe) / gas
        oxygen, iron = next_o, next_fe
    return out[0], out[1]


def abundances(z_o: F64, z_fe: F64, constants: Constants) -> tuple[F64, F64]:
    """Return [Fe/H] and [O/Fe] [dex] of mass fractions of any shape."""
    fe_h = np.log10(z_fe / constants.solar_fe)
    return fe_h, np.log10(z_o / constants.solar_o) - fe_h
