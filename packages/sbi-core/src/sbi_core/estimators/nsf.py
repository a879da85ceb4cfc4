r"""Neural spline flow: monotonic rational-quadratic splines, coupling by default.

The splines act on [-5, 5] and are the identity outside; z has unit variance under the proposal.

References:
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    | zuko, https://zuko.readthedocs.io
"""

from __future__ import annotations

import zuko
from pydantic import BaseModel, ConfigDict, Field

from sbi_core.estimators.base import FlowEstimator
from sbi_core.estimators.maf import Passes, ZukoHead
from sbi_core.training.networks import Head

__all__ = ["NsfConfig", "NsfEstimator"]


class NsfConfig(BaseModel):
    """Options of the neural spline flow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transforms: int = Field(default=5, ge=1, description="Number of spline transformations.")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="Layer widths of their networks.")
    bins: int = Field(default=8, ge=2, description="Bins per spline.")
    passes: Passes = Field(
        default=2, description="Passes of the inverse; 0: autoregressive, 2: coupling flow."
    )


class NsfEstimator(FlowEstimator):
    """Neural spline flow (zuko): for multimodal posteriors, edges, and single parameters.

    Parameters
    ----------
    config
        Options.

    References
    ----------
    Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> NsfEstimator(NsfConfig(transforms=3))
    NsfEstimator(transforms=3 hidden=(64, 64) bins=8 passes=2; not trained)
    """

    name = "nsf"
    config_type = NsfConfig
    config: NsfConfig

    def build_head(self, features: int, dim: int) -> Head:
        """Return a new density of ``dim`` numbers given ``features`` numbers."""
        c = self.config
        rest = (
            {} if dim == 1 else {"passes": c.passes or None}
        )  # one parameter: elementwise splines
        flow = zuko.flows.NSF(
            dim, features, c.bins, transforms=c.transforms, hidden_features=c.hidden, **rest
        )
        return ZukoHead(flow, dim)
