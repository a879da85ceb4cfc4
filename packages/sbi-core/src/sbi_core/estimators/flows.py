r"""Normalising flows of zuko: masked autoregressive and neural spline.

.. math:: \log q(z\,|\,h) = \log N(u; 0, I) + \log\left|\frac{\partial u}{\partial z}\right|

repeated with the order of the coordinates reversed. With :math:`u_i = (z_i - \mu_i(z_{<i}, h)) /
\sigma_i(z_{<i}, h)` this is ``maf``. With monotonic rational-quadratic splines for affine maps it
is ``nsf``, coupling by default; the splines act on [-5, 5] and are the identity outside (z has unit
variance under the proposal).

References:
    | Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
    | https://arxiv.org/abs/1705.07057
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    | zuko, https://zuko.readthedocs.io
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import zuko
from pydantic import AfterValidator, Field
from torch import Tensor

from sbi_core.errors import ConfigError
from sbi_core.estimators._inverse import inverse, plan
from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head
from sbi_core.validation import Options

__all__ = ["MafConfig", "MafEstimator", "NsfConfig", "NsfEstimator", "Passes", "ZukoHead"]


def _not_one(passes: int) -> int:
    if passes < 0 or passes == 1:
        msg = "must be 0 (autoregressive) or at least 2: with one pass all numbers are independent"
        raise ValueError(msg)
    return passes


Passes = Annotated[int, AfterValidator(_not_one)]


class ZukoHead(Head):
    """A conditional flow of zuko as a head."""

    def __init__(self, flow: Any, dim: int) -> None:
        super().__init__()
        self.flow = flow
        self.noise_size = dim
        self.plans = [plan(t) for t in flow.transform.transforms]

    @property
    def width(self) -> Tensor:
        """Standard deviations of the noise, (d,): 1 unless an ensemble tempers its members."""
        scale: Tensor = self.flow.base.scale
        return scale

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        log_q: Tensor = self.flow(h).log_prob(z)
        return log_q

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d), the inverse flow of standard normal noise (..., n, d)."""
        noise = noise * self.width
        if any(p is None for p in self.plans) or torch.is_grad_enabled():
            z: Tensor = self.flow(h).transform.inv(noise)
            return z
        z = noise.reshape(-1, len(h), noise.shape[-1])
        for steps in reversed(self.plans):
            assert steps is not None
            z = inverse(steps, z, h)
        return z.reshape(noise.shape)


class MafConfig(Options):
    """Options of the masked autoregressive flow."""

    transforms: int = Field(
        default=5, ge=1, description="Number of autoregressive transformations."
    )
    hidden: tuple[int, ...] = Field(
        default=(128, 128), description="Layer widths of their networks."
    )
    passes: Passes = Field(
        default=0, description="Passes of the inverse; 0: autoregressive, 2: coupling flow."
    )


class MafEstimator(FlowEstimator):
    """Masked autoregressive flow (zuko): for smooth posteriors of at least two parameters.

    References
    ----------
    Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057

    Examples
    --------
    >>> MafEstimator()
    MafEstimator(transforms=5 hidden=(128, 128) passes=0; not trained)
    """

    name = "maf"
    config_type = MafConfig
    config: MafConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a new density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            For one parameter, for which the flow would be a Gaussian.
        """
        if dim == 1:
            msg = "a masked autoregressive flow of one parameter is a Gaussian: use 'nsf'"
            raise ConfigError(msg)
        c = self.config
        flow = zuko.flows.MAF(
            dim, features, c.transforms, passes=c.passes or None, hidden_features=c.hidden
        )
        return ZukoHead(flow, dim)


class NsfConfig(Options):
    """Options of the neural spline flow."""

    transforms: int = Field(default=5, ge=1, description="Number of spline transformations.")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="Layer widths of their networks.")
    bins: int = Field(default=8, ge=2, description="Bins per spline.")
    passes: Passes = Field(
        default=2, description="Passes of the inverse; 0: autoregressive, 2: coupling flow."
    )


class NsfEstimator(FlowEstimator):
    """Neural spline flow (zuko): for multimodal posteriors, edges, and single parameters.

    References
    ----------
    Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> NsfEstimator(NsfConfig(transforms=3))
    NsfEstimator(transforms=3 hidden=(64, 64) bins=8 passes=2; not trained)
    """

    name = "nsf"
    config_type = NsfConfig
    config: NsfConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a new density of ``dim`` numbers given ``features`` numbers."""
        c = self.config
        rest = (
            {} if dim == 1 else {"passes": c.passes or None}
        )  # one parameter: elementwise splines
        flow = zuko.flows.NSF(
            dim, features, c.bins, transforms=c.transforms, hidden_features=c.hidden, **rest
        )
        return ZukoHead(flow, dim)
