r"""Stellar lifetimes and turn-off masses.

Fit to the tracks of Portinari et al. (1998) with :math:`m = \log_{10} M/M_\odot`,
:math:`z = \log_{10} Z` (z = -5 where Z <= 0, no other floor):

.. math::

    \log_{10}(\tau/\mathrm{yr}) = 10.0153615 - 3.91089893\,m + 0.99947209\,m^2
    - 0.03601771\,z - 0.31139679\,mz + 0.09109059\,m^2z - 0.03218365\,z^2 - 0.01323112\,z^2m .

The turn-off mass at an age is the linear interpolation of x(tau(x_j)) on the mass grid of the
IMF. At fixed z the fit is a quadratic in m, so the bracketing pair of grid points follows in
closed form; no search over the 5000 lifetimes is needed.

References:
    | Portinari, Chiosi & Bressan 1998, A&A 334, 505
    | Philcox, Rybizki & Gutcke 2018, ApJ 861, 40 (the fit)
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbi_chempy.imf import GRID_STEP_MSUN, M_MAX_MSUN, M_MIN_MSUN, N_GRID

__all__ = [
    "interpolated_lifetime",
    "lifetime",
    "log10_metallicity",
    "turnoff_grid_position",
    "turnoff_mass",
]

# log10(tau/Gyr) = c + b m + a m^2, each a polynomial in z = log10 Z (constant, z, z^2).
# The 9 dex between yr and Gyr are taken out here, which saves digits in float32.
_C = (10.0153615 - 9.0, -0.03601771, -0.03218365)
_B = (-3.91089893, -0.31139679, -0.01323112)
_A = (0.99947209, 0.09109059, 0.0)
_LOG_Z_OF_ZERO = -5.0
_LN10 = 2.302585092994046


def log10_metallicity(metallicity: Tensor) -> Tensor:
    """log10 Z as the lifetimes use it: -5 where Z <= 0, without any other floor."""
    positive = metallicity > 0
    safe = torch.where(positive, metallicity, torch.ones_like(metallicity))
    return torch.where(positive, torch.log10(safe), torch.full_like(safe, _LOG_Z_OF_ZERO))


def _coefficients(log_z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quadratic in m = log10 M of log10(tau/Gyr) at fixed z."""
    z2 = log_z * log_z
    return (
        _A[0] + _A[1] * log_z,
        _B[0] + _B[1] * log_z + _B[2] * z2,
        _C[0] + _C[1] * log_z + _C[2] * z2,
    )


def lifetime(mass: Tensor, metallicity: Tensor) -> Tensor:
    """Lifetime of a star in Gyr.

    Parameters
    ----------
    mass : (...) Msun
    metallicity : (...) metal mass fraction, broadcast against ``mass``

    Returns
    -------
    (...) Gyr

    Notes
    -----
    Source: fit to Portinari et al. 1998, see the module docstring.
    """
    return _lifetime(mass, log10_metallicity(metallicity))


def _lifetime(mass: Tensor, log_z: Tensor) -> Tensor:
    a, b, c = _coefficients(log_z)
    m = torch.log10(mass)
    return torch.exp(_LN10 * (c + m * (b + m * a)))


def interpolated_lifetime(mass: float, log_z: Tensor) -> Tensor:
    """Age at which the *interpolated* turn-off mass equals a given mass.

    Differs from :func:`lifetime` by the curvature within one cell of the mass grid.

    Parameters
    ----------
    mass : Msun
    log_z : (...) log10 of the metal mass fraction

    Returns
    -------
    (...) Gyr
    """
    j = int((mass - M_MIN_MSUN) / GRID_STEP_MSUN)
    left, right = (M_MIN_MSUN + GRID_STEP_MSUN * i for i in (j, j + 1))
    tau_left, tau_right = (_lifetime(torch.full_like(log_z, x), log_z) for x in (left, right))
    return tau_left - (mass - left) / GRID_STEP_MSUN * (tau_left - tau_right)


def analytic_turnoff_mass(log_age: Tensor, log_z: Tensor) -> Tensor:
    """Mass whose fitted lifetime equals an age, clipped to [0.1, 100] Msun.

    Parameters
    ----------
    log_age : (...) log10 of the age in Gyr
    log_z : (...) log10 of the metal mass fraction

    Returns
    -------
    (...) Msun

    Notes
    -----
    Root of a m^2 + b m + (c - log age) on the falling branch, written with the square root in
    the denominator: stable for every sign of a, because b < 0 at all metallicities.
    """
    a, b, c = _coefficients(log_z)
    gap = c - log_age
    # Younger than the shortest lifetime: no root, the turn-off mass is the upper end.
    root = torch.sqrt((b * b - 4 * a * gap).clamp_min(1e-12))
    return torch.exp(_LN10 * 2 * gap / (root - b)).clamp(M_MIN_MSUN, M_MAX_MSUN)


def turnoff_grid_position(log_age: Tensor, log_z: Tensor) -> Tensor:
    """Number of grid points below the turn-off mass.

    Parameters
    ----------
    log_age : (...) log10 of the age in Gyr
    log_z : (...) log10 of the metal mass fraction

    Returns
    -------
    (...) int64
        Index into :func:`sbi_chempy.imf.cumulative_mass`, 0..4999. Carries no gradient.
    """
    with torch.no_grad():
        position = (analytic_turnoff_mass(log_age, log_z) - M_MIN_MSUN) / GRID_STEP_MSUN
        return position.ceil().clamp(0, N_GRID - 1).to(torch.int64)


def turnoff_fraction(age: Tensor, log_z: Tensor, index: Tensor) -> Tensor:
    """Position of the turn-off mass within its grid cell, 0 at the lower point, 1 at the upper.

    Parameters
    ----------
    age : (...) Gyr
    log_z : (...) log10 of the metal mass fraction
    index : (...) int64
        From :func:`turnoff_grid_position`; the cell is [x_(index-1), x_index].

    Returns
    -------
    (...)
        Linear in age between the two grid lifetimes, clipped to [0, 1]: differentiable.
    """
    right = M_MIN_MSUN + GRID_STEP_MSUN * index.clamp_min(1).to(age.dtype)
    tau_left = _lifetime(right - GRID_STEP_MSUN, log_z)
    tau_right = _lifetime(right, log_z)
    return ((tau_left - age) / (tau_left - tau_right)).clamp(0.0, 1.0)


def turnoff_mass(age: Tensor, metallicity: Tensor) -> Tensor:
    """Initial mass of the stars that die at an age.

    Parameters
    ----------
    age : (...) Gyr, >= 0
    metallicity : (...) metal mass fraction, broadcast against ``age``

    Returns
    -------
    (...) Msun
        100 for ages below the shortest lifetime, never below 0.1.

    Notes
    -----
    Linear interpolation of x(tau(x_j)) on the grid of 5000 masses, as in Chempy.
    """
    age, metallicity = torch.broadcast_tensors(age, metallicity)
    log_z = log10_metallicity(metallicity)
    log_age = torch.log10(age.clamp_min(1e-30))
    index = turnoff_grid_position(log_age, log_z)
    fraction = turnoff_fraction(age, log_z, index)
    left = M_MIN_MSUN + GRID_STEP_MSUN * (index.clamp_min(1) - 1).to(age.dtype)
    return left + GRID_STEP_MSUN * fraction
