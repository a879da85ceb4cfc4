"""Constants, and samplers without a density."""

from __future__ import annotations

import numpy as np

from sbi_core.priors.families.base import F64, Family, Values

__all__ = ["Fixed", "Implicit"]


class Fixed(Family):
    """A constant: a component of theta that is not inferred and has no z."""

    keys = ("value",)

    @classmethod
    def z_size(cls, v: Values) -> int:
        return 0

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v["value"]], float), np.array([v["value"]], float)

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        return np.where(cls.inside(v, x), 0.0, -np.inf)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        return np.full((n, 1), float(v["value"]))

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        return np.empty((len(x), 0))

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        return np.full((len(z), 1), float(v["value"]))

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v["value"]], float), np.zeros(1)


class Implicit(Family):
    """A sampler without density: ``sampler`` names it, ``spec`` holds its settings.

    Only the simulator that declares it can draw from it (:meth:`Simulator.draw`).
    """

    keys = ("sampler",)
    optional = ("spec", "low", "high", "size")
    has_density = False

    @classmethod
    def size(cls, v: Values) -> int:
        return int(v.get("size", 1))

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        d = cls.size(v)
        return np.full(d, v.get("low", -np.inf)), np.full(d, v.get("high", np.inf))
