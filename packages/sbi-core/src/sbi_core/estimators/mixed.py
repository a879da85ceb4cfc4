r"""Discrete and continuous parameters together.

.. math:: q(n, \theta\,|\,x) = p(n\,|\,x)\;q(\theta\,|\,x, n)

The second factor is the head of any continuous estimator, given features and an encoding of *n*.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from sbi_core.errors import ConfigError
from sbi_core.estimators.base import FlowEstimator
from sbi_core.estimators.discrete import Columns, DiscreteEstimator, DiscreteHead
from sbi_core.priors.space import ParameterSpace
from sbi_core.registry import Registry
from sbi_core.training.networks import Head
from sbi_core.validation import Options

__all__ = ["MixedConfig", "MixedEstimator", "MixedHead"]

F64 = NDArray[np.float64]


class MixedConfig(Options):
    """Options of the mixed estimator."""

    discrete: Literal["ordinal", "categorical"] = Field(
        default="ordinal", description="Estimator of the discrete parameters."
    )
    discrete_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of that estimator."
    )
    continuous: str = Field(
        default="nsf", description="Name of the estimator of the continuous parameters."
    )
    continuous_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of that estimator."
    )


class MixedHead(Head):
    """p(n | h) q(z | h, n).

    Parameters
    ----------
    discrete
        Head of the discrete parameters.
    continuous
        Head of the others, given the features and ``discrete.code_size`` further numbers.
    """

    def __init__(self, discrete: DiscreteHead, continuous: Head) -> None:
        super().__init__()
        self.discrete, self.continuous = discrete, continuous
        self.m = len(discrete.sizes)
        self.noise_size = discrete.noise_size + continuous.noise_size
        self.rows_per_call = continuous.rows_per_call
        self.loss_is_nll = continuous.loss_is_nll

    def _given(self, places: Tensor, h: Tensor) -> Tensor:
        """Return features and encoding of n, one row per draw and object."""
        code = self.discrete.code(places).to(h.dtype)
        wide = torch.cat([h.expand(*places.shape[:-1], h.shape[-1]), code], -1)
        return wide.reshape(-1, wide.shape[-1])

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(n, z | h), shape (..., n)."""
        places, rest = z[..., : self.m], z[..., self.m :]
        given = self._given(places, h)
        log_q = self.continuous.log_prob(rest.reshape(len(given), -1), given)
        return self.discrete.log_prob(places, h) + log_q.reshape(z.shape[:-1])

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the sum of both losses, (n,), for z (n, m + k)."""
        places, rest = z[..., : self.m], z[..., self.m :]
        return self.discrete.loss(places, h) + self.continuous.loss(rest, self._given(places, h))

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return value indices and z (..., n, m + k): first n, then z given n."""
        split = self.discrete.noise_size
        places = self.discrete.draw(noise[..., :split], h)
        given = self._given(places, h)
        rest = self.continuous.draw(noise[..., split:].reshape(len(given), -1), given)
        return torch.cat([places.to(rest.dtype), rest.reshape(*places.shape[:-1], -1)], -1)


class MixedEstimator(DiscreteEstimator):
    """Discrete parameters, and continuous parameters given them.

    Examples
    --------
    >>> MixedEstimator(MixedConfig(continuous="mixture")).config.discrete
    'ordinal'
    """

    name = "mixed"
    config_type = MixedConfig
    config: MixedConfig

    def make_head(self, features: int, space: ParameterSpace) -> Head:
        """Return a new density of the parameters given ``features`` numbers.

        Raises
        ------
        ConfigError
            If one kind of parameter is missing, or the options name an unsuitable estimator.
        """
        columns, c = Columns(space), self.config
        if not columns.discrete or not columns.z_dim or columns.rest is None:
            kind = "continuous" if columns.discrete else "discrete"
            hint = "'ordinal'" if columns.discrete else "'maf' or 'nsf'"
            msg = (
                f"estimator 'mixed' needs {kind} parameters beside {list(space.names)}: use {hint}"
            )
            raise ConfigError(msg)
        registry = Registry([])
        first = registry.build("estimator", c.discrete, c.discrete_options)
        second = registry.build("estimator", c.continuous, c.continuous_options)
        assert isinstance(first, DiscreteEstimator)
        if not isinstance(second, FlowEstimator) or isinstance(second, DiscreteEstimator):
            msg = f"estimator '{c.continuous}' cannot be the continuous part of 'mixed'"
            raise ConfigError(msg)
        discrete = first.discrete_head(features, columns.tables)
        return MixedHead(discrete, second.make_head(features + discrete.code_size, columns.rest))

    def _discrete_part(self) -> DiscreteHead:
        head = self.network.head
        assert isinstance(head, MixedHead)
        return head.discrete
