r"""One probability per value: softmax of what a network computes.

.. math:: p(n\,|\,x) = \mathrm{softmax}_n\,f(x)

It knows nothing of order: a cross-check of :mod:`sbi_core.estimators.ordinal` for few values, and
the choice for values without order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sbi_core.errors import ConfigError
from sbi_core.estimators.discrete import DiscreteEstimator, DiscreteHead

__all__ = ["CategoricalConfig", "CategoricalEstimator", "CategoricalHead"]

F64 = NDArray[np.float64]
_MOST_VALUES = 4096


class CategoricalConfig(BaseModel):
    """Options of the softmax."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[int, ...] = Field(default=(128, 128), description="Widths of the network (SiLU).")


class CategoricalHead(DiscreteHead):
    """Softmax over the values of every parameter."""

    noise_per = 1

    def outputs(self, j: int) -> int:
        """Return the number of values of parameter j."""
        return self.sizes[j]

    def log_pmf(self, j: int, raw: Tensor, place: Tensor) -> Tensor:
        """Return log p of places (...) of parameter j."""
        log_p = raw.log_softmax(-1).expand(*place.shape, self.sizes[j])
        return torch.take_along_dim(log_p, place.unsqueeze(-1), -1)[..., 0]

    def pick(self, j: int, raw: Tensor, u: Tensor) -> Tensor:
        """Return places (...) of parameter j."""
        edges = raw.double().softmax(-1).cumsum(-1)[..., :-1]
        edges = edges.expand(*u.shape[:-1], edges.shape[-1]).contiguous()
        return torch.searchsorted(edges, u.contiguous())[..., 0]


class CategoricalEstimator(DiscreteEstimator):
    """Softmax: for few values, with or without order.

    Parameters
    ----------
    config
        Options.

    Examples
    --------
    >>> CategoricalEstimator()
    CategoricalEstimator(hidden=(128, 128); not trained)
    """

    name = "categorical"
    config_type = CategoricalConfig
    config: CategoricalConfig

    def discrete_head(self, features: int, tables: Sequence[F64]) -> DiscreteHead:
        """Return a fresh head for those tables of values.

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
