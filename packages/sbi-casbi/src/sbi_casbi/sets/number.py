r"""Density of the number of members p(N | h): three interchangeable forms.

``ordinal``
    A mixture of discretised logistics in log N (:mod:`sbi_core.estimators.ordinal`), truncated to
    the range of N.
``classes``
    A softmax over the values of N, the classifier of the two-step design.
``flow``
    A normalizing flow over dequantised N, the neural posterior estimator of the two-step design.
    With :math:`y = n + U(-\tfrac12, \tfrac12)` mapped to the real line and T increasing,

    .. math:: z = T(\mathrm{logit}\tfrac{y - a}{b - a};\, h) \sim \mathcal N(0, 1), \qquad
              p(n\,|\,h) = \Phi(z_{n + 1/2}) - \Phi(z_{n - 1/2}),

    a and b lie half a step outside the smallest and the largest value, so that the probabilities
    sum to one exactly.

References:
    | Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517 (discretised logistics)
    | Viterbo & Buck 2024, arXiv:2411.17269
    | Theis, van den Oord & Bethge 2016, arXiv:1511.01844 (dequantisation)
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from torch import Tensor

from sbi_core import Head, get_estimator

__all__ = ["NumberFlow", "NumberKind", "number_head"]

F64 = NDArray[np.float64]
NumberKind = Literal["ordinal", "classes", "flow"]
_COMPONENTS = 5  # logistics of the mixture
_FLOOR = 1e-3  # share of a uniform distribution, as in the ordinal head


def number_head(kind: NumberKind, features: int, counts: F64) -> Head:
    """Return an untrained density of the index of N among its values.

    Parameters
    ----------
    kind
        ``ordinal``, ``classes`` or ``flow``.
    features
        Size of the summary.
    counts
        Values of N, increasing by one.
    """
    if kind == "flow":
        return NumberFlow(features, counts)
    chosen: Any
    if kind == "classes":
        chosen = get_estimator("categorical")
    else:
        chosen = get_estimator("ordinal", components=_COMPONENTS, scale="log", ends="truncated")
    head: Head = chosen.discrete_head(features, [counts])
    return head


class NumberFlow(Head):
    """p(N | h) by a flow over dequantised N.

    Parameters
    ----------
    features
        Size of the summary.
    counts
        Values of N, increasing by one.
    """

    noise_size = 1
    rows_per_call = 16_384

    def __init__(self, features: int, counts: F64) -> None:
        super().__init__()
        self.sizes = [len(counts)]
        self.flow = zuko.flows.NSF(1, features, transforms=3, bins=8, hidden_features=[64, 64])

    def _scaled_logit(self, share: Tensor) -> Tensor:
        """Return the logit of fractions of the range (...), scaled to unit variance."""
        return torch.logit(share, eps=1e-7) * (math.sqrt(3.0) / math.pi)

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return -log q of dequantised indices z (n, 1), an upper bound on -log p(N | h)."""
        index = z[:, :1].clamp(0, self.sizes[0] - 1)
        if not self.training:
            return -self.log_prob(index, h)
        share = (index + torch.rand_like(index)) / self.sizes[0]
        y = self._scaled_logit(share)
        # density in n: dy / dn of the logit
        volume = -torch.log(share * (1 - share) + 1e-9)[:, 0] + math.log(
            math.sqrt(3.0) / math.pi / self.sizes[0]
        )
        loss: Tensor = -(self.flow(h).log_prob(y) + volume)
        return loss

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log p(N | h), shape (..., n), of indices z (..., n, 1)."""
        low, high = (self._edge(z[..., 0] + k, h) for k in (0, 1))
        # difference taken in the smaller tail, to avoid cancellation
        sign = torch.where(low + high > 0, -1.0, 1.0)
        a, b = torch.minimum(sign * low, sign * high), torch.maximum(sign * low, sign * high)
        p = torch.special.ndtr(b.double()) - torch.special.ndtr(a.double())
        floor = _FLOOR / self.sizes[0]
        return ((1 - _FLOOR) * p.clamp(min=0) + floor).log().to(h.dtype)

    def _edge(self, index: Tensor, h: Tensor) -> Tensor:
        """Return T at the lower edge of indices (..., n); infinite at both ends of the range."""
        rows = self.sizes[0]
        inner = index.clamp(1, rows - 1) / rows
        value: Tensor = self.flow(h).transform(self._scaled_logit(inner)[..., None])[..., 0]
        value = torch.where(index <= 0, -torch.inf, value)
        return torch.where(index >= rows, torch.inf, value)

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return indices (..., n, 1): rounded draws of the flow from standard normal noise."""
        y = self.flow(h).transform.inv(noise[..., :1])
        share = torch.sigmoid(y * (math.pi / math.sqrt(3.0)))
        return (share * self.sizes[0]).floor().clamp(0, self.sizes[0] - 1)
