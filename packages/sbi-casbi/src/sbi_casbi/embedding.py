r"""Embedding networks of a plane of counts.

``casbi-mlp``
    Fully connected network. Its input are counts summed over 4 x 4 pixels (about the width of a
    galaxy after errors and mixing), as :math:`\log(1 + n)` and as :math:`\sqrt{n + 3/8}`, which has
    constant noise, and the four scalars.
``casbi-cnn``
    Convolutional network with skip connections on the 64 x 64 plane, about ten times slower on a
    CPU.

Both append the four scalars to their summary, because the number of stars, which gives the accreted
mass of a complete sample, is needed at full precision.

References:
    | Anscombe 1948, Biometrika 35, 246 (the square root)
    | Viterbo & Buck 2024, arXiv:2411.17269 (the convolutional network)
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from sbi_casbi.plane import N_PIXELS, PIXELS
from sbi_casbi.sets.sums import SCALARS
from sbi_core import ConfigError, Embedding, InputShape

__all__ = [
    "CnnConfig",
    "CnnEmbedding",
    "MlpConfig",
    "PairEmbedding",
    "PlaneEmbedding",
    "split_plane",
]


def split_plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return counts (..., 64, 64) and scaled scalars (..., 4) of rows of x (..., 4100)."""
    plane = x[..., :N_PIXELS].unflatten(-1, (PIXELS, PIXELS))
    overflow, log_n, errors = x[..., N_PIXELS], x[..., N_PIXELS + 1], x[..., N_PIXELS + 2 :]
    scalars = torch.stack([torch.log1p(overflow) / 3, log_n - 4], -1)
    return plane, torch.cat([scalars, errors / 0.1 - 1], -1)


def _check(shape: InputShape) -> None:
    if shape.x != (N_PIXELS + SCALARS,):
        msg = f"this embedding needs x with {N_PIXELS + SCALARS} numbers, the data have {shape.x}"
        raise ConfigError(msg)


class MlpConfig(BaseModel):
    """Options of the embedding ``casbi-mlp``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[int, ...] = Field(
        (512, 256, 128),
        min_length=1,
        description="widths of the layers; the last is the size of the summary without scalars",
    )
    pool: int = Field(4, ge=1, le=8, description="number of pixels summed along each axis")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability in training")


class _Mlp(nn.Module):
    scalars = SCALARS

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.pool = config.pool
        size = 2 * (PIXELS // config.pool) ** 2 + SCALARS
        layers: list[nn.Module] = []
        for width in config.hidden:
            layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU()]
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            size = width
        self.layers = nn.Sequential(*layers)
        self.out_features = size + SCALARS

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        plane, scalars = split_plane(x)
        k = self.pool
        n = PIXELS // k
        summed = plane.unflatten(-2, (n, k)).unflatten(-1, (n, k)).sum((-3, -1))
        summed = summed.flatten(-2)
        pixels = torch.cat([torch.log1p(summed) / 3, torch.sqrt(summed + 0.375) / 5], -1)
        return torch.cat([self.layers(torch.cat([pixels, scalars], -1)), scalars], -1)


class PlaneEmbedding(Embedding):
    """Fully connected network on pooled counts.

    Parameters
    ----------
    config
        Options.
    """

    name = "casbi-mlp"
    raw_input = True
    config_type = MlpConfig
    config: MlpConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return an untrained module for rows of that shape."""
        _check(shape)
        if PIXELS % self.config.pool:
            msg = f"embedding.pool = {self.config.pool} does not divide {PIXELS} pixels"
            raise ConfigError(msg)
        return _Mlp(self.config)


class CnnConfig(BaseModel):
    """Options of the embedding ``casbi-cnn``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[int, ...] = Field(
        (16, 32, 64),
        min_length=1,
        description="channels per level; each halves the resolution",
    )
    out: int = Field(128, ge=8, description="size of the summary without scalars")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability in training")


class _Block(nn.Module):
    """Residual block: two convolutions with a skip connection, then 2 x 2 average pooling."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(size, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Conv2d(size, width, 1)
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(functional.silu(self.norm(self.first(x))))
        return functional.avg_pool2d(functional.silu(h + self.skip(x)), 2)


class _Cnn(nn.Module):
    scalars = SCALARS

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        sizes = [1, *config.channels]
        self.blocks = nn.Sequential(
            *(_Block(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        )
        left = PIXELS >> len(config.channels)
        self.last = nn.Linear(sizes[-1] * left * left + SCALARS, config.out)
        self.dropout = nn.Dropout(config.dropout)
        self.out_features = config.out + SCALARS

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        plane, scalars = split_plane(x)
        lead = plane.shape[:-2]
        image = (torch.log1p(plane) / 3).reshape(-1, 1, PIXELS, PIXELS)
        h = self.blocks(image).flatten(1).reshape(*lead, -1)
        summary = functional.silu(self.dropout(self.last(torch.cat([h, scalars], -1))))
        return torch.cat([summary, scalars], -1)


class CnnEmbedding(Embedding):
    """Convolutional network with skip connections, 64 x 64 to 128 numbers.

    Parameters
    ----------
    config
        Options.
    """

    name = "casbi-cnn"
    raw_input = True
    config_type = CnnConfig
    config: CnnConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return an untrained module for rows of that shape."""
        _check(shape)
        if len(self.config.channels) > 6:
            msg = f"embedding.channels has {len(self.config.channels)} levels, at most 6 fit"
            raise ConfigError(msg)
        return _Cnn(self.config)


class _Pair(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.scalars = int(getattr(second, "scalars", 0))
        sizes: tuple[Any, Any] = first.out_features, second.out_features
        self.out_features = int(sizes[0]) + int(sizes[1])

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        given = (x, x_err, mask, context)
        return torch.cat([self.first(*given), self.second(*given)], -1)


class PairEmbedding(Embedding):
    """Two networks of one kind without shared weights, their summaries joined.

    Parameters
    ----------
    embedding
        Embedding that builds each of them.
    """

    name = "casbi-pair"

    def __init__(self, embedding: Embedding) -> None:
        super().__init__(embedding.config)
        self.embedding, self.raw_input = embedding, embedding.raw_input

    def build(self, shape: InputShape) -> nn.Module:
        """Return two untrained modules for rows of that shape, their outputs joined."""
        return _Pair(self.embedding.build(shape), self.embedding.build(shape))
