"""Flow-matching posterior estimation with the network of sbi.

The loss is flow matching; draws and densities follow the learned velocity
(:mod:`sbi_core.adapters.sbi`). Training is quick, a density costs hundreds of network passes.

References:
    | Flow Matching for Scalable SBI (Wildberger et al., 2023), https://arxiv.org/abs/2305.17161
    | Flow Matching for Generative Modeling (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head

__all__ = ["SbiFmpeConfig", "SbiFmpeEstimator"]


class SbiFmpeConfig(BaseModel):
    """Options of sbi's flow-matching network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=100, ge=1, description="Hidden units per layer.")
    layers: int = Field(default=5, ge=1, description="Layers.")
    steps: int = Field(default=30, ge=2, description="Runge-Kutta steps of draws and densities.")


class SbiFmpeEstimator(FlowEstimator):
    """Posterior from flow matching as built by the sbi package (optional dependency).

    Parameters
    ----------
    config
        Options.

    References
    ----------
    Wildberger et al. 2023, https://arxiv.org/abs/2305.17161

    Examples
    --------
    >>> SbiFmpeEstimator()
    SbiFmpeEstimator(hidden=100 layers=5 steps=30; not trained)
    """

    name = "sbi-fmpe"
    config_type = SbiFmpeConfig
    config: SbiFmpeConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            If sbi is not installed.
        """
        from sbi_core.adapters.sbi import flow_matching_head

        c = self.config
        return flow_matching_head(features, dim, hidden=c.hidden, layers=c.layers, steps=c.steps)
