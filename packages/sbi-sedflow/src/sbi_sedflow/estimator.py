r"""Density estimator: a conditional linear map with full covariance, then splines and shifts.

.. math:: u = A(h)\,[z - m(h)], \qquad
          \log q(z\,|\,h) = \log q_\mathrm{flow}(u\,|\,h) + \log|\det A(h)|

with z the unconstrained coordinates (standard normal under the prior, so that every draw is inside
it) and A lower triangular. Seven bands constrain some combinations of eleven parameters to per
cents and leave others free: the linear map removes these strong correlations. Rational-quadratic
splines then describe edges and tails, affine autoregressive maps the remaining curvature. With
``passes = 2`` these are coupling maps (half of the variables given the other half); by default each
variable is conditioned on all before it, which reached a lower loss at the same cost
(benchmarks/sedflow/architecture.py). Draws cost about one evaluation of the networks either way.

References:
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    | Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
    | Hahn & Melchior 2022, ApJ 938, 11 (a flow for this problem, autoregressive and unbounded)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import zuko
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from sbi_core import FlowEstimator, Head, get_estimator

__all__ = ["AffineHead", "SedFlowConfig", "SedFlowEstimator"]

_SOFTPLUS_ONE = math.log(math.e - 1)  # softplus of it is 1
_SMALLEST = 1e-3  # of the diagonal of A


class SedFlowConfig(BaseModel):
    """Options of the flow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    splines: int = Field(default=1, ge=1, description="Spline transformations.")
    bins: int = Field(default=8, ge=2, description="Bins of the splines.")
    shifts: int = Field(default=4, ge=0, description="Affine transformations after the splines.")
    hidden: tuple[int, ...] = Field(
        default=(128, 128), description="Widths of the hidden layers of the transformations."
    )
    passes: int = Field(
        default=0,
        ge=0,
        description="0: autoregressive; 2: coupling, half of the variables given the others.",
    )
    affine: tuple[int, ...] = Field(
        default=(256,), description="Widths of the hidden layers of the linear map."
    )

    @field_validator("passes")
    @classmethod
    def _not_one(cls, value: int) -> int:
        if value == 1:
            msg = "must be 0 (autoregressive) or at least 2"
            raise ValueError(msg)
        return value


class AffineHead(Head):
    """Density of u after a conditional linear map u = A(h) (z - m(h)).

    Parameters
    ----------
    inner
        Density of u.
    features, dim
        Number of conditioning inputs, and of variables.
    hidden
        Widths of the network of m and A.
    """

    expand: Tensor

    def __init__(self, inner: Head, features: int, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.dim, self.noise_size = inner, dim, inner.noise_size
        self.below = dim * (dim - 1) // 2
        out = 2 * dim + self.below
        layers: list[nn.Module] = []
        size = features
        for width in hidden:
            layers += [nn.Linear(size, width), nn.SiLU()]
            size = width
        self.trunk = nn.Sequential(*layers, nn.Linear(size, out))
        self.direct = nn.Linear(features, out, bias=False)
        expand = torch.zeros(self.below, dim, dim)
        rows, columns = torch.tril_indices(dim, dim, -1)
        expand[torch.arange(self.below), rows, columns] = 1.0
        self.register_buffer("expand", expand.reshape(self.below, dim * dim), persistent=False)
        with torch.no_grad():  # starts near u = z
            for layer in (self.trunk[-1], self.direct):
                layer.weight.mul_(0.1)  # type: ignore[operator, union-attr]

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return m (n, d), the diagonal D (n, d) and N (n, d, d) of A = D (I + N)."""
        raw = self.trunk(h) + self.direct(h)
        mean, scale, below = raw.split((self.dim, self.dim, self.below), dim=-1)
        d = functional.softplus(scale + _SOFTPLUS_ONE) + _SMALLEST
        return mean, d, (below @ self.expand).unflatten(-1, (self.dim, self.dim))

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        mean, d, n = self(h)
        off = z - mean
        u = d * (off + (n * off.unsqueeze(-2)).sum(-1))
        return self.inner.log_prob(u, h) + d.log().sum(-1)

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d) of standard normal noise."""
        mean, d, n = self(h)
        u = self.inner.draw(noise, h)
        eye = torch.eye(self.dim, dtype=d.dtype, device=d.device)
        root = torch.linalg.solve_triangular(
            eye + n, eye.expand(n.shape), upper=False, unitriangular=True
        )
        return mean + ((u / d).unsqueeze(-2) * root).sum(-1)


class SedFlowEstimator(FlowEstimator):
    """Splines and affine maps after a linear map; draws stay inside the prior.

    Parameters
    ----------
    config
        Options.
    """

    name = "sed-flow"
    config_type = SedFlowConfig
    config: SedFlowConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` variables given ``features`` inputs."""
        c = self.config
        options = {"hidden": c.hidden, "passes": c.passes}
        head = _head("nsf", features, dim, transforms=c.splines, bins=c.bins, **options)
        if c.shifts:
            maps = _head("maf", features, dim, transforms=c.shifts, **options)
            both = [*head.flow.transform.transforms, *maps.flow.transform.transforms]
            head = type(head)(zuko.flows.Flow(both, head.flow.base), dim)
        return AffineHead(head, features, dim, c.affine)


def _head(name: str, features: int, dim: int, **options: Any) -> Any:
    """Return the density of an estimator of sbi-core, with its fast inverse."""
    estimator = get_estimator(name, **options)
    assert isinstance(estimator, FlowEstimator)
    return estimator.build_head(features, dim)
