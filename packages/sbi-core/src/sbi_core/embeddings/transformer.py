r"""Masked self-attention over the elements of a vector or the members of a set.

Every element or member is a token. The summary is one further, learned token, with
:math:`\log(1 + N)` of the number N of observed tokens. Tokens that were not observed are masked in
all attention layers. Elements of a vector have a learned position code; members of a set have none,
so that their order does not matter.

References:
    | Attention Is All You Need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762
    | Set Transformer (Lee et al., 2019), https://arxiv.org/abs/1810.00825
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.deepset import members
from sbi_core.errors import ConfigError
from sbi_core.training.networks import mlp
from sbi_core.validation import Options

__all__ = ["TransformerConfig", "TransformerEmbedding"]


class TransformerConfig(Options):
    """Options of the transformer."""

    width: int = Field(default=64, ge=1, description="Size of a token.")
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide the width.")
    blocks: int = Field(default=2, ge=1, description="Number of attention blocks.")
    expansion: int = Field(
        default=2, ge=1, description="Width of the feed-forward layers, in units of width."
    )
    hidden: tuple[int, ...] = Field(
        default=(64,),
        min_length=1,
        description="Layer widths after pooling; the last is the summary size.",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> TransformerConfig:
        if self.width % self.heads:
            msg = f"'heads' ({self.heads}) must divide 'width' ({self.width})"
            raise ValueError(msg)
        return self


class _Block(nn.Module):
    """Self-attention and feed-forward layers with residual connections (pre-norm)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.rest = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.expansion * width),
            nn.SiLU(),
            nn.Linear(config.expansion * width, width),
        )

    def forward(self, tokens: Tensor, exists: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for part in self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=exists[:, None, None])
        tokens = tokens + self.out(mixed.transpose(-2, -3).flatten(-2))
        result: Tensor = tokens + self.rest(tokens)
        return result


class _Transformer(nn.Module):
    def __init__(self, shape: InputShape, config: TransformerConfig) -> None:
        super().__init__()
        self.vector = len(shape.x) == 1
        size = (1 if self.vector else shape.x[-1]) * (1 + shape.has_err + shape.has_mask)
        self.token = nn.Linear(size, config.width)
        places = shape.x[0] if self.vector else 0
        self.place = nn.Parameter(torch.randn(places, config.width)) if self.vector else None
        # a slope per position, too: equal values mean different things at different positions
        self.slope = nn.Parameter(torch.ones(places, config.width)) if self.vector else None
        self.pooled = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.last = mlp(config.width + 1 + shape.context, config.hidden)
        self.out_features = config.hidden[-1]

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        parts = [p.unsqueeze(-1) if self.vector else p for p in (x, x_err, mask) if p is not None]
        observed = mask.unsqueeze(-1) if self.vector and mask is not None else mask
        exists = members(parts[0], observed) > 0
        tokens: Tensor = self.token(torch.cat(parts, dim=-1))
        if self.place is not None and self.slope is not None:
            tokens = tokens * self.slope + self.place
        tokens = torch.cat([self.pooled.expand(len(x), 1, -1), tokens], dim=1)
        seen = functional.pad(exists, (1, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, seen)
        parts = [self.norm(tokens[:, 0]), exists.sum(1, keepdim=True).to(x.dtype).log1p()]
        if context is not None:
            parts.append(context)
        summary: Tensor = self.last(torch.cat(parts, dim=-1))
        return summary


class TransformerEmbedding(Embedding):
    """Summarise vectors (d,) with missing elements, or sets (N, d), by masked attention.

    References
    ----------
    Lee et al. 2019, https://arxiv.org/abs/1810.00825

    Examples
    --------
    >>> TransformerEmbedding().build(InputShape((8,), has_mask=True)).out_features
    64
    """

    name = "transformer"
    config_type = TransformerConfig
    config: TransformerConfig
    takes_sets = True

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape.

        Raises
        ------
        ConfigError
            If a row is neither (d,) nor (N, d).
        """
        if len(shape.x) not in (1, 2):
            msg = f"embedding 'transformer' needs x of shape (d,) or (N, d), got {shape.x}"
            raise ConfigError(msg)
        return _Transformer(shape, self.config)
