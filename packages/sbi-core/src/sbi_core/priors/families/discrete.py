"""Whole numbers and other finitely many values; they have no z."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sbi_core.priors.families.base import F64, Family, Values

__all__ = ["Discrete", "Integer"]


class Discrete(Family):
    """Finitely many values with probabilities (uniform when these are left out)."""

    keys: ClassVar[tuple[str, ...]] = ("values",)
    optional = ("pmf",)
    continuous = False

    @classmethod
    def check(cls, v: Values) -> None:
        values, pmf = cls.table(v)
        if len(np.unique(values)) != len(values) or values.shape != pmf.shape:
            msg = "'values' must be distinct and have one probability each"
            raise ValueError(msg)
        if (pmf < 0).any() or not np.isclose(pmf.sum(), 1):
            msg = "'pmf' must be non-negative and sum to 1"
            raise ValueError(msg)

    @classmethod
    def table(cls, v: Values) -> tuple[F64, F64]:
        """Return values and probabilities, each (k,)."""
        values = np.asarray(v["values"], float)
        pmf = np.asarray(v.get("pmf", np.full(values.size, 1 / max(values.size, 1))), float)
        return values, pmf

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        values, _ = cls.table(v)
        return np.array([values.min()]), np.array([values.max()])

    @classmethod
    def inside(cls, v: Values, x: F64) -> NDArray[np.bool_]:
        return np.asarray(np.isin(x[:, 0], cls.table(v)[0]))

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        values, pmf = cls.table(v)
        order = np.argsort(values)
        k = np.clip(np.searchsorted(values[order], x[:, 0]), 0, values.size - 1)
        with np.errstate(divide="ignore"):
            log_p = np.log(pmf[order][k])
        return np.where(cls.inside(v, x), log_p, -np.inf)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        values, pmf = cls.table(v)
        k = np.searchsorted(np.cumsum(pmf), rng.random(n) * (1 - 1e-12), side="right")
        return values[np.clip(k, 0, values.size - 1)][:, None]

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        values, pmf = cls.table(v)
        mean = (values * pmf).sum()
        return np.array([mean]), np.array([np.sqrt(((values - mean) ** 2 * pmf).sum())])


class Integer(Discrete):
    """Integers low..high with probabilities (uniform when these are left out)."""

    keys = ("low", "high")

    @classmethod
    def table(cls, v: Values) -> tuple[F64, F64]:
        values = np.arange(int(v["low"]), int(v["high"]) + 1, dtype=float)
        pmf = np.asarray(v.get("pmf", np.full(values.size, 1 / max(values.size, 1))), float)
        return values, pmf

    @classmethod
    def check(cls, v: Values) -> None:
        if not v["low"] <= v["high"]:
            msg = f"'low' ({v['low']}) must not exceed 'high' ({v['high']})"
            raise ValueError(msg)
        super().check(v)
