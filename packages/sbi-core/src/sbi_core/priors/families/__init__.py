r"""Prior families: density, sampler, distribution function and its inverse.

Each family maps to unconstrained space by :math:`z = \Phi^{-1}(F(\theta))`, with *F* its
distribution function, so that the prior is exactly :math:`N(0, I)` in *z*
(:mod:`sbi_core.priors.families.base`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sbi_core.priors.families.base import CLAMP, Family
from sbi_core.priors.families.beta import Beta
from sbi_core.priors.families.discrete import Discrete, Integer
from sbi_core.priors.families.multivariate import MvNormal
from sbi_core.priors.families.normal import HalfNormal, LogNormal, Normal, TruncNormal
from sbi_core.priors.families.other import Fixed, Implicit
from sbi_core.priors.families.simplex import Dirichlet, Sticks
from sbi_core.priors.families.table import Table
from sbi_core.priors.families.uniform import LogUniform, Uniform

__all__ = ["CLAMP", "FAMILIES", "Discrete", "Family", "family"]

FAMILIES: Mapping[str, type[Family]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "normal": Normal,
    "truncnormal": TruncNormal,
    "halfnormal": HalfNormal,
    "lognormal": LogNormal,
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


def family(name: str, on_unknown: Callable[[str], Exception]) -> type[Family]:
    """Return the family of that name, or raise what ``on_unknown`` makes of it."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise on_unknown(name) from None
