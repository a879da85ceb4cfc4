r"""A normal distribution of a sum, given a draw of it, cut at both ends.

With :math:`t^*` the drawn log10 mass, :math:`\hat t \pm s` its estimate and w the scatter of draws
about :math:`\hat t`, the new one is

.. math:: t \sim \mathcal N\left(\hat t + \beta\,(t^* - \hat t),\; s^2 - \beta^2 w^2\right),
          \qquad \beta = \min(s / w,\, 0.95)^2,

cut at low and high. Where s is much smaller than w it is drawn afresh; where draws are no worse
than the estimate they stay what they are. If :math:`t^*` has standard deviation w, t has s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["conditional", "draw_total", "log_density", "nodes"]

_MOST = 0.95
_NODES = 97
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def conditional(t: Tensor, estimate: Tensor, sd: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the new log10 mass given the drawn one t (...)."""
    ratio = (sd / wide).clamp(max=_MOST)
    beta = ratio.square()
    # s^2 - beta^2 w^2 with s = ratio w, or less where the estimate is the wider of both
    return estimate + beta * (t - estimate), ratio * wide * (1 - beta).sqrt()


def draw_total(mean: Tensor, sd: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """Return draws (...) of the normal distribution cut at low and high, from uniform u (...)."""
    a, b = (low - mean) / sd, (high - mean) / sd
    # work in the tail that loses no digits
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    u = torch.where(flip, 1 - u, u)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_p = torch.logaddexp(below + torch.log1p(-u), above + u.log())
    z = _ndtri_exp(log_p)
    z = torch.minimum(torch.maximum(z, a), b)
    return mean + sd * torch.where(flip, -z, z)


def log_density(t: Tensor, mean: Tensor, sd: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the log density (...) of :func:`draw_total` at t."""
    a, b = (low - mean) / sd, (high - mean) / sd
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    span = above + torch.log(-torch.expm1((below - above).clamp(max=-1e-12)))
    z = (t - mean) / sd
    return -0.5 * z * z - _LOG_SQRT_2PI - sd.log() - span


def nodes(estimate: Tensor, wide: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return places (J, ...) and log weights of the integral over the drawn mass, low to high.

    Trapezoids in x of t = estimate + wide sinh x: close together where draws lie.
    """
    ends = [torch.asinh((v - estimate) / wide) for v in (low, high)]
    share = torch.linspace(0, 1, _NODES, dtype=wide.dtype, device=wide.device)
    share = share.reshape(-1, *[1] * wide.ndim)
    x = ends[0] + share * (ends[1] - ends[0])
    weight = torch.ones_like(share)
    weight[0] = weight[-1] = 0.5
    step = (ends[1] - ends[0]).clamp(min=1e-9) / (_NODES - 1)
    return estimate + wide * torch.sinh(x), (weight * step * wide * torch.cosh(x)).log()


def _ndtri_exp(log_p: Tensor) -> Tensor:
    """Return the normal quantile of exp(log_p), (...), by Newton steps deep in the lower tail."""
    z = torch.special.ndtri(log_p.exp().clamp(1e-300, 1 - 1e-16))
    deep = log_p < -600.0
    start = -torch.sqrt(-2 * log_p.clamp(max=-1.0))
    for _ in range(4):
        value = torch.special.log_ndtr(start)
        slope = (-0.5 * start * start - _LOG_SQRT_2PI - value).exp()
        start = start - (value - log_p) / slope
    return torch.where(deep, start, z)
