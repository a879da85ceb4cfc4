"""Estimators with networks of the sbi package, for comparison with published work.

sbi builds the network; standardisation, training and the map to the unconstrained space are ours.
``sbi-maf`` and ``sbi-nsf`` are flows over nflows. ``sbi-npse`` and ``sbi-fmpe`` learn a vector
field (:mod:`sbi_core.adapters.sbi`): they train quickly, but a density costs hundreds of network
passes.

References:
    | sbi, https://sbi.readthedocs.io
    | nflows, https://github.com/bayesiains/nflows
    | Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017),
    | https://arxiv.org/abs/1705.07057
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    | Score-based generative modeling (Song et al., 2020), https://arxiv.org/abs/2011.13456
    | Compositional score modeling (Geffner et al., 2022), https://arxiv.org/abs/2209.14249
    | Flow Matching for Generative Modeling (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
    | Flow Matching for Scalable SBI (Wildberger et al., 2023), https://arxiv.org/abs/2305.17161
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sbi_core.adapters.sbi import build_head
from sbi_core.estimators.base import FlowEstimator
from sbi_core.training.networks import Head
from sbi_core.validation import Options

__all__ = [
    "SbiEstimator",
    "SbiFmpeConfig",
    "SbiFmpeEstimator",
    "SbiMafConfig",
    "SbiMafEstimator",
    "SbiNpseConfig",
    "SbiNpseEstimator",
    "SbiNsfConfig",
    "SbiNsfEstimator",
]


class SbiMafConfig(Options):
    """Options of sbi's masked autoregressive flow; the defaults are those of Buck et al. 2025."""

    hidden: int = Field(default=8, ge=1, description="Hidden units per layer.")
    transforms: int = Field(default=4, ge=2, description="Autoregressive transformations.")


class SbiNsfConfig(Options):
    """Options of sbi's neural spline flow; the defaults are sbi's."""

    hidden: int = Field(default=50, ge=1, description="Hidden units per layer.")
    transforms: int = Field(default=5, ge=1, description="Spline transformations.")
    bins: int = Field(default=10, ge=2, description="Bins of the splines.")


class SbiNpseConfig(Options):
    """Options of sbi's score network."""

    hidden: int = Field(default=100, ge=1, description="Hidden units per layer.")
    layers: int = Field(default=5, ge=1, description="Layers.")
    sde: Literal["ve", "vp", "subvp"] = Field(
        default="vp",
        description="Noise process: variance exploding, preserving or sub-VP.",
    )
    steps: int = Field(
        default=40, ge=2, description="Runge-Kutta steps for sampling and for densities."
    )


class SbiFmpeConfig(Options):
    """Options of sbi's flow-matching network."""

    hidden: int = Field(default=100, ge=1, description="Hidden units per layer.")
    layers: int = Field(default=5, ge=1, description="Layers.")
    steps: int = Field(
        default=30, ge=2, description="Runge-Kutta steps for sampling and for densities."
    )


class SbiEstimator(FlowEstimator):
    """A network of the sbi package; subclasses give its name and its options."""

    def build_head(self, features: int, dim: int) -> Head:
        """Return a new density of ``dim`` numbers given ``features`` numbers.

        Raises
        ------
        ConfigError
            If the network cannot describe so few parameters, or sbi cannot be imported.
        """
        return build_head(self.name, features, dim, self.config.model_dump())


class SbiMafEstimator(SbiEstimator):
    """Masked autoregressive flow of sbi (Buck et al. 2025, https://arxiv.org/abs/2503.02456).

    Examples
    --------
    >>> SbiMafEstimator()
    SbiMafEstimator(hidden=8 transforms=4; not trained)
    """

    name = "sbi-maf"
    config_type = SbiMafConfig


class SbiNsfEstimator(SbiEstimator):
    """Neural spline flow of sbi (Durkan et al. 2019).

    Examples
    --------
    >>> SbiNsfEstimator()
    SbiNsfEstimator(hidden=50 transforms=5 bins=10; not trained)
    """

    name = "sbi-nsf"
    config_type = SbiNsfConfig


class SbiNpseEstimator(SbiEstimator):
    """Score network of sbi (Geffner et al. 2022).

    Examples
    --------
    >>> SbiNpseEstimator()
    SbiNpseEstimator(hidden=100 layers=5 sde='vp' steps=40; not trained)
    """

    name = "sbi-npse"
    config_type = SbiNpseConfig


class SbiFmpeEstimator(SbiEstimator):
    """Flow-matching network of sbi (Wildberger et al. 2023).

    Examples
    --------
    >>> SbiFmpeEstimator()
    SbiFmpeEstimator(hidden=100 layers=5 steps=30; not trained)
    """

    name = "sbi-fmpe"
    config_type = SbiFmpeConfig
