"""Normal priors: plain, truncated, one-sided, and of the logarithm."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import special

from sbi_core.priors.families.base import F64, Family, Values, positive

__all__ = ["HalfNormal", "LogNormal", "Normal", "TruncNormal"]

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SMALLEST_MASS = 1e-300  # of a truncated normal; 37 sigma from its mean there is no less


class Normal(Family):
    """Normal with mean loc and standard deviation scale; z is the plain standardisation."""

    keys = ("loc", "scale")

    @classmethod
    def check(cls, v: Values) -> None:
        positive(v, "scale")

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        return np.asarray(special.ndtr((x - v["loc"]) / v["scale"]))

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        return np.asarray(v["loc"] + v["scale"] * np.asarray(special.ndtri(u)))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        z = (x[:, 0] - v["loc"]) / v["scale"]
        return np.asarray(-0.5 * z**2 - np.log(v["scale"]) - _LOG_SQRT_2PI)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        return np.asarray(v["loc"] + v["scale"] * rng.standard_normal((n, 1)))

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        return np.asarray((x - v["loc"]) / v["scale"])

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        return np.asarray(v["loc"] + v["scale"] * z)

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v["loc"]]), np.array([v["scale"]])


class TruncNormal(Family):
    """Normal(loc, scale) restricted to [low, high]; either end may be left out."""

    keys = ("loc", "scale")
    optional: ClassVar[tuple[str, ...]] = ("low", "high")

    @classmethod
    def _ends(cls, v: Values) -> tuple[float, float]:
        return float(v.get("low", -np.inf)), float(v.get("high", np.inf))

    @classmethod
    def check(cls, v: Values) -> None:
        positive(v, "scale")
        low, high = cls._ends(v)
        if not low < high:
            msg = f"'low' ({low}) must be below 'high' ({high})"
            raise ValueError(msg)
        a, b, _ = cls._standard(v)
        if not special.ndtr(b) - special.ndtr(a) > _SMALLEST_MASS:
            msg = f"[{low}, {high}] lies too far from 'loc' ({v['loc']}) for its 'scale'"
            raise ValueError(msg)

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        low, high = cls._ends(v)
        return np.array([low]), np.array([high])

    @classmethod
    def _standard(cls, v: Values) -> tuple[float, float, float]:
        """Standardised ends and the sign that puts the bulk into the accurate lower tail."""
        low, high = ((e - v["loc"]) / v["scale"] for e in cls._ends(v))
        sign = -1.0 if low > 0 else 1.0
        return (low, high, sign) if sign > 0 else (-high, -low, sign)

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        a, b, sign = cls._standard(v)
        t = np.clip(sign * (x - v["loc"]) / v["scale"], a, b)
        u = (special.ndtr(t) - special.ndtr(a)) / (special.ndtr(b) - special.ndtr(a))
        return np.asarray(u if sign > 0 else 1 - u)

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        a, b, sign = cls._standard(v)
        w = u if sign > 0 else 1 - u
        t = special.ndtri(special.ndtr(a) + w * (special.ndtr(b) - special.ndtr(a)))
        low, high = cls._ends(v)
        return np.asarray(np.clip(v["loc"] + v["scale"] * sign * np.clip(t, a, b), low, high))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        a, b, _ = cls._standard(v)
        z = (x[:, 0] - v["loc"]) / v["scale"]
        norm = np.log(special.ndtr(b) - special.ndtr(a))
        inside = -0.5 * z**2 - np.log(v["scale"]) - _LOG_SQRT_2PI - norm
        return np.where(cls.inside(v, x), inside, -np.inf)


class HalfNormal(TruncNormal):
    """Normal(loc, scale) restricted to theta >= loc."""

    optional = ()

    @classmethod
    def _ends(cls, v: Values) -> tuple[float, float]:
        return float(v["loc"]), np.inf


class LogNormal(Family):
    """Exponential of a Normal(loc, scale); loc and scale are in natural logarithm."""

    keys = ("loc", "scale")

    @classmethod
    def check(cls, v: Values) -> None:
        positive(v, "scale")

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        return np.array([0.0]), np.array([np.inf])

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        with np.errstate(divide="ignore"):
            return np.asarray(special.ndtr((np.log(x) - v["loc"]) / v["scale"]))

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        return np.asarray(np.exp(v["loc"] + v["scale"] * special.ndtri(u)))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        ok = x[:, 0] > 0
        y = np.log(np.where(ok, x[:, 0], 1.0))
        z = (y - v["loc"]) / v["scale"]
        return np.where(ok, -0.5 * z**2 - np.log(v["scale"]) - _LOG_SQRT_2PI - y, -np.inf)

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        return np.asarray((np.log(x) - v["loc"]) / v["scale"])

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(v["loc"] + v["scale"] * z))
