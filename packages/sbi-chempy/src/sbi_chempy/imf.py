r"""Chabrier initial mass function with a free high-mass slope, on the grid of the model.

.. math::

    \phi(x) = \frac{A}{x} \exp\left(-\frac{\log_{10}^2(x/m_c)}{2\sigma^2}\right)
    \;(x < 1), \qquad \phi(x) = B\,x^{\alpha} \;(x \ge 1),

with x in Msun. The IMF enters the model only through mass weights on 5000 points between 0.1
and 100 Msun, :math:`dm_j = x_j\phi_j / \sum_i x_i\phi_i`, and every mass integral is the plain
sum of the weights with lo <= x_j < hi,

.. math:: \int_{lo}^{hi} = C(hi) - C(lo), \qquad C(m) = \sum_{x_j < m} dm_j .

References:
    | Chabrier 2003, PASP 115, 763
    | Pillepich et al. 2018, MNRAS 473, 4077 (values used in IllustrisTNG)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "GRID_STEP_MSUN",
    "M_MAX_MSUN",
    "M_MIN_MSUN",
    "N_GRID",
    "chabrier",
    "cumulative_mass",
    "grid_index",
    "mass_grid",
    "mass_weights",
]

M_MIN_MSUN = 0.1  # Msun, lower end of the IMF
M_MAX_MSUN = 100.0  # Msun, upper end of the IMF
N_GRID = 5000  # points of the mass grid: part of the model
GRID_STEP_MSUN = (M_MAX_MSUN - M_MIN_MSUN) / (N_GRID - 1)  # Msun between grid points

_A = 0.852464  # normalisation below 1 Msun (cancels in the weights, but not in A/B)
_B = 0.237912  # normalisation above 1 Msun, continuous with A at 1 Msun
_SIGMA = 0.69  # dex, width of the log-normal part
_M_C = 0.079  # Msun, centre of the log-normal part


def mass_grid() -> NDArray[np.float64]:
    """Mass grid of the model, (5000,) Msun."""
    return np.linspace(M_MIN_MSUN, M_MAX_MSUN, N_GRID)


def grid_index(mass: ArrayLike) -> NDArray[np.int64]:
    """Number of grid points below a mass, so that ``C(mass) = cumulative[index]``.

    Parameters
    ----------
    mass : (...) Msun

    Returns
    -------
    (...) int64
        Between 0 and 4999 for masses up to 100 Msun: the last grid point never counts.
    """
    return np.searchsorted(mass_grid(), np.asarray(mass, dtype=np.float64), side="left").astype(
        np.int64
    )


def chabrier(mass: Tensor, alpha: Tensor) -> Tensor:
    """IMF in numbers of stars per unit mass, up to a constant.

    Parameters
    ----------
    mass : (M,) Msun
    alpha : (B,)
        High-mass slope, about -2.3 (dimensionless, negative).

    Returns
    -------
    (B, M)
        Unnormalised dN/dm.

    Notes
    -----
    Source: Chabrier 2003, with the constants of IllustrisTNG.
    """
    low = _A / mass * torch.exp(-(torch.log10(mass / _M_C) ** 2) / (2 * _SIGMA**2))
    high = _B * torch.exp(alpha[:, None] * torch.log(mass))
    return torch.where(mass < 1.0, low, high)


def mass_weights(alpha: Tensor) -> Tensor:
    """Fraction of the stellar mass that each grid point stands for.

    Parameters
    ----------
    alpha : (B,)
        High-mass IMF slope.

    Returns
    -------
    (B, 5000)
        dm_j; every row sums to 1.
    """
    x = torch.as_tensor(mass_grid(), dtype=alpha.dtype, device=alpha.device)
    mass = x * chabrier(x, alpha)
    return mass / mass.sum(dim=1, keepdim=True)


def cumulative_mass(alpha: Tensor) -> Tensor:
    """Mass fraction of a stellar population below each grid point.

    Parameters
    ----------
    alpha : (B,)
        High-mass IMF slope.

    Returns
    -------
    (B, 5001)
        C at index j is the sum of the first j weights; C[0] = 0, C[5000] = 1.
    """
    return torch.nn.functional.pad(mass_weights(alpha).cumsum(dim=1), (1, 0))
