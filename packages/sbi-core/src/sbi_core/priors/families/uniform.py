"""Uniform priors, of a value or of its logarithm."""

from __future__ import annotations

import numpy as np

from sbi_core.priors.families.base import F64, Family, Values, positive

__all__ = ["LogUniform", "Uniform"]


class Uniform(Family):
    """Uniform on [low, high]."""

    keys = ("low", "high")

    @classmethod
    def check(cls, v: Values) -> None:
        if not v["low"] < v["high"]:
            msg = f"'low' ({v['low']}) must be below 'high' ({v['high']})"
            raise ValueError(msg)

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v["low"]]), np.array([v["high"]])

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        return np.asarray((x - v["low"]) / (v["high"] - v["low"]))

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        return np.asarray(np.clip(v["low"] + u * (v["high"] - v["low"]), v["low"], v["high"]))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        return np.where(cls.inside(v, x), -np.log(v["high"] - v["low"]), -np.inf)


class LogUniform(Uniform):
    """Uniform in log theta on [low, high], low > 0."""

    @classmethod
    def check(cls, v: Values) -> None:
        super().check(v)
        positive(v, "low")

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(x / v["low"]) / np.log(v["high"] / v["low"]))

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        return np.asarray(np.clip(v["low"] * (v["high"] / v["low"]) ** u, v["low"], v["high"]))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        ok = cls.inside(v, x)
        safe = np.where(ok, x[:, 0], v["low"])
        return np.where(ok, -np.log(safe) - np.log(np.log(v["high"] / v["low"])), -np.inf)
