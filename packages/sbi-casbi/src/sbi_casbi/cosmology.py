r"""Age and redshift in a flat universe of matter and a cosmological constant.

.. math:: t(z) = \frac{2}{3 H_0 \sqrt{\Omega_\Lambda}}\,
          \mathrm{asinh}\!\left[\sqrt{\Omega_\Lambda / \Omega_m}\,(1 + z)^{-3/2}\right]

References:
    | Peebles 1993, Principles of Physical Cosmology, eq. 13.20
    | Planck Collaboration 2014, A&A 571, A16 (the parameters of the NIHAO simulations)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["H0", "OMEGA_M", "age_gyr", "redshift"]

F64 = NDArray[np.float64]
H0 = 67.1  # km/s/Mpc
OMEGA_M = 0.3175
_HUBBLE_TIME = 977.8 / H0  # Gyr
_OMEGA_L = 1.0 - OMEGA_M
_RATIO = np.sqrt(_OMEGA_L / OMEGA_M)
_SCALE = 2.0 / 3.0 * _HUBBLE_TIME / np.sqrt(_OMEGA_L)


def age_gyr(z: ArrayLike) -> F64:
    """Return the age of the universe [Gyr] at redshift z, like ``z``."""
    return np.asarray(_SCALE * np.arcsinh(_RATIO * (1.0 + np.asarray(z, float)) ** -1.5))


def redshift(t: ArrayLike) -> F64:
    """Return the redshift at age t [Gyr since the Big Bang], like ``t``."""
    return np.asarray((np.sinh(np.asarray(t, float) / _SCALE) / _RATIO) ** (-2.0 / 3.0) - 1.0)
