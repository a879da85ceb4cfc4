"""Summaries of spectra for the support score: block means over a running continuum."""

from __future__ import annotations

import torch
from torch import Tensor

from sbi_core import Batch

__all__ = ["block_summaries"]

_CONTINUUM_BLOCKS = 15


def block_summaries(batch: Batch, pixels: int) -> Batch:
    """Return the mean flux of blocks of pixels over that of the 15 blocks around, (n, blocks).

    Parameters
    ----------
    batch
        Spectra (n, L) with or without mask.
    pixels
        Pixels per block; what is left over at the red end is not used. A block without a used
        pixel gets 1, the value of the continuum.
    """
    blocks = batch.x.shape[1] // pixels
    kept = slice(0, blocks * pixels)
    seen = batch.observed[:, kept].reshape(len(batch), blocks, pixels)
    flux = torch.where(seen, batch.x[:, kept].reshape(seen.shape), 0.0)
    count = seen.sum(-1)
    mean = flux.sum(-1) / count.clamp(min=1)
    there = count > 0
    weight = there.to(mean.dtype)
    around = _running(mean * weight) / _running(weight).clamp(min=1e-6)
    # the continuum, 1: distances and principal components need complete rows
    value = torch.where(there, mean / around.clamp(min=1e-6), 1.0)
    return Batch(x=value, theta=batch.theta)


def _running(values: Tensor) -> Tensor:
    """Return sums over the blocks around each, (n, blocks)."""
    half = _CONTINUUM_BLOCKS // 2
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    n = values.shape[1]
    low = (torch.arange(n) - half).clamp(min=0)
    high = (torch.arange(n) + half + 1).clamp(max=n)
    return total[:, high] - total[:, low]
