r"""Categorical distribution: one probability per value, the softmax of a network.

.. math:: p(n\,|\,x) = \mathrm{softmax}_n\,f(x)

It does not use the order of the values: for values without order, and as a cross-check of
:mod:`sbi_core.estimators.ordinal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from sbi_core.errors import ConfigError
from sbi_core.estimators.discrete import DiscreteEstimator, DiscreteHead
from sbi_core.validation import Options

__all__ = ["CategoricalConfig", "CategoricalEstimator", "CategoricalHead"]

F64 = NDArray[np.float64]
_MOST_VALUES = 4096


class CategoricalConfig(Options):
    """Options of the categorical estimator."""

    hidden: tuple[int, ...] = Field(
        default=(128, 128), description="Layer widths of the network (SiLU)."
    )


class CategoricalHead(DiscreteHead):
    """Softmax over the values of every parameter."""

    noise_per = 1

    def outputs(self, j: int) -> int:
        """Return the number of values of parameter j."""
        return self.sizes[j]

    def log_pmf(self, j: int, raw: Tensor, place: Tensor) -> Tensor:
        """Return log p (...) of value indices (...) of parameter j."""
        log_p = raw.log_softmax(-1).expand(*place.shape, self.sizes[j])
        return torch.take_along_dim(log_p, place.unsqueeze(-1), -1)[..., 0]

    def pick(self, j: int, raw: Tensor, u: Tensor) -> Tensor:
        """Return value indices (...) of parameter j for uniform numbers (..., 1)."""
        edges = raw.double().softmax(-1).cumsum(-1)[..., :-1]
        edges = edges.expand(*u.shape[:-1], edges.shape[-1]).contiguous()
        return torch.searchsorted(edges, u.contiguous())[..., 0]


class CategoricalEstimator(DiscreteEstimator):
    """Categorical distribution: for few values, with or without order.

    Examples
    --------
    >>> CategoricalEstimator()
    CategoricalEstimator(hidden=(128, 128); not trained)
    """

    name = "categorical"
    config_type = CategoricalConfig
    config: CategoricalConfig

    def discrete_head(self, features: int, tables: Sequence[F64]) -> DiscreteHead:
        """Return a new head for parameters with these values.

        Raises
        ------
        ConfigError
            For more than 4096 values.
        """
        most = max(len(t) for t in tables)
        if most > _MOST_VALUES:
            msg = f"a softmax over {most} values is too wide: use 'ordinal'"
            raise ConfigError(msg)
        return CategoricalHead(features, tables, self.config.hidden)
