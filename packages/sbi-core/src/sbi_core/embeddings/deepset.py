r"""Deep set: members are embedded, averaged and counted.

.. math:: h_j = \phi(x_j, \sigma_j, m_j), \qquad
          e = \rho\left(\left[\frac{\sum_j s_j h_j}{\sum_j s_j},\ \log(1 + N)\right]\right),
          \qquad N = \sum_j s_j

with :math:`s_j = 1` where a member exists, i.e. where any of its features was observed. The mean
keeps the input of :math:`\rho` at the same scale for every N; the count gives its precision.

References:
    | Deep Sets (Zaheer et al., 2017), https://arxiv.org/abs/1703.06114
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.errors import ConfigError
from sbi_core.training.networks import mlp
from sbi_core.validation import Options

__all__ = ["DeepsetConfig", "DeepsetEmbedding", "members"]


class DeepsetConfig(Options):
    """Options of the deep set."""

    member: tuple[int, ...] = Field(
        default=(128, 128), min_length=1, description="Layer widths of the network of one member."
    )
    hidden: tuple[int, ...] = Field(
        default=(128, 64),
        min_length=1,
        description="Layer widths of the network of the mean; the last is the summary size.",
    )


def members(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1.0 where a member of the set exists, (..., N), for x (..., N, d)."""
    return torch.ones_like(x[..., 0]) if mask is None else mask.amax(-1)


class _Deepset(nn.Module):
    def __init__(self, shape: InputShape, config: DeepsetConfig) -> None:
        super().__init__()
        size = shape.x[-1] * (1 + shape.has_err + shape.has_mask)
        self.member = mlp(size, config.member)
        self.last = mlp(config.member[-1] + 1 + shape.context, config.hidden)
        self.out_features = config.hidden[-1]

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        h: Tensor = self.member(torch.cat([p for p in (x, x_err, mask) if p is not None], -1))
        s = members(x, mask).unsqueeze(-1)
        # where, not product: the output for padding may be inf or NaN
        total = torch.where(s > 0, h, 0.0).sum(-2)
        count = s.sum(-2)
        parts = [total / count.clamp(min=1.0), count.log1p()]
        if context is not None:
            parts.append(context)
        summary: Tensor = self.last(torch.cat(parts, dim=-1))
        return summary


class DeepsetEmbedding(Embedding):
    """Summarise sets (N, d), independently of the order of members and of padding.

    References
    ----------
    Zaheer et al. 2017, https://arxiv.org/abs/1703.06114

    Examples
    --------
    >>> DeepsetEmbedding().build(InputShape((30, 4), has_mask=True)).out_features
    64
    """

    name = "deepset"
    config_type = DeepsetConfig
    config: DeepsetConfig
    takes_sets = True

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape.

        Raises
        ------
        ConfigError
            If a row is not (N, d).
        """
        if len(shape.x) != 2:
            msg = f"embedding 'deepset' needs x of shape (members, features), got {shape.x}"
            raise ConfigError(msg)
        return _Deepset(shape, self.config)
