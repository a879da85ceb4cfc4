r"""Age and redshift in a flat universe of matter and a cosmological constant.

.. math:: t(z) = \frac{2}{3 H_0 \sqrt{\Omega_\Lambda}}\,
          \mathrm{asinh}\!\left[\sqrt{\Omega_\Lambda / \Omega_m}\,(1 + z)^{-3/2}\right]

Used instead of :class:`astropy.cosmology.FlatLambdaCDM` because of the inverse: ``z_at_value``
takes 3.5 ms per value, and a library has 10^5 values. Ages agree with those of astropy to 3e-10 (a
test compares them).

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
_KM_S_MPC = 977.792222  # Gyr times km/s/Mpc


def _scale(h0: float, omega_m: float) -> float:
    return 2.0 / 3.0 * _KM_S_MPC / h0 / float(np.sqrt(1.0 - omega_m))


def age_gyr(z: ArrayLike, h0: float = H0, omega_m: float = OMEGA_M) -> F64:
    """Return the age of the universe [Gyr] at redshift z; same shape as ``z``."""
    ratio = np.sqrt(1.0 / omega_m - 1.0)
    return np.asarray(
        _scale(h0, omega_m) * np.arcsinh(ratio * (1.0 + np.asarray(z, float)) ** -1.5)
    )


def redshift(t: ArrayLike, h0: float = H0, omega_m: float = OMEGA_M) -> F64:
    """Return the redshift at age t [Gyr since the Big Bang]; same shape as ``t``."""
    grown = np.sinh(np.asarray(t, float) / _scale(h0, omega_m)) / np.sqrt(1.0 / omega_m - 1.0)
    return np.asarray(grown ** (-2.0 / 3.0) - 1.0)
