"""Identity: standardised input, flattened and joined, without a learned summary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.validation import Options

__all__ = ["IdentityConfig", "IdentityEmbedding", "Joined", "joined_size"]


def joined_size(shape: InputShape) -> int:
    """Return the number of features of x, x_err, mask and context joined."""
    return math.prod(shape.x) * (1 + shape.has_err + shape.has_mask) + shape.context


class Joined(nn.Module):
    """Join x, x_err, mask and context into one row per object."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.out_features = joined_size(shape)

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Return (n, out_features)."""
        parts = [p.flatten(1) for p in (x, x_err, mask, context) if p is not None]
        return torch.cat(parts, dim=1)


class IdentityConfig(Options):
    """The identity embedding has no options."""


class IdentityEmbedding(Embedding):
    """Pass standardised data, errors, masks and context to the estimator unchanged.

    Examples
    --------
    >>> IdentityEmbedding().build(InputShape((8,), has_err=True)).out_features
    16
    """

    name = "identity"
    config_type = IdentityConfig
    config: IdentityConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape."""
        return Joined(shape)
