r"""Prior families: density, sampler, and the map to unconstrained space."""

from __future__ import annotations

from collections.abc import Mapping

from sbi_core.priors.families.base import CLAMP, Family
from sbi_core.priors.families.continuous import (
    Beta,
    HalfNormal,
    LogNormal,
    LogUniform,
    Normal,
    StudentT,
    Table,
    TruncNormal,
    Uniform,
)
from sbi_core.priors.families.discrete import Discrete, Fixed, Implicit, Integer
from sbi_core.priors.families.joint import Dirichlet, MvNormal, Sticks

__all__ = ["CLAMP", "FAMILIES", "Family"]

FAMILIES: Mapping[str, type[Family]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "normal": Normal,
    "truncnormal": TruncNormal,
    "halfnormal": HalfNormal,
    "lognormal": LogNormal,
    "studentt": StudentT,
    "beta": Beta,
    "table": Table,
    "mvnormal": MvNormal,
    "dirichlet": Dirichlet,
    "sticks": Sticks,
    "integer": Integer,
    "discrete": Discrete,
    "fixed": Fixed,
    "implicit": Implicit,
}
