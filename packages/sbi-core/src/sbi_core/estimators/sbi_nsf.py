"""The neural spline flow of sbi (nflows), for comparison.

The network is built by sbi and trained by our loop in unconstrained space.

References:
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    | sbi, https://sbi.readthedocs.io
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head

__all__ = ["SbiNsfConfig", "SbiNsfEstimator"]


class SbiNsfConfig(BaseModel):
    """Options of sbi's neural spline flow; the defaults are sbi's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=50, ge=1, description="Hidden units per layer.")
    transforms: int = Field(default=5, ge=1, description="Spline transformations.")
    bins: int = Field(default=10, ge=2, description="Bins of the splines.")


class SbiNsfEstimator(FlowEstimator):
    """Neural spline flow as built by the sbi package (optional dependency).

    Parameters
    ----------
    config
        Options.

    References
    ----------
    Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> SbiNsfEstimator()
    SbiNsfEstimator(hidden=50 transforms=5 bins=10; not trained)
    """

    name = "sbi-nsf"
    config_type = SbiNsfConfig
    config: SbiNsfConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            If sbi is not installed.
        """
        from sbi_core.adapters.sbi import nsf_head

        c = self.config
        return nsf_head(features, dim, hidden=c.hidden, transforms=c.transforms, bins=c.bins)
