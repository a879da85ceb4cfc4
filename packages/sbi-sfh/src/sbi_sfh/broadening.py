r"""Line-of-sight velocity dispersion, on spectra that are linear combinations of few vectors.

On a grid of ln(lambda), broadening by :math:`\sigma` is a product in Fourier space,

.. math:: \tilde F(k) \to \tilde F(k)\,\exp(-\tfrac12 (\sigma/c)^2 k^2), \qquad
          \sigma_\mathrm{out}^2 = \sigma_\mathrm{in}^2 + \sigma^2 ,

applied once to the basis at every node of sigma; spectra between two nodes are interpolated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from sbi_sfh.constants import C_KMS

__all__ = ["NODE_STEP", "broaden", "edge_pixels", "nodes"]

F64 = NDArray[np.float64]
NODE_STEP = 12.5  # km/s
_PIXEL = 10.0  # km/s, step of the logarithmic grid


def nodes(highest: float) -> F64:
    """Return the nodes of velocity dispersion, km/s, from 0 to at least ``highest``."""
    return np.asarray(NODE_STEP * np.arange(int(np.ceil(highest / NODE_STEP)) + 1))


def broaden(wave: F64, flux: F64, sigma: F64) -> F64:
    """Return spectra (K, L) at every velocity dispersion [km/s] (S,), as (S, K, L).

    The spectra are mirrored at their ends; pixels within 4 sigma of the ends are unreliable.
    """
    log_wave = np.log(wave)
    count = int(np.ceil((log_wave[-1] - log_wave[0]) / (_PIXEL / C_KMS)))
    grid = np.linspace(log_wave[0], log_wave[-1], count)
    fine = CubicSpline(wave, flux, axis=1)(np.clip(np.exp(grid), wave[0], wave[-1]))
    pad = count // 4
    padded = np.pad(fine, ((0, 0), (pad, pad)), mode="reflect")
    spectrum = np.fft.rfft(padded, axis=1)
    k = 2 * np.pi * np.fft.rfftfreq(padded.shape[1], d=grid[1] - grid[0])
    out = np.empty((len(sigma), *flux.shape))
    for j, s in enumerate(sigma):
        if s == 0:
            out[j] = flux
            continue
        smooth = np.fft.irfft(
            spectrum * np.exp(-0.5 * (s / C_KMS * k) ** 2), n=padded.shape[1], axis=1
        )
        out[j] = CubicSpline(grid, smooth[:, pad : pad + count], axis=1)(log_wave)
    return out


def edge_pixels(wave: F64, sigma: float) -> NDArray[np.bool_]:
    """Return which pixels lie within 4 sigma [km/s] of the ends of the wavelengths, (L,)."""
    reach = 4.0 * sigma / C_KMS
    return np.asarray((wave < wave[0] * (1 + reach)) | (wave > wave[-1] * (1 - reach)))
