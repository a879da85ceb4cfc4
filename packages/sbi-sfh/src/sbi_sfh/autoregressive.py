r"""Autoregressive mixture density: each number is a mixture of Gaussians given those before.

.. math:: q(z\,|\,h) = \prod_{k=1}^{d} \sum_{m=1}^{M} w_{km}\,
          N(z_k;\, \mu_{km}, \sigma_{km}^2), \qquad
          (w, \mu, \sigma)_{k} = f_k(z_1 \ldots z_{k-1}, h)

with a small network :math:`f_k` for every number. Training adds noise of variance
:math:`\kappa^2`; outside of training it is subtracted, :math:`\sigma^2 - \kappa^2`, at least
:math:`(\kappa/5)^2`. A draw calls each network once, which is faster than the inverse of an
autoregressive flow.

References:
    | RNADE (Uria, Murray & Larochelle, 2013), https://arxiv.org/abs/1306.0186
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbi_core import Head

__all__ = ["AutoregressiveMixture"]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_LIMIT = 5.0  # of log sigma, softly
_SHARPEST = 0.2  # of the blur: smallest sigma after subtracting the blur
_START_SIGMA = 0.6  # of the Gaussians, which start between -1.5 and 1.5


class AutoregressiveMixture(Head):
    """Autoregressive mixtures of Gaussians.

    Parameters
    ----------
    features, dim
        Number of conditioning inputs, and of variables.
    components
        Gaussians per variable.
    hidden
        Widths of the hidden layers.
    blur
        Standard deviation of the noise that training adds; outside of training its variance is
        subtracted from that of the Gaussians.
    """

    before: Tensor

    def __init__(
        self,
        features: int,
        dim: int,
        components: int = 8,
        hidden: tuple[int, ...] = (64, 64),
        *,
        blur: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.components, self.blur = dim, components, blur
        self.noise_size = 2 * dim
        widths = (features + dim, *hidden, 3 * components)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            self.weights.append(torch.randn(dim, a, b) / math.sqrt(a))
            self.biases.append(torch.zeros(dim, 1, b))
        with torch.no_grad():
            self.weights[0][:, features:] *= 0.3
            self.weights[-1] *= 0.1
            middle = slice(components, 2 * components)
            self.biases[-1][..., middle] = torch.linspace(-1.5, 1.5, components)
            self.biases[-1][..., 2 * components :] = math.log(_START_SIGMA)
        before = torch.ones(dim, 1, features + dim)
        before[:, 0, features:] = torch.tril(torch.ones(dim, dim), -1)
        self.register_buffer("before", before, persistent=False)

    def _mixtures(self, inputs: Tensor, which: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return log w, mu and log sigma (k, n, M) of some numbers for inputs (k, n, f + d)."""
        out = inputs
        for j, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if j:
                out = functional.silu(out)
            out = torch.baddbmm(bias[which], out, weight[which])
        log_w, mu, log_sigma = out.split(self.components, dim=-1)
        log_sigma = _LOG_LIMIT * torch.tanh(log_sigma / _LOG_LIMIT)
        if self.blur and not self.training:
            sharp = torch.exp(2.0 * log_sigma) - self.blur**2
            log_sigma = 0.5 * sharp.clamp(min=(_SHARPEST * self.blur) ** 2).log()
        return log_w.log_softmax(-1), mu, log_sigma

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        shape = torch.broadcast_shapes(z.shape[:-1], h.shape[:-1])
        joined = torch.cat([h.expand(*shape, -1), z.expand(*shape, -1)], -1)
        rows = joined.reshape(1, -1, joined.shape[-1]) * self.before
        log_w, mu, log_sigma = self._mixtures(rows, slice(None))
        values = joined[..., -self.dim :].reshape(-1, self.dim).T[..., None]
        left = (values - mu) * torch.exp(-log_sigma)
        terms = log_w - 0.5 * left**2 - log_sigma - _LOG_SQRT_2PI
        return terms.logsumexp(-1).sum(0).reshape(shape)

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d) of noise (..., n, 2 d): half selects, half is Gaussian."""
        lead = noise.shape[:-1]
        rows = torch.cat([h.expand(*lead, -1), noise.new_zeros(*lead, self.dim)], -1)
        rows = rows.reshape(1, -1, rows.shape[-1])
        choice, scatter = noise.reshape(-1, 2 * self.dim).split(self.dim, dim=-1)
        choice = torch.special.ndtr(choice)
        first = rows.shape[-1] - self.dim
        z = []
        for k in range(self.dim):
            # later numbers are still zero: no mask is needed
            log_w, mu, log_sigma = (p[0] for p in self._mixtures(rows, slice(k, k + 1)))
            edges = log_w.exp().cumsum(-1)[:, :-1]
            taken = (choice[:, k : k + 1] > edges).sum(-1, keepdim=True)
            value = mu.gather(1, taken) + scatter[:, k : k + 1] * log_sigma.gather(1, taken).exp()
            z.append(value)
            if k + 1 < self.dim:
                rows = rows.clone() if torch.is_grad_enabled() else rows
                rows[0, :, first + k] = value[:, 0]
        return torch.cat(z, -1).reshape(*lead, self.dim)
