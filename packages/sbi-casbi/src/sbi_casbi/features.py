"""Features of a plane for the support percentile (not used for inference)."""

from __future__ import annotations

import torch
from torch import Tensor

from sbi_casbi.plane import N_PIXELS, PIXELS

__all__ = ["summary_features"]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_STRIPS = 4


def summary_features(x: Tensor) -> Tensor:
    """Return features (n, 22) of rows of x (n, 4100).

    log10 of the number of stars and of the share outside the plane; quantiles of both axes and,
    in four strips of equal numbers of stars in [Fe/H], mean and width in [O/Fe]; the errors.
    """
    n = len(x)
    plane = x[:, :N_PIXELS].reshape(n, PIXELS, PIXELS).double().clamp(min=0)
    outside = x[:, N_PIXELS].double()
    total = plane.sum((1, 2)).clamp(min=1e-9)
    share = ((outside + 0.5) / (total + outside + 1.0)).log10()
    parts = [(total + outside).clamp(min=1e-9).log10(), share]
    for axis in (2, 1):
        cumulative = plane.sum(axis).cumsum(1) / total[:, None]
        parts += [_quantile(cumulative, q) for q in _LEVELS]
    row = plane.sum(2).cumsum(1) / total[:, None]
    middle = row - 0.5 * plane.sum(2) / total[:, None]
    y = torch.arange(PIXELS, dtype=torch.float64, device=x.device)
    for k in range(_STRIPS):
        inside = ((middle >= k / _STRIPS) & (middle < (k + 1) / _STRIPS)).double()
        strip = (plane * inside[:, :, None]).sum(1)
        weight = strip.sum(1)
        # defaults of a strip without stars: the centre of the plane, a quarter of its width
        mean = (strip @ y + 1e-3 * PIXELS / 2) / (weight + 1e-3)
        square = (strip @ y.square() + 1e-3 * (PIXELS**2 / 3)) / (weight + 1e-3)
        parts += [mean, (square - mean.square()).clamp(min=1e-6).sqrt()]
    errors = x[:, -2:].double()
    return torch.cat([torch.stack(parts, 1), errors], 1).float()


def _quantile(cumulative: Tensor, q: float) -> Tensor:
    """Return the position of quantile q in pixels, interpolated linearly inside a pixel."""
    k = (cumulative < q).sum(1).clamp(max=PIXELS - 1)
    upper = cumulative.gather(1, k[:, None])[:, 0]
    lower = torch.where(k > 0, cumulative.gather(1, (k - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    return k + ((q - lower) / (upper - lower).clamp(min=1e-9)).clamp(0, 1)
