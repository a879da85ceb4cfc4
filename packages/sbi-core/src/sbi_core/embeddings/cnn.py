r"""Convolutional summary network for images (C, H, W) and series (C, L).

Errors and mask are further channels; missing pixels are zero in all channels but the mask. Average
pooling comes first, to save time on a CPU; strided convolutions with GroupNorm then halve the image
until it is flattened. (With BatchNorm the summary of a row would depend on the other rows.)

References:
    | Group Normalization (Wu & He, 2018), https://arxiv.org/abs/1803.08494
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.errors import ConfigError
from sbi_core.training.networks import mlp
from sbi_core.validation import Options

__all__ = ["CnnConfig", "CnnEmbedding", "groups_of", "stack_channels"]


class CnnConfig(Options):
    """Options of the convolutional embedding."""

    channels: tuple[int, ...] = Field(
        default=(16, 32, 64), min_length=1, description="Channels of the convolutions."
    )
    kernel: int = Field(default=3, ge=1, description="Kernel size, odd.")
    pool: int = Field(
        default=1, ge=1, description="Average pooling before the convolutions, pixels per axis."
    )
    hidden: tuple[int, ...] = Field(
        default=(128, 64),
        min_length=1,
        description="Layer widths after the convolutions; the last is the summary size.",
    )


def stack_channels(x: Tensor, x_err: Tensor | None, mask: Tensor | None, axis: int) -> Tensor:
    """Return data, errors and mask joined along the channel axis."""
    return torch.cat([p for p in (x, x_err, mask) if p is not None], dim=axis)


def groups_of(channels: int) -> int:
    """Return the number of GroupNorm groups: at most 8, a divisor of the channels."""
    return math.gcd(channels, 8)


class _Cnn(nn.Module):
    def __init__(self, shape: InputShape, config: CnnConfig) -> None:
        super().__init__()
        self.axes = len(shape.x) - 1
        planes = shape.x[0] * (1 + shape.has_err + shape.has_mask)
        convolution: type[nn.Module] = nn.Conv2d if self.axes == 2 else nn.Conv1d
        average: type[nn.Module] = nn.AvgPool2d if self.axes == 2 else nn.AvgPool1d
        layers: list[nn.Module] = [average(config.pool)] if config.pool > 1 else []
        for channels in config.channels:
            layers += [
                convolution(planes, channels, config.kernel, 2, config.kernel // 2),
                nn.GroupNorm(groups_of(channels), channels),
                nn.SiLU(),
            ]
            planes = channels
        self.layers = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            first = shape.x[0] * (1 + shape.has_err + shape.has_mask)
            flat = self.layers(torch.zeros(1, first, *shape.x[1:])).shape[1]
        self.last = mlp(flat + shape.context, config.hidden)
        self.out_features = config.hidden[-1]

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        image = stack_channels(x, x_err, mask, -1 - self.axes)
        lead = image.shape[: -1 - self.axes]
        h: Tensor = self.layers(image.reshape(-1, *image.shape[-1 - self.axes :]))
        h = h.reshape(*lead, -1)
        h = h if context is None else torch.cat([h, context], dim=-1)
        summary: Tensor = self.last(h)
        return summary


class CnnEmbedding(Embedding):
    """Summarise images (C, H, W) or series (C, L) by strided convolutions.

    References
    ----------
    Wu & He 2018, https://arxiv.org/abs/1803.08494

    Examples
    --------
    >>> CnnEmbedding(CnnConfig(pool=2)).build(InputShape((1, 32, 32))).out_features
    64
    """

    name = "cnn"
    config_type = CnnConfig
    config: CnnConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape.

        Raises
        ------
        ConfigError
            If a row is neither (C, H, W) nor (C, L), or smaller than the pooling.
        """
        if len(shape.x) not in (2, 3):
            msg = f"embedding 'cnn' needs x of shape (C, H, W) or (C, L) per object, got {shape.x}"
            raise ConfigError(msg)
        if min(shape.x[1:]) < self.config.pool:
            msg = f"embedding 'cnn': pool = {self.config.pool} is larger than the data {shape.x}"
            raise ConfigError(msg)
        return _Cnn(shape, self.config)
