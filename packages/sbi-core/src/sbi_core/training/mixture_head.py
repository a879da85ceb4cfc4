r"""Mixture density network: a Gaussian mixture whose parameters are a function of h.

.. math:: q(z\,|\,h) = \sum_k w_k\, N(z;\, \mu_k, \Sigma_k), \qquad
          \Sigma_k^{-1} = A_k^T A_k, \quad A_k = D_k (I + N_k)

with :math:`D_k` diagonal and positive (softplus) and :math:`N_k` strictly lower triangular. Mean
and covariance have a closed form.

References:
    | Mixture Density Networks (Bishop, 1994), Aston University NCRG/94/004
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbi_core.training.networks import Head, mlp

__all__ = ["MixtureHead"]

_SOFTPLUS_ONE = math.log(math.e - 1)  # softplus of it is 1
_LOG_2PI = math.log(2 * math.pi)


class MixtureHead(Head):
    """The mixture; initially Gaussians of unit width whose means scatter by 0.5."""

    expand: Tensor

    def __init__(self, features: int, dim: int, components: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.components = dim, components
        self.noise_size = dim + 1
        below = dim * (dim - 1) // 2
        self.sizes = (1, dim, dim, below)
        self.trunk = mlp(features, hidden, components * sum(self.sizes))
        expand = torch.zeros(below, dim, dim)
        rows, columns = torch.tril_indices(dim, dim, -1)
        expand[torch.arange(below), rows, columns] = 1.0
        self.register_buffer("expand", expand.reshape(below, dim * dim), persistent=False)
        last = self.trunk[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            bias = last.bias.view(components, -1)
            bias.zero_()
            bias[:, 1 : 1 + dim].normal_(0.0, 0.5)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log w (n, K), mu (n, K, d), D (n, K, d) and N (n, K, d, d) of h (n, k)."""
        raw = self.trunk(h).unflatten(-1, (self.components, -1))
        logit, mean, scale, below = raw.split(self.sizes, dim=-1)
        d = functional.softplus(scale + _SOFTPLUS_ONE) + 1e-4
        n = (below @ self.expand).unflatten(-1, (self.dim, self.dim))
        return logit[..., 0].log_softmax(-1), mean, d, n

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        log_w, mean, d, n = self(h)
        off = z.unsqueeze(-2) - mean
        u = d * (off + (n * off.unsqueeze(-2)).sum(-1))
        log_q = log_w + d.log().sum(-1) - 0.5 * (u**2).sum(-1)
        total: Tensor = log_q.logsumexp(-1)
        return total - 0.5 * self.dim * _LOG_2PI

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d); the last of the d + 1 noise numbers chooses the component."""
        log_w, mean, d, n = self(h)
        edges = log_w.double().softmax(-1).cumsum(-1)[..., :-1]
        u = torch.special.ndtr(noise[..., -1:].double())
        k = (u > edges).sum(-1)
        row = torch.arange(len(h), device=h.device) * self.components + k
        root = _inverse(d, n).flatten(0, 1)[row]
        z: Tensor = mean.flatten(0, 1)[row] + (root * noise[..., None, :-1]).sum(-1)
        return z

    def moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (n, d) and covariance (n, d, d) of q(z | h), float64."""
        log_w, mean, d, n = (t.double() for t in self(h))
        w = log_w.softmax(-1)
        total = (w.unsqueeze(-1) * mean).sum(1)
        root, off = _inverse(d, n), mean - total.unsqueeze(1)
        each = root @ root.mT + off.unsqueeze(-1) * off.unsqueeze(-2)
        return total, (w[..., None, None] * each).sum(1)


def _inverse(d: Tensor, n: Tensor) -> Tensor:
    """Return the inverse of A = D (I + N), lower triangular: a square root of the covariance."""
    eye = torch.eye(d.shape[-1], dtype=d.dtype, device=d.device)
    unit: Tensor = torch.linalg.solve_triangular(
        eye + n, eye.expand(n.shape), upper=False, unitriangular=True
    )
    return unit / d.unsqueeze(-2)
