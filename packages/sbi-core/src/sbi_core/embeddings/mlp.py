"""Fully connected summary network."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.identity import Joined
from sbi_core.training.networks import mlp
from sbi_core.validation import Options

__all__ = ["MlpConfig", "MlpEmbedding"]


class MlpConfig(Options):
    """Options of the MLP embedding."""

    hidden: tuple[int, ...] = Field(
        default=(128, 128),
        min_length=1,
        description="Layer widths; the last is the summary size.",
    )
    layer_norm: bool = Field(default=False, description="Use LayerNorm after every layer.")


class _Mlp(nn.Module):
    def __init__(self, shape: InputShape, config: MlpConfig) -> None:
        super().__init__()
        self.joined = Joined(shape)
        self.layers = mlp(self.joined.out_features, config.hidden, layer_norm=config.layer_norm)
        self.out_features = config.hidden[-1]

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        h: Tensor = self.layers(self.joined(x, x_err, mask, context))
        return h


class MlpEmbedding(Embedding):
    """Summarise data, errors, masks and context with a fully connected network.

    Examples
    --------
    >>> MlpEmbedding(MlpConfig(hidden=(64, 16))).build(InputShape((8,))).out_features
    16
    """

    name = "mlp"
    config_type = MlpConfig
    config: MlpConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape."""
        return _Mlp(shape, self.config)
