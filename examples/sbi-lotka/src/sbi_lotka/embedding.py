r"""A summary of short series with gaps.

.. math:: h = \rho\,(\mathrm{conv}_2 \circ \mathrm{conv}_1\,[x, m])

Values and mask are channels of convolutions over time, followed by a perceptron on the ordered
result, because the time of an event is informative.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sbi_core import ConfigError, InputShape

__all__ = ["SeriesConfig", "SeriesEmbedding"]


class SeriesConfig(BaseModel):
    """Options of the embedding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(24, ge=1, description="Channels of both convolutions.")
    kernel: int = Field(5, ge=1, description="Width of the kernels, surveys.")
    width: int = Field(64, ge=1, description="Width of the summary.")


class SeriesEmbedding:
    """Convolutions over series of shape (species, surveys)."""

    name: ClassVar[str] = "lotka-series"
    takes_sets: ClassVar[bool] = False

    def __init__(self, config: SeriesConfig | None = None) -> None:
        self.config = config or SeriesConfig()

    def build(self, shape: InputShape) -> nn.Module:
        """Return a fresh module for series of that shape.

        Raises
        ------
        ConfigError
            If a row is not (species, surveys).
        """
        if len(shape.x) != 2:
            msg = f"embedding '{self.name}' needs x of shape (species, surveys), got {shape.x}"
            raise ConfigError(msg)
        return _Series(shape, self.config)


class _Series(nn.Module):
    def __init__(self, shape: InputShape, config: SeriesConfig) -> None:
        super().__init__()
        species, surveys = shape.x
        self.out_features = config.width
        self.convolve = nn.Sequential(
            nn.Conv1d(2 * species, config.channels, config.kernel, padding="same"),
            nn.SiLU(),
            nn.Conv1d(config.channels, config.channels, config.kernel, padding="same"),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.read = nn.Sequential(
            nn.Linear(config.channels * surveys + shape.context, config.width), nn.SiLU()
        )

    def forward(
        self,
        x: Tensor,
        x_err: Tensor | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        seen = torch.ones_like(x) if mask is None else mask
        h = self.convolve(torch.cat([x, seen], 1))
        summary: Tensor = self.read(h if context is None else torch.cat([h, context], 1))
        return summary
