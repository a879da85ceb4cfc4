r"""Features of the photometry of a galaxy, and a residual network.

For asinh magnitudes :math:`\mu_b` with mean :math:`\bar\mu` over the observed bands, the 3 B + 5
features are :math:`\mu_b - \bar\mu` (0 where missing, limited to :math:`\pm 12`),
:math:`\log_{10}\sigma_\mu`, the mask, the redshift, the distance modulus DM,
:math:`\bar\mu - \mathrm{DM}`, the number of bands, and

.. math:: a = \Phi^{-1}\big(\mathrm{clip}(\hat u)\big), \qquad
          \hat u = w_0 + w_1\,\bar\mu + w_2\,\mathrm{DM} + \sum_b v_b\,(\mu_b - \bar\mu),

a linear estimate of the unconstrained mass. Its weights start at a constant mass-to-light ratio and
are trained, so that the network need not learn the relation of mass and light.

Asinh magnitudes turn over at zero flux: a bright galaxy whose error is larger than its flux can
have a magnitude 25 from its others. A handful of such colours in 300 000 rows ruled whole steps of
the training (losses up to 1e19), hence the limit of 12.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sbi_core import ConfigError, Embedding, InputShape, counted

__all__ = ["SedConfig", "SedEmbedding"]

_LOW, _RANGE = 7.0, 5.5  # prior of logmstar [dex]
_SOLAR_MAGNITUDE = 4.6  # about that of the Sun in r, AB
_DM_MEAN, _DM_SD = 37.9, 1.3  # of distance moduli, before they are learned from the training set
_CLIP = 1e-4
_FARTHEST = 12.0  # magnitudes from the mean; beyond lie negative fluxes of bright galaxies


class SedConfig(BaseModel):
    """Options of the photometry network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[int, ...] = Field(
        default=(256, 256, 256), min_length=1, description="Widths of the residual layers."
    )


class _Features(nn.Module):
    """The features; ``x`` in magnitudes, errors and context standardised."""

    def __init__(self, n_bands: int) -> None:
        super().__init__()
        self.mass = nn.Linear(n_bands + 2, 1)
        slope = 0.4 / _RANGE
        with torch.no_grad():
            self.mass.weight.zero_()
            self.mass.weight[0, 0] = -10 * slope  # mean magnitude minus 18, over 10
            self.mass.weight[0, 1] = _DM_SD * slope  # standardised distance modulus
            middle = -0.4 * (18.0 - _DM_MEAN - _SOLAR_MAGNITUDE)
            self.mass.bias.fill_((middle - _LOW) / _RANGE)

    def forward(self, x: Tensor, err: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        count = mask.sum(1, keepdim=True)
        mean = (x * mask).sum(1, keepdim=True) / count.clamp_min(1.0)
        level = torch.where(count > 0, (mean - 18.0) / 10.0, torch.zeros_like(mean))
        colour = ((x - mean) * mask).clamp(-_FARTHEST, _FARTHEST)
        u = self.mass(torch.cat([level, context[:, 1:2], colour], 1))
        analytic = torch.special.ndtri(u.clamp(_CLIP, 1 - _CLIP))
        analytic = torch.where(count > 0, analytic, torch.zeros_like(analytic))
        return torch.cat(
            [colour, err * mask, mask, context, level * 4, count / mask.shape[1], analytic], 1
        )


class _Network(nn.Module):
    def __init__(self, config: SedConfig, n_bands: int) -> None:
        super().__init__()
        self.features = _Features(n_bands)
        widths = config.hidden
        self.first = nn.Linear(3 * n_bands + 5, widths[0])
        self.blocks = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.skips = nn.ModuleList(
            nn.Identity() if a == b else nn.Linear(a, b, bias=False)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out_features = widths[-1] + 3 * n_bands + 5

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Return hidden features and, beside them, the plain ones, (n, out_features)."""
        assert x_err is not None
        assert context is not None
        plain = self.features(x, x_err, torch.ones_like(x) if mask is None else mask, context)
        h = nn.functional.silu(self.first(plain))
        for layer, skip in zip(self.blocks, self.skips, strict=True):
            h = skip(h) + nn.functional.silu(layer(h))
        return torch.cat([h, plain], 1)


class SedEmbedding(Embedding):
    """Colours, level, errors, mask and redshift to features.

    Parameters
    ----------
    config
        Options.
    """

    name = "sed-mlp"
    config_type = SedConfig
    config: SedConfig
    raw_input = True  # magnitudes are not standardised: colours are their differences

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module.

        Raises
        ------
        ConfigError
            If data are not bands with errors, redshift and distance modulus.
        """
        if len(shape.x) != 1 or shape.context != 2 or not shape.has_err:
            msg = (
                f"embedding '{self.name}' needs bands with errors and two context columns (z, "
                f"distance_modulus), got x {shape.x} and {counted(shape.context, 'column')}"
            )
            raise ConfigError(msg)
        return _Network(self.config, shape.x[0])
