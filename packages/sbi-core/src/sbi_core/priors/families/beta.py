"""The beta distribution on an interval."""

from __future__ import annotations

import numpy as np
from scipy import special

from sbi_core.priors.families.base import F64, Family, Values, positive

__all__ = ["Beta"]


class Beta(Family):
    """Beta(a, b), stretched to [low, high] when these are given."""

    keys = ("a", "b")
    optional = ("low", "high")

    @classmethod
    def check(cls, v: Values) -> None:
        positive(v, "a", "b")
        low, high = v.get("low", 0.0), v.get("high", 1.0)
        if not low < high or not np.isfinite([low, high]).all():
            msg = f"'low' ({low}) must be below 'high' ({high}), both finite"
            raise ValueError(msg)

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v.get("low", 0.0)]), np.array([v.get("high", 1.0)])

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        low, high = cls.support(v)
        return np.asarray(special.betainc(v["a"], v["b"], (x - low) / (high - low)))

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        low, high = cls.support(v)
        return np.asarray(low + (high - low) * special.betaincinv(v["a"], v["b"], u))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        low, high = cls.support(v)
        t = (x[:, 0] - low) / (high - low)
        ok = cls.inside(v, x)
        t = np.where(ok, t, 0.5)
        log_p = special.xlogy(v["a"] - 1, t) + special.xlog1py(v["b"] - 1, -t)
        return np.where(ok, log_p - special.betaln(v["a"], v["b"]) - np.log(high - low), -np.inf)
