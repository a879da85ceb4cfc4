r"""Distances and ages of the Planck 2013 cosmology of astropy, tabulated once and interpolated.

:math:`d_L(z)/z` and :math:`t_\mathrm{age}(z)` are smooth: linear interpolation between 4001 nodes
on [0, 0.25], and 16001 on [0, 1.25] beyond, is good to 1e-9 and a thousand times as fast: astropy
needs 2.5 s for the ages of
20,000 galaxies.

References:
    | Planck Collaboration 2014, A&A 571, A16 (as in astropy)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from astropy import units
from astropy.cosmology import Planck13
from numpy.typing import ArrayLike, NDArray

from sbi_sedflow.constants import MPC_CM

__all__ = ["age_gyr", "distance_modulus", "luminosity_distance_cm"]

F64 = NDArray[np.float64]
_NEAR, _FAR = (0.25, 4001), (1.25, 16001)  # highest redshift, nodes


@lru_cache(maxsize=2)
def _tables(top: float, n: int) -> tuple[F64, F64, F64]:
    z = np.linspace(0.0, top, n)
    z[0] = 1e-9  # d_L / z at 0 is the limit
    distance = Planck13.luminosity_distance(z).to_value(units.Mpc) / z
    age = Planck13.age(z).to_value(units.Gyr)
    z[0] = 0.0
    for table in (z, distance, age):
        table.setflags(write=False)
    return z, distance, age


def luminosity_distance_cm(z: ArrayLike) -> F64:
    """Return the luminosity distance [cm] at redshift z."""
    values = np.asarray(z, np.float64)
    return np.asarray(_interpolated(values, 1) * values * MPC_CM)


def distance_modulus(z: ArrayLike) -> F64:
    """Return m - M [mag] at redshift z."""
    return np.asarray(5 * np.log10(luminosity_distance_cm(z) / (10e-6 * MPC_CM)))


def age_gyr(z: ArrayLike) -> F64:
    """Return the age of the universe [Gyr] at redshift z."""
    return _interpolated(np.asarray(z, np.float64), 2)


def _interpolated(z: F64, which: int) -> F64:
    near = _tables(*_NEAR)
    values = np.interp(z, near[0], near[which])
    if np.any(z > _NEAR[0]):
        far = _tables(*_FAR)
        values = np.where(z > _NEAR[0], np.interp(z, far[0], far[which]), values)
    return np.asarray(values)
