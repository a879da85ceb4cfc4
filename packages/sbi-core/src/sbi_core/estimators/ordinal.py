r"""Ordered values: a mixture of discretised logistics whose parameters are a function of h.

.. math:: p(n\,|\,x) = (1 - \epsilon) \sum_{k=1}^{K} w_k
          \left[\sigma\!\left(\tfrac{e_+ - \mu_k}{s_k}\right) -
          \sigma\!\left(\tfrac{e_- - \mu_k}{s_k}\right)\right] + \frac{\epsilon}{R}, \qquad
          \epsilon = 10^{-3},

with edges :math:`e_\pm = n \pm 1/2`, or their logarithms for wide ranges. The R probabilities sum
to one exactly: the outer bins are open (``ends = open``), or the mixture is truncated to the range
of the values (``ends = truncated``), that is, divided by its integral from the lowest to the
highest edge. Open bins collect all of a broad distribution that lies beyond the range. Differences
are computed as :math:`\log\sigma(b) + \log\sigma(-a) + \log(1 - e^{a - b})`.

References:
    | PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from sbi_core.estimators.discrete import DiscreteEstimator, DiscreteHead
from sbi_core.validation import Options

__all__ = ["OrdinalConfig", "OrdinalEstimator", "OrdinalHead"]

F64 = NDArray[np.float64]
_UNIFORM = 1e-3  # weight of the uniform distribution
_WIDE = 100.0  # ratio of largest to smallest value above which edges are logarithmic


class OrdinalConfig(Options):
    """Options of the estimator of ordered values."""

    components: int = Field(default=5, ge=1, description="Number of logistics in the mixture.")
    hidden: tuple[int, ...] = Field(
        default=(128, 128), description="Layer widths of the network (SiLU)."
    )
    scale: Literal["auto", "linear", "log"] = Field(
        default="auto",
        description="Scale on which values are evenly spaced; auto: log for wide ranges.",
    )
    ends: Literal["open", "truncated"] = Field(
        default="open",
        description="Probability beyond the values: open (in the outermost values) or truncated.",
    )


def _edges(values: F64, scale: str) -> F64:
    """Return the R - 1 inner edges, scaled so that values have about unit variance."""
    edges = (values[1:] + values[:-1]) / 2
    wide = values[0] >= 0 and (values[-1] + 0.5) / (values[0] + 0.5) > _WIDE
    if scale == "log" or (scale == "auto" and wide):
        shift = max(0.0, 0.5 - float(edges[0])) if len(edges) else 0.0
        edges = np.log(edges + shift)
        centres = np.log(np.maximum(values + shift, 0.5 * np.exp(edges[0]) if len(edges) else 1.0))
    else:
        centres = values
    spread = float(centres.std()) or 1.0
    return np.asarray((edges - centres.mean()) / spread)


class OrdinalHead(DiscreteHead):
    """Mixture of discretised logistics for every parameter."""

    noise_per = 2

    def prepare(self, tables: Sequence[F64], **options: Any) -> None:
        """Compute the edges."""
        self.components = int(options["components"])
        self.truncated = options.get("ends", "open") == "truncated"
        for j, values in enumerate(tables):
            inner = torch.as_tensor(_edges(values, str(options["scale"]))).float()
            self.register_buffer(f"edges{j}", inner, persistent=False)

    def outputs(self, j: int) -> int:
        """Return the number of outputs: weight, mean and width of every logistic."""
        return 3 * self.components

    def _mixture(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logit, mean, width = torch.split(raw, self.components, dim=-1)
        # initially means are spread over the range, and widths are about a third of it
        start = torch.linspace(-1.5, 1.5, self.components, dtype=raw.dtype, device=raw.device)
        scale = functional.softplus(width - 1.0) + 1e-4
        return logit.log_softmax(-1), mean + start, scale

    def _bounds(self, j: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest edge of parameter j, one bin beyond the inner ones."""
        inner = self.get_buffer(f"edges{j}").to(like)
        if not self.truncated or len(inner) < 2:
            infinite = torch.full((), torch.inf, dtype=like.dtype, device=like.device)
            return -infinite, infinite
        return 2 * inner[0] - inner[1], 2 * inner[-1] - inner[-2]

    def log_pmf(self, j: int, raw: Tensor, place: Tensor) -> Tensor:
        """Return log p (...) of value indices (...) of parameter j."""
        log_w, mean, scale = self._mixture(raw)
        inner, last = self.get_buffer(f"edges{j}").to(raw.dtype), self.sizes[j] - 1
        if last == 0:
            return torch.zeros(place.shape, dtype=raw.dtype, device=raw.device)
        low, high = self._bounds(j, raw)
        edges = torch.cat([low[None], inner, high[None]])
        cell = _log_probability(edges[place, None], edges[place + 1, None], mean, scale)
        if self.truncated:
            log_w = log_w - (log_w + _log_probability(low, high, mean, scale)).logsumexp(-1, True)
        log_p = (log_w + cell).logsumexp(-1)
        floor = torch.full_like(log_p, math.log(_UNIFORM / (last + 1)))
        return torch.logaddexp(log_p + math.log1p(-_UNIFORM), floor)

    def pick(self, j: int, raw: Tensor, u: Tensor) -> Tensor:
        """Return value indices (...) for uniform numbers (..., 2): a component, then its draw."""
        log_w, mean, scale = self._mixture(raw.double())
        inner, count = self.get_buffer(f"edges{j}").double(), self.sizes[j]
        low, high = self._bounds(j, mean)
        if self.truncated:
            log_w = (log_w + _log_probability(low, high, mean, scale)).log_softmax(-1)
        share = (1 - _UNIFORM) * log_w.exp().cumsum(-1)
        share[..., -1] = 1 - _UNIFORM
        k = (u[..., :1] > share).sum(-1, keepdim=True)  # K: the uniform part
        chosen = k.clamp(max=self.components - 1)
        lead = chosen.shape[:-1]
        mean, scale = (
            torch.take_along_dim(t.expand(*lead, t.shape[-1]), chosen, -1)[..., 0]
            for t in (mean, scale)
        )
        value = mean + scale * torch.logit(u[..., 1])
        if self.truncated:
            value = _truncated_logistic(low, high, mean, scale, u[..., 1])
        bins = torch.bucketize(value.contiguous(), inner)
        flat = (u[..., 1] * count).long().clamp(max=count - 1)
        return torch.where(k[..., 0] == self.components, flat, bins)


def _log_probability(low: Tensor, high: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the log probability of logistics between two edges, which may be infinite."""
    is_first, is_last = torch.isinf(low), torch.isinf(high)
    is_open = is_first | is_last
    # finite numbers in the branches that `where` drops keep gradients finite
    low, high = torch.where(is_first, 0.0, low), torch.where(is_last, 0.0, high)
    above = torch.where(is_last, 0.0, functional.logsigmoid((high - mean) / scale))
    below = torch.where(is_first, 0.0, functional.logsigmoid((mean - low) / scale))
    gap = torch.where(is_open, 1.0, (high - low) / scale)
    return above + below + torch.where(is_open, 0.0, _log1mexp(gap))


def _truncated_logistic(
    low: Tensor, high: Tensor, mean: Tensor, scale: Tensor, u: Tensor
) -> Tensor:
    """Return draws (...) of logistics between two edges, from uniform numbers u (...)."""
    a, b = (low - mean) / scale, (high - mean) / scale
    # work in the lower tail, where no digits are lost
    sign = torch.where(a + b > 0, -1.0, 1.0)
    a, b = torch.where(sign < 0, -b, a), torch.where(sign < 0, -a, b)
    u = torch.where(sign < 0, 1 - u, u)
    below, above = torch.sigmoid(a), torch.sigmoid(b)
    z = torch.logit((below + (above - below) * u).clamp(min=1e-300))
    return mean + scale * sign * torch.minimum(torch.maximum(z, a), b)


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(-x)) for x > 0, accurate at both ends."""
    x = x.clamp(min=1e-7)
    near = torch.log(-torch.expm1(-x.clamp(max=1.0)))
    far = torch.log1p(-torch.exp(-x.clamp(min=0.5)))
    return torch.where(x < math.log(2), near, far)


class OrdinalEstimator(DiscreteEstimator):
    """Mixture of discretised logistics: for integers and other ordered values.

    References
    ----------
    Salimans et al. 2017, https://arxiv.org/abs/1701.05517

    Examples
    --------
    >>> OrdinalEstimator()
    OrdinalEstimator(components=5 hidden=(128, 128) scale='auto'; not trained)
    """

    name = "ordinal"
    config_type = OrdinalConfig
    config: OrdinalConfig

    def discrete_head(self, features: int, tables: Sequence[F64]) -> DiscreteHead:
        """Return a new head for parameters with these values."""
        c = self.config
        options = {"components": c.components, "scale": c.scale, "ends": c.ends}
        return OrdinalHead(features, tables, c.hidden, **options)
