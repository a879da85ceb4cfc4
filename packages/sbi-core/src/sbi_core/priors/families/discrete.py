"""Priors without a continuous coordinate: discrete ones, constants, and samplers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_core.priors.families.base import F64, Family

__all__ = ["Discrete", "Fixed", "Implicit", "Integer"]


class _Discrete(Family):
    """Finitely many values with probabilities."""

    continuous: ClassVar[bool] = False
    pmf: ArrayLike | None

    @property
    def _values(self) -> F64:
        """The values in the order of ``pmf``."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        values, pmf = self.table
        if len(np.unique(values)) != len(values) or values.shape != pmf.shape:
            msg = "'values' must be distinct and have one probability each"
            raise ValueError(msg)
        if (pmf < 0).any() or not np.isclose(pmf.sum(), 1):
            msg = "'pmf' must be non-negative and sum to 1"
            raise ValueError(msg)

    @cached_property
    def table(self) -> tuple[F64, F64]:
        """Values and probabilities, each (k,)."""
        values = self._values
        pmf = np.full(values.size, 1 / max(values.size, 1)) if self.pmf is None else self.pmf
        return values, np.asarray(pmf, float)

    @property
    def ends(self) -> tuple[float, float]:
        return float(self.table[0].min()), float(self.table[0].max())

    def inside(self, x: F64) -> NDArray[np.bool_]:
        return np.asarray(np.isin(x[:, 0], self.table[0]))

    def log_prob(self, x: F64) -> F64:
        values, pmf = self.table
        order = np.argsort(values)
        k = np.clip(np.searchsorted(values[order], x[:, 0]), 0, values.size - 1)
        with np.errstate(divide="ignore"):
            log_p = np.log(pmf[order][k])
        return np.where(self.inside(x), log_p, -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        values, pmf = self.table
        k = np.searchsorted(np.cumsum(pmf), rng.random(n) * (1 - 1e-12), side="right")
        return values[np.clip(k, 0, values.size - 1)][:, None]

    def moments(self) -> tuple[F64, F64]:
        values, pmf = self.table
        mean = (values * pmf).sum()
        return np.array([mean]), np.array([np.sqrt(((values - mean) ** 2 * pmf).sum())])


@dataclass(frozen=True, eq=False)
class Discrete(_Discrete):
    """One of `values`, with probabilities `pmf` (equal when left out)."""

    domain: ClassVar[str] = "the values"
    values: ArrayLike
    pmf: ArrayLike | None = None

    @property
    def _values(self) -> F64:
        return np.asarray(self.values, float)


@dataclass(frozen=True, eq=False)
class Integer(_Discrete):
    """Integers from `low` to `high`, with probabilities `pmf` (equal when left out)."""

    domain: ClassVar[str] = "low, low + 1, ..., high"
    low: int
    high: int
    pmf: ArrayLike | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            msg = f"'low' ({self.low}) must not exceed 'high' ({self.high})"
            raise ValueError(msg)
        super().__post_init__()

    @property
    def _values(self) -> F64:
        return np.arange(int(self.low), int(self.high) + 1, dtype=float)


@dataclass(frozen=True, eq=False)
class Fixed(Family):
    """The constant `value`: a column of theta that is not inferred and has no z."""

    domain: ClassVar[str] = "the value"
    value: float

    @property
    def z_size(self) -> int:
        return 0

    @property
    def ends(self) -> tuple[float, float]:
        return float(self.value), float(self.value)

    def log_prob(self, x: F64) -> F64:
        return np.where(self.inside(x), 0.0, -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return np.full((n, 1), float(self.value))

    def to_z(self, x: F64) -> F64:
        return np.empty((len(x), 0))

    def from_z(self, z: F64) -> F64:
        return np.full((len(z), 1), float(self.value))

    def moments(self) -> tuple[F64, F64]:
        return np.array([self.value], float), np.zeros(1)


@dataclass(frozen=True, eq=False)
class Implicit(Family):
    """A sampler without density: its name `sampler` and its settings `spec`, `size` columns.

    Only the simulator that declares it can draw from it (:meth:`Simulator.draw`).
    """

    domain: ClassVar[str] = "[low, high]"
    has_density: ClassVar[bool] = False
    sampler: str
    spec: Any = None
    low: float = -np.inf
    high: float = np.inf
    size: int = 1
