"""Neural posterior score estimation with the network of sbi.

The loss is denoising score matching; draws and densities follow the probability-flow equation
(:mod:`sbi_core.adapters.sbi`). Training is quick, a density costs hundreds of network passes: take
it where its networks help, not where many densities are needed.

References:
    | Score-based generative modeling (Song et al., 2020), https://arxiv.org/abs/2011.13456
    | Compositional score modeling (Geffner et al., 2022), https://arxiv.org/abs/2209.14249
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head

__all__ = ["SbiNpseConfig", "SbiNpseEstimator"]


class SbiNpseConfig(BaseModel):
    """Options of sbi's score network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=100, ge=1, description="Hidden units per layer.")
    layers: int = Field(default=5, ge=1, description="Layers.")
    sde: Literal["ve", "vp", "subvp"] = Field(default="vp", description="How noise is added.")
    steps: int = Field(default=40, ge=2, description="Runge-Kutta steps of draws and densities.")


class SbiNpseEstimator(FlowEstimator):
    """Posterior from a score network as built by the sbi package (optional dependency).

    Parameters
    ----------
    config
        Options.

    References
    ----------
    Geffner et al. 2022, https://arxiv.org/abs/2209.14249

    Examples
    --------
    >>> SbiNpseEstimator()
    SbiNpseEstimator(hidden=100 layers=5 sde='vp' steps=40; not trained)
    """

    name = "sbi-npse"
    config_type = SbiNpseConfig
    config: SbiNpseConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            If sbi is not installed.
        """
        from sbi_core.adapters.sbi import score_head

        c = self.config
        return score_head(features, dim, hidden=c.hidden, layers=c.layers, sde=c.sde, steps=c.steps)
