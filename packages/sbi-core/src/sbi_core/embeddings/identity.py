"""No learned summary: standardised input, flattened and joined."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from sbi_core.components import InputShape

__all__ = ["IdentityConfig", "IdentityEmbedding", "Joined", "joined_size"]


def joined_size(shape: InputShape) -> int:
    """Return the length of x, x_err, mask and context joined."""
    return math.prod(shape.x) * (1 + shape.has_err + shape.has_mask) + shape.context


class Joined(nn.Module):
    """Join x, x_err, mask and context into one row per object.

    Parameters
    ----------
    shape
        Shape of one row.
    """

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.out_features = joined_size(shape)

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Return (n, out_features)."""
        parts = [p.flatten(1) for p in (x, x_err, mask, context) if p is not None]
        return torch.cat(parts, dim=1)


class IdentityConfig(BaseModel):
    """The identity embedding has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IdentityEmbedding:
    """Hand standardised data, errors, masks and context to the estimator as they are.

    Examples
    --------
    >>> IdentityEmbedding().build(InputShape((8,), has_err=True)).out_features
    16
    """

    name: ClassVar[str] = "identity"
    config_type: ClassVar[type[BaseModel]] = IdentityConfig
    takes_sets: ClassVar[bool] = False

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = config or IdentityConfig()

    def build(self, shape: InputShape) -> nn.Module:
        """Return a fresh module for rows of that shape."""
        return Joined(shape)

    def __repr__(self) -> str:
        return "IdentityEmbedding()"
