r"""Residuals of observed spectra with respect to recovered ones.

In mode ``observed`` the recovered spectrum is first brought to the galaxy's velocity dispersion,
velocity and flux calibration: for every node of :math:`\sigma`, least squares of

.. math:: x \approx F_\sigma \sum_{k=0}^{6} p_k L_k
          + v\,\frac{\partial F_\sigma}{\partial \ln\lambda}

and the node with the smallest :math:`\chi^2` is kept, found from every fourth node inwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import Batch
from sbi_sfh.broadening import NODE_STEP
from sbi_sfh.noise import Telescope

__all__ = ["Fit", "fit_spectrum", "observed_basis", "weighted"]

F64 = NDArray[np.float64]
_STRIDE = 4  # nodes


@dataclass(frozen=True, slots=True)
class Fit:
    """Fit of a recovered spectrum to an observed one.

    Parameters
    ----------
    model
        Recovered flux, (L,).
    rms
        Root mean square of observed / recovered - 1 over the used pixels.
    chi2
        Chi squared per used pixel; NaN without errors.
    sigma
        Velocity dispersion of the best node, km/s; 0 in mode ``mock``.
    """

    model: F64
    rms: float
    chi2: float
    sigma: float


def fit_spectrum(
    telescope: Telescope, coefficients: F64, observed: Batch, near: float | None = None
) -> Fit:
    """Return the fit of one recovered spectrum (K,) to one observed spectrum (a batch of one).

    Parameters
    ----------
    telescope
        Its mode and nuisances.
    coefficients
        Of the recovered spectrum.
    observed
        Flux, errors and mask.
    near
        Velocity dispersion [km/s] of a similar spectrum: the search starts there.
    """
    x, weight, used = weighted(observed)
    known = observed.x_err is not None
    c = torch.tensor(coefficients, dtype=torch.float32)
    if not telescope.observed_mode:
        flux = telescope.noise_free(c[None])[0].double().numpy()
        return _fit(x, used, weight, flux, 0.0, known_errors=known)
    grid = telescope.broadened
    low, high = telescope.config.sigma_range
    first, last = int(low // NODE_STEP), min(len(grid) - 1, int(np.ceil(high / NODE_STEP)))
    orders = np.concatenate([np.ones((1, len(x))), telescope.legendre.double().numpy()])
    data, weighted_orders, slope = x * weight, orders * weight, telescope.wave * weight
    made: dict[int, tuple[float, F64]] = {}

    def left(node: int) -> float:
        if node not in made:
            flux = (c @ grid[node]).double().numpy()
            design = np.empty((len(orders) + 1, len(x)))
            np.multiply(weighted_orders, flux, out=design[:-1])
            np.multiply(slope, np.gradient(flux), out=design[-1])
            factors = np.linalg.lstsq(design @ design.T, design @ data, rcond=None)[0]
            off: F64 = data - factors @ design
            made[node] = float(off @ off), np.asarray(factors, np.float64)
        return made[node][0]

    step = _STRIDE if near is None else 1
    best = min(range(first, last + 1, step), key=left) if near is None else (
        int(np.clip(round(near / NODE_STEP), first, last)))  # fmt: skip
    while step:
        around = [n for n in (best - step, best, best + step) if first <= n <= last]
        better = min(around, key=left)
        step = step if better != best else step // 2
        best = better
    flux, factors = (c @ grid[best]).double().numpy(), made[best][1]
    model = flux * (factors[:-1] @ orders) + factors[-1] * np.gradient(flux) * telescope.wave
    return _fit(x, used, weight, model, NODE_STEP * best, known_errors=known)


def observed_basis(
    telescope: Telescope, coefficients: F64, observed: Batch, near: float | None = None
) -> tuple[Fit, F64, F64]:
    """Return the fit of a recovered spectrum, the basis as it was observed, and what is free.

    The basis (K, L) has the dispersion and calibration of the fit; the last, (m, L), are the
    changes of the fit with calibration and velocity. Mode ``observed``; see :func:`fit_spectrum`.
    """
    fit = fit_spectrum(telescope, coefficients, observed, near)
    basis = telescope.broadened[round(fit.sigma / NODE_STEP)].double().numpy()
    shape = fit.model / (coefficients @ basis)
    legendre = telescope.legendre.double().numpy()
    free = np.concatenate([fit.model * legendre, [np.gradient(fit.model) * telescope.wave]])
    return fit, basis * shape, free


def weighted(observed: Batch) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Return flux, one over the errors (0 where nothing is observed) and used pixels, (L,) each."""
    used = observed.observed[0].numpy()
    x = np.where(used, observed.x[0].double().numpy(), 0.0)
    err = 1.0 if observed.x_err is None else observed.x_err[0].double().numpy()
    return x, np.where(used, 1.0 / np.where(used, err, 1.0), 0.0), used


def _fit(
    x: F64, used: NDArray[np.bool_], weight: F64, model: F64, sigma: float, *, known_errors: bool
) -> Fit:
    off = x[used] / model[used] - 1.0
    chi2 = float((((x - model) * weight)[used] ** 2).mean()) if known_errors else np.nan
    return Fit(model, float(np.sqrt((off**2).mean())), chi2, sigma)
