r"""Convolution with Gaussian errors, from the fine grid to pixels.

Stars spread evenly over a fine bin of width h and scattered by :math:`\sigma` reach the pixel
[a, b] with probability

.. math:: A = \tfrac1h\left[S(b - l) - S(b - l - h) - S(a - l) + S(a - l - h)\right], \qquad
          S(x) = x\,\Phi(x/\sigma) + \sigma\,\phi(x/\sigma),

l the lower end of the bin; S(x) = max(x, 0) for :math:`\sigma = 0`, which gives the sum of the fine
bins of a pixel. Convolution and superposition commute, so that members are summed first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from sbi_casbi.plane import FINE_PER_PIXEL, GUARD, PIXELS

__all__ = ["coarse", "kernel", "smooth"]

F64 = NDArray[np.float64]
FINE = FINE_PER_PIXEL * (PIXELS + 2 * GUARD)
# pixel i has its lower edge at fine bin 2 (i + 8), so A depends on 2 (i + 8) - j alone
_OFFSET = FINE_PER_PIXEL * (np.arange(PIXELS) + GUARD)[:, None] - np.arange(FINE)[None, :]
_FIRST = int(_OFFSET.min())
_LATTICE = np.arange(_FIRST - 1, int(_OFFSET.max()) + FINE_PER_PIXEL + 1)


def _ramp(x: F64, sigma: F64) -> F64:
    """Return S(x), the integral of the normal distribution function."""
    safe = np.maximum(sigma, 1e-6)
    t = x / safe
    value = x * ndtr(t) + safe * np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi)
    return np.asarray(np.where(sigma > 1e-6, value, np.maximum(x, 0.0)))


def kernel(sigma: ArrayLike, shift: ArrayLike, width: float) -> NDArray[np.float32]:
    """Return A (n, 64, 160) for n errors.

    Parameters
    ----------
    sigma
        Standard deviations [dex], (n,).
    shift
        Offsets of the zero point [dex], (n,), added to the abundances.
    width
        Width of a pixel [dex].
    """
    h = width / FINE_PER_PIXEL
    s = np.asarray(sigma, float).reshape(-1, 1)
    moved = _LATTICE * h - np.asarray(shift, float).reshape(-1, 1)
    ramp = _ramp(moved, s)
    # S at distance k h from the lower end of the bin, minus S one bin further
    step = (ramp[:, 1:] - ramp[:, :-1]) / h
    share = (step[:, FINE_PER_PIXEL:] - step[:, :-FINE_PER_PIXEL]).astype(np.float32)
    # A[i, j] = share[2 (i + 8) - j - first]: a view that steps up with i and down with j
    start = share[:, int(_OFFSET[0, 0]) - _FIRST :]
    n, last = share.strides
    shape = (len(share), PIXELS, FINE)
    return np.ascontiguousarray(as_strided(start, shape, (n, FINE_PER_PIXEL * last, -last)))


def smooth(fine: NDArray[np.float32], a_fe: NDArray[np.float32], a_o: NDArray[np.float32]) -> F64:
    """Return counts per pixel (n, 64, 64) of fine grids H: A_Fe H A_O^T.

    Parameters
    ----------
    fine
        Stars per fine bin, (n, 160, 160), or the part (n, r, c) that contains all of them.
    a_fe, a_o
        Kernels (n, 64, r) and (n, 64, c).
    """
    # copies: products of arrays that start anywhere in memory may round differently
    left = torch.bmm(torch.tensor(a_fe), torch.tensor(fine))
    return np.asarray(torch.bmm(left, torch.tensor(a_o).transpose(1, 2)).numpy())


def coarse(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of fine bins per pixel, (n, 64, 64), without the guard pixels."""
    inner = fine[:, FINE_PER_PIXEL * GUARD : -FINE_PER_PIXEL * GUARD]
    inner = inner[:, :, FINE_PER_PIXEL * GUARD : -FINE_PER_PIXEL * GUARD]
    shaped = inner.reshape(-1, PIXELS, FINE_PER_PIXEL, PIXELS, FINE_PER_PIXEL)
    return np.asarray(shaped.sum((2, 4)), np.float32)
