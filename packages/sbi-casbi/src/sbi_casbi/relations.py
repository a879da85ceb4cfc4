r"""Scaling relations of dwarf galaxies that calibrate the embedded library.

.. math::
    \langle[\mathrm{Fe/H}]\rangle = -1.69 + 0.30 \log_{10}(M_* / 10^6)
        + 0.67\,(e^{-0.5 z} - 1) + c\,\delta, \qquad
    \log_{10} M_\mathrm{dm} = 11.5 + (\log_{10} M_* - 9.65) / s + \delta,

s = 1.75 below log M = 9.65 and 0.6 above. :math:`\delta` is the scatter of the halo mass at fixed
stellar mass; with c = 0.25 deeper haloes keep more of their metals. Only through this term do the
abundances constrain the dark mass at given stellar mass. It is a modelling choice, and
``dm_coupling = 0`` removes it.

References:
    | Kirby et al. 2013, ApJ 779, 102 (slope 0.30 and zero point of the mass-metallicity relation)
    | Ma et al. 2016, MNRAS 456, 2140 (its evolution, 0.67 (exp(-0.5 z) - 1))
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MASS_RANGE", "dark_mass", "dark_mass_scatter", "mean_fe_h"]

F64 = NDArray[np.float64]
MASS_RANGE = (4.7, 9.78)  # log10 M_star / Msun of the embedded library
_KNEE = 9.65


def dark_mass(log_mstar: F64) -> F64:
    """Return the mean log10 M_dm [Msun] at log10 M_star [Msun], of any shape."""
    above = log_mstar - _KNEE
    return np.asarray(11.5 + np.where(above > 0, above / 0.6, above / 1.75))


def dark_mass_scatter(log_mstar: F64) -> F64:
    """Return the standard deviation of log10 M_dm [dex] at log10 M_star, of any shape."""
    return np.asarray(0.2 + 0.2 * np.clip((7.0 - log_mstar) / 2.5, 0.0, 1.0))


def mean_fe_h(log_mstar: F64, z: F64, delta: F64, coupling: float) -> F64:
    """Return the mass-weighted mean [Fe/H] [dex] of galaxies that stop forming stars at z."""
    evolution = 0.67 * (np.exp(-0.5 * z) - 1.0)
    return np.asarray(-1.69 + 0.30 * (log_mstar - 6.0) + evolution + coupling * delta)
