r"""Delayed exponential histories ("linear-exponential").

.. math:: \mathrm{SFR} \propto u\,e^{-u}, \quad u = \frac{t - t_0}{\tau} > 0, \qquad
          M(<t) = \frac{F(u)}{F(U)}, \quad F(u) = 1 - (1 + u)\,e^{-u},
          \quad U = \frac{T - t_0}{\tau}

The time at which a fraction q had formed follows in closed form from the lower branch of the
Lambert function,

.. math:: t_q = t_0 + \tau u_q, \qquad u_q = -1 - W_{-1}\!\left(-\frac{1 - q F(U)}{e}\right).

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (family and ranges)
    | Corless et al. 1996, Adv. Comput. Math. 5, 329 (Lambert W)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import lambertw

from sbi_core import ConfigError

__all__ = ["LOG_TAU", "T0_GYR", "cumulative_mass", "percentile_times", "readme_grid"]

F64 = NDArray[np.float64]
T0_GYR = (0.0, 5.0)
LOG_TAU = (-0.5, 0.7)  # log10 of Gyr


def _formed(u: F64) -> F64:
    """F(u); the series below 1e-2 avoids the cancellation of 1 - (1 + u) exp(-u)."""
    small = u < 1e-2
    series = u**2 / 2 - u**3 / 3 + u**4 / 8 - u**5 / 30
    with np.errstate(over="ignore"):
        return np.asarray(np.where(small, series, 1.0 - (1.0 + u) * np.exp(-u)))


def _checked(t0: ArrayLike, tau: ArrayLike, end: float) -> tuple[F64, F64]:
    start, scale = np.atleast_1d(np.asarray(t0, float)), np.atleast_1d(np.asarray(tau, float))
    bad = ~((start >= 0) & (start < end) & (scale > 0) & np.isfinite(scale))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        msg = (
            f"history {k}: t0 = {start[k]:g} Gyr, tau = {scale[k]:g} Gyr; expected "
            f"0 <= t0 < T = {end:g} and tau > 0"
        )
        raise ConfigError(msg)
    return start, scale


def cumulative_mass(t0: ArrayLike, tau: ArrayLike, time: ArrayLike) -> F64:
    """Return the mass formed before each time, as a fraction of the last.

    Parameters
    ----------
    t0, tau : (n,) Gyr
        Start and time scale.
    time : (m,) Gyr
        Increasing; the last one is T.

    Returns
    -------
    (n, m)

    Raises
    ------
    ConfigError
        If a history starts at or after T, or a time scale is not positive.
    """
    t = np.asarray(time, float)
    start, scale = _checked(t0, tau, float(t[-1]))
    u = np.maximum(t - start[:, None], 0.0) / scale[:, None]
    formed = _formed(u)
    return np.asarray(formed / formed[:, -1:])


def percentile_times(t0: ArrayLike, tau: ArrayLike, fractions: Sequence[float], end: float) -> F64:
    """Return the exact times (n, k) Gyr by which the fractions (k,) had formed.

    Raises
    ------
    ConfigError
        If a history starts at or after ``end`` [Gyr], or a time scale is not positive.
    """
    start, scale = _checked(t0, tau, end)
    span = (end - start) / scale
    y = np.asarray(fractions, float) * _formed(span)[:, None]
    u = np.asarray(-1.0 - lambertw(-(1.0 - y) / math.e, -1).real)
    # next to its branch point W loses half of the digits: one Newton step on F restores them
    slope = u * np.exp(-u)
    u = np.where(slope > 0, u - (_formed(u) - y) / np.where(slope > 0, slope, 1.0), u)
    return np.asarray(start[:, None] + scale[:, None] * u)


def readme_grid() -> tuple[F64, F64]:
    """Return t0 and tau (10000,) Gyr: 100 starts from 0 in steps of 0.05, 100 scales."""
    t0 = 0.05 * np.arange(100)
    tau = np.logspace(*LOG_TAU, 100)
    both = np.meshgrid(t0, tau, indexing="ij")
    return both[0].ravel(), both[1].ravel()
