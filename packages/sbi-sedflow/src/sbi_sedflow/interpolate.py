"""Piecewise-linear interpolation by fractional index."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["place"]


def place(axis: Tensor, x: Tensor) -> Tensor:
    """Return the fractional index of x on an increasing axis, clamped to [0, len - 1]."""
    k = torch.searchsorted(axis, x.contiguous(), right=True).sub_(1).clamp_(0, len(axis) - 2)
    w = (x - axis[k]) / (axis[k + 1] - axis[k])
    return k + w.clamp_(0.0, 1.0)
