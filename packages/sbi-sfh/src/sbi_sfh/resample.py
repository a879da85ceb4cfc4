r"""From observed to rest-frame pixels: vacuum to air, redshift, bins that conserve flux.

.. math:: \lambda_\mathrm{air} = \lambda_\mathrm{vac} / n, \quad
          n = 1 + \frac{5.792105\times10^{-2}}{238.0185 - s^2}
                + \frac{1.67917\times10^{-3}}{57.362 - s^2}, \quad s = 10^4/\lambda_\mathrm{vac}

Rebinning integrates: the flux of a new pixel is the mean of the old ones weighted by their overlap
o, and its variance that of noise which is white over the width d of the old pixels,

.. math:: F_j = \frac{\sum_i o_{ji} F_i}{\sum_i o_{ji}}, \qquad
          \sigma_j^2 = \frac{\sum_i o_{ji}\,d_i\,\sigma_i^2}{(\sum_i o_{ji})^2} .

This keeps the signal to noise per Angstrom. New pixels that share an old one are correlated and
scatter less than their errors; the covariance is not propagated.

References:
    | Ciddor 1996, Appl. Opt. 35, 1566
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["air_to_vacuum", "cardelli", "edges_of", "rebin", "vacuum_to_air"]

F64 = NDArray[np.float64]


def _refraction(vacuum: F64) -> F64:
    s2 = (1e4 / vacuum) ** 2
    return np.asarray(1.0 + 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2))


def vacuum_to_air(vacuum: ArrayLike) -> F64:
    """Return air wavelengths of vacuum wavelengths, Angstrom."""
    v = np.asarray(vacuum, np.float64)
    return np.asarray(v / _refraction(v))


def air_to_vacuum(air: ArrayLike) -> F64:
    """Return vacuum wavelengths of air wavelengths, Angstrom (inverse to 1e-9 Angstrom)."""
    a = np.asarray(air, np.float64)
    v = a.copy()
    for _ in range(4):
        v = a * _refraction(v)
    return v


def edges_of(wave: F64) -> F64:
    """Return the edges (L + 1,) of pixels with centres (L,): half-way, mirrored at the ends."""
    middle = 0.5 * (wave[1:] + wave[:-1])
    return np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])


def rebin(
    wave: F64,
    flux: F64,
    target: F64,
    *,
    variance: F64 | None = None,
    good: NDArray[np.bool_] | None = None,
) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Return flux, variance and use of the pixels ``target``, each (M,).

    Parameters
    ----------
    wave : (L,) Angstrom
        Centres of the old pixels, increasing.
    flux : (L,)
        Flux density.
    target : (M,) Angstrom
        Centres of the new pixels, increasing.
    variance : (L,), optional
        Of the flux; 0 when left out.
    good : (L,), optional
        False for masked pixels.

    Notes
    -----
    A new pixel is used when good old pixels cover at least half of it; the flux is their mean
    weighted by overlap. Source: integral of a step function.
    """
    old, new = edges_of(wave), edges_of(target)
    use = np.ones(len(wave), bool) if good is None else good
    var = np.zeros(len(wave)) if variance is None else variance
    width = np.diff(old)
    last = np.searchsorted(old, new[1:], side="left") - 1
    first = np.searchsorted(old, new[:-1], side="right") - 1
    span = int((last - first).max()) + 1
    total, error, cover = (np.zeros(len(target)) for _ in range(3))
    for k in range(span):  # the few old pixels that a new one touches
        i = first + k
        there = (i <= last) & (i >= 0) & (i < len(wave))
        j = np.clip(i, 0, len(wave) - 1)
        overlap = np.minimum(new[1:], old[j + 1]) - np.maximum(new[:-1], old[j])
        overlap = np.where(there & use[j], np.clip(overlap, 0.0, width[j]), 0.0)
        total += np.where(overlap > 0, overlap * flux[j], 0.0)
        error += np.where(overlap > 0, overlap * width[j] * var[j], 0.0)
        cover += overlap
    usable = cover >= 0.5 * np.diff(new)
    safe = np.where(cover > 0, cover, 1.0)
    return total / safe, error / safe**2, usable


def cardelli(wave: F64, ebv: float, r_v: float = 3.1) -> F64:
    """Return the factor that removes Galactic reddening at observed wavelengths [Angstrom].

    Notes
    -----
    Source: Cardelli, Clayton & Mathis 1989, ApJ 345, 245, eq. 3 (optical and near infrared).
    """
    y = 1e4 / wave - 1.82
    a = np.polynomial.polynomial.polyval(
        y, [1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999]
    )
    b = np.polynomial.polynomial.polyval(
        y, [0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002]
    )
    return np.asarray(10.0 ** (0.4 * (a + b / r_v) * r_v * ebv))
