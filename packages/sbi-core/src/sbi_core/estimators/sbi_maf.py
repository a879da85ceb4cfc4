"""The masked autoregressive flow of sbi (nflows), for comparison with published work.

The defaults are the published configuration: 8 hidden units, 4 transforms. The network is built
by sbi and trained by our loop in unconstrained space.

References:
    | Buck et al. 2025, https://arxiv.org/abs/2503.02456
    | Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
    | https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sbi_core.errors import ConfigError
from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head

__all__ = ["SbiMafConfig", "SbiMafEstimator"]


class SbiMafConfig(BaseModel):
    """Options of sbi's masked autoregressive flow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=8, ge=1, description="Hidden units per layer.")
    transforms: int = Field(default=4, ge=2, description="Autoregressive transformations.")


class SbiMafEstimator(FlowEstimator):
    """Masked autoregressive flow as built by the sbi package (optional dependency).

    Parameters
    ----------
    config
        Options.

    References
    ----------
    Buck et al. 2025, https://arxiv.org/abs/2503.02456

    Examples
    --------
    >>> SbiMafEstimator()
    SbiMafEstimator(hidden=8 transforms=4; not trained)
    """

    name = "sbi-maf"
    config_type = SbiMafConfig
    config: SbiMafConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            For one parameter (the flow would be a Gaussian), or if sbi is not installed.
        """
        from sbi_core.adapters.sbi import maf_head

        if dim == 1:
            msg = "a masked autoregressive flow of one parameter is a Gaussian: use 'nsf'"
            raise ConfigError(msg)
        return maf_head(features, dim, hidden=self.config.hidden, transforms=self.config.transforms)
