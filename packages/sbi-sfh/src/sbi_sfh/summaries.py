r"""Summaries of spectra for the support score: block means over a running continuum.

.. math:: s_b = \frac{\bar f_b}{\bar c_b}, \qquad
          \bar c_b = \langle \bar f_{b'} \rangle_{|b' - b| \le 7},

with :math:`\bar f_b` the mean flux of the used pixels of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbi_core import Batch

__all__ = ["block_summaries", "relative_errors"]

_CONTINUUM_BLOCKS = 15
_FAINTEST = 0.05  # of the median continuum: relative errors are not taken to fainter ones


def block_summaries(batch: Batch, pixels: int) -> Batch:
    """Return the mean flux of blocks of pixels over that of the 15 blocks around, (n, blocks).

    Errors are those of the mean over the same continuum, 0 for a block without a used pixel.

    Parameters
    ----------
    batch
        Spectra (n, L) with or without mask.
    pixels
        Pixels per block; what is left over at the red end is not used. A block without a used
        pixel gets 1, the value of the continuum.
    """
    seen = _in_blocks(batch.observed, pixels)
    count = seen.sum(-1)
    mean = torch.where(seen, _in_blocks(batch.x, pixels), 0.0).sum(-1) / count.clamp(min=1)
    continuum = _continuum(mean, count > 0)
    # the continuum, 1: distances and principal components need complete rows
    value = torch.where(count > 0, mean / continuum, 1.0)
    if batch.x_err is None:
        return Batch(x=value, theta=batch.theta)
    err = torch.where(seen, _in_blocks(batch.x_err, pixels), 0.0)
    error = err.square().sum(-1).sqrt() / count.clamp(min=1) / continuum
    return Batch(x=value, x_err=error, theta=batch.theta)


def relative_errors(batch: Batch, pixels: int) -> Tensor:
    """Return errors over the running continuum, (n, L); their median where nothing was observed.

    Parameters
    ----------
    batch
        Spectra (n, L) with errors.
    pixels
        Pixels per block of the continuum.
    """
    assert batch.x_err is not None
    seen = _in_blocks(batch.observed, pixels)
    count = seen.sum(-1)
    mean = torch.where(seen, _in_blocks(batch.x, pixels), 0.0).sum(-1) / count.clamp(min=1)
    continuum = _continuum(mean, count > 0)
    least = _FAINTEST * continuum.median(1, keepdim=True).values
    level = torch.maximum(continuum, least).repeat_interleave(pixels, dim=1)
    last = level[:, -1:].expand(-1, batch.x.shape[1] - level.shape[1])
    ratio = torch.where(batch.observed, batch.x_err / torch.cat([level, last], 1), torch.nan)
    typical = ratio.nanmedian(1, keepdim=True).values
    return torch.where(batch.observed, ratio, typical)


def _in_blocks(values: Tensor, pixels: int) -> Tensor:
    """Return whole blocks of pixels, (n, blocks, pixels)."""
    blocks = values.shape[1] // pixels
    return values[:, : blocks * pixels].reshape(len(values), blocks, pixels)


def _continuum(mean: Tensor, there: Tensor) -> Tensor:
    """Return the mean of the observed blocks around each, positive, (n, blocks)."""
    weight = there.to(mean.dtype)
    around = _running(mean * weight) / _running(weight).clamp(min=1e-6)
    return around.clamp(min=1e-6)


def _running(values: Tensor) -> Tensor:
    """Return sums over the blocks around each, (n, blocks)."""
    half = _CONTINUUM_BLOCKS // 2
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    n = values.shape[1]
    low = (torch.arange(n) - half).clamp(min=0)
    high = (torch.arange(n) + half + 1).clamp(max=n)
    return total[:, high] - total[:, low]
