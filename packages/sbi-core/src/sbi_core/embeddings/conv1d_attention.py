r"""Strided one-dimensional convolutions and attention pooling: for spectra.

.. math:: e = \rho\Big(\Big[\sum_l a_{ml}\,v_l\Big]_{m=1..M}\Big), \qquad
          a_{m\cdot} = \mathrm{softmax}_l\big(q_m \cdot k_l\big)

over the positions *l* after the convolutions, with *M* learned queries. The wavelength position is
an input channel, so that lines are identified by their place. Positions whose receptive field was
not observed get zero attention; so do all positions of an object without observed elements.

References:
    | Set Transformer (Lee et al., 2019), https://arxiv.org/abs/1810.00825 (pooling by attention)
    | Melchior et al. 2023, https://arxiv.org/abs/2211.07890 (attention over galaxy spectra)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.embeddings.cnn import groups_of, stack_channels
from sbi_core.errors import ConfigError
from sbi_core.training.networks import mlp
from sbi_core.validation import Options

__all__ = ["Conv1dAttentionConfig", "Conv1dAttentionEmbedding"]


class _Preset(NamedTuple):
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    queries: int
    hidden: tuple[int, ...]


_PRESETS = {
    "small": _Preset((16, 32), (7, 5), (4, 4), 2, (64, 32)),
    "medium": _Preset((32, 64, 128), (11, 7, 5), (4, 4, 2), 4, (128, 64)),
    "large": _Preset((64, 128, 256, 256), (11, 7, 5, 5), (4, 4, 2, 2), 8, (256, 128)),
}


class Conv1dAttentionConfig(Options):
    """Options of the embedding of spectra; the preset sets those that are left out."""

    preset: Literal["small", "medium", "large"] = Field(
        default="medium",
        description="Network size; small: hundreds of pixels, medium: thousands, large: more.",
    )
    channels: tuple[int, ...] | None = Field(
        default=None, description="Channels of the convolutions."
    )
    kernels: tuple[int, ...] | None = Field(
        default=None, description="Kernel sizes of the convolutions."
    )
    strides: tuple[int, ...] | None = Field(
        default=None, description="Strides of the convolutions."
    )
    queries: int | None = Field(
        default=None, ge=1, description="Number of learned attention queries."
    )
    hidden: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Layer widths after pooling; the last is the summary size.",
    )

    def resolved(self) -> _Preset:
        """Return the preset, with the given options changed.

        Raises
        ------
        ConfigError
            If channels, kernels and strides differ in length.
        """
        given = {k: getattr(self, k) for k in _Preset._fields}
        made = _PRESETS[self.preset]._replace(**{k: v for k, v in given.items() if v is not None})
        if not len(made.channels) == len(made.kernels) == len(made.strides) > 0:
            msg = (
                "embedding 'conv1d-attention' needs as many kernels and strides as channels, got "
                f"{len(made.kernels)} and {len(made.strides)} for {len(made.channels)}"
            )
            raise ConfigError(msg)
        return made


class _Conv1dAttention(nn.Module):
    def __init__(self, shape: InputShape, preset: _Preset) -> None:
        super().__init__()
        self.flat = len(shape.x) == 1
        planes, length = (1, shape.x[0]) if self.flat else shape.x
        planes = planes * (1 + shape.has_err + shape.has_mask) + 1
        self.register_buffer("position", torch.linspace(-1.7, 1.7, length), persistent=False)
        layers: list[nn.Module] = []
        seen: list[nn.Module] = []
        stack = zip(preset.channels, preset.kernels, preset.strides, strict=True)
        for channels, kernel, stride in stack:
            layers += [
                nn.Conv1d(planes, channels, kernel, stride, kernel // 2),
                nn.GroupNorm(groups_of(channels), channels),
                nn.SiLU(),
            ]
            seen.append(nn.MaxPool1d(kernel, stride, kernel // 2))
            planes = channels
        self.layers, self.seen = nn.Sequential(*layers), nn.Sequential(*seen)
        self.keys_values = nn.Conv1d(planes, 2 * planes, 1)
        self.queries = nn.Parameter(torch.randn(preset.queries, planes) / planes**0.5)
        self.last = mlp(preset.queries * planes + shape.context, preset.hidden)
        self.out_features = preset.hidden[-1]

    position: Tensor

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        parts = [p.unsqueeze(-2) if self.flat and p is not None else p for p in (x, x_err, mask)]
        assert parts[0] is not None
        spectrum = stack_channels(parts[0], parts[1], parts[2], -2)
        lead = spectrum.shape[:-2]
        rows = spectrum.reshape(-1, *spectrum.shape[-2:])
        where = self.position.to(rows.dtype).expand(len(rows), 1, -1)
        keys, values = self.keys_values(self.layers(torch.cat([rows, where], 1))).chunk(2, dim=1)
        score = torch.einsum("mc,ncl->nml", self.queries, keys)
        if parts[2] is not None:
            field = parts[2].reshape(len(rows), -1, rows.shape[-1]).amax(1, keepdim=True)
            score = score.masked_fill(self.seen(field) == 0, -torch.inf)
            # without any observed element all scores are -inf: no attention instead of NaN
            attention = torch.nan_to_num(score.softmax(-1), nan=0.0)
        else:
            attention = score.softmax(-1)
        h = torch.einsum("nml,ncl->nmc", attention, values).reshape(*lead, -1)
        h = h if context is None else torch.cat([h, context], dim=-1)
        summary: Tensor = self.last(h)
        return summary


class Conv1dAttentionEmbedding(Embedding):
    """Summarise spectra (L,) or (C, L) by convolutions and attention pooling.

    References
    ----------
    Lee et al. 2019, https://arxiv.org/abs/1810.00825

    Examples
    --------
    >>> config = Conv1dAttentionConfig(preset="small")
    >>> Conv1dAttentionEmbedding(config).build(InputShape((500,), has_mask=True)).out_features
    32
    """

    name = "conv1d-attention"
    config_type = Conv1dAttentionConfig
    config: Conv1dAttentionConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape.

        Raises
        ------
        ConfigError
            If a row is neither (L,) nor (C, L), or options contradict each other.
        """
        if len(shape.x) not in (1, 2):
            msg = (
                "embedding 'conv1d-attention' needs x of shape (L,) or (C, L) per object, "
                f"got {shape.x}"
            )
            raise ConfigError(msg)
        return _Conv1dAttention(shape, self.config.resolved())
