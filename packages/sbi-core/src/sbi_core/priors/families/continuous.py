"""Continuous priors of one number.

The formulae are written out because frozen ``scipy.stats`` distributions take 2 to 50 times as long
for the density, give other last bits, and are off by percents at z = 8 (docs/benchmarks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_core.priors.families.base import BELOW_ONE, F64, Family, need_order, need_positive

__all__ = [
    "Beta",
    "HalfNormal",
    "LogNormal",
    "LogUniform",
    "Normal",
    "StudentT",
    "Table",
    "TruncNormal",
    "Uniform",
]

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SMALLEST_MASS = 1e-300  # of a truncated normal; 37 sigma from its mean there is no less
_LEAST = 1e-100  # probability whose quantile of Student's t is computed


@dataclass(frozen=True, eq=False)
class Uniform(Family):
    """Uniform between `low` and `high`."""

    domain: ClassVar[str] = "[low, high]"
    low: float
    high: float

    def __post_init__(self) -> None:
        need_order(self.low, self.high)

    def cdf(self, x: F64) -> F64:
        return np.asarray((x - self.low) / (self.high - self.low))

    def ppf(self, u: F64) -> F64:
        return np.asarray(np.clip(self.low + u * (self.high - self.low), self.low, self.high))

    def log_prob(self, x: F64) -> F64:
        return np.where(self.inside(x), -np.log(self.high - self.low), -np.inf)


@dataclass(frozen=True, eq=False)
class LogUniform(Uniform):
    """Uniform in the logarithm between `low` and `high`, both positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need_positive(low=self.low)

    def cdf(self, x: F64) -> F64:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(x / self.low) / np.log(self.high / self.low))

    def ppf(self, u: F64) -> F64:
        return np.asarray(np.clip(self.low * (self.high / self.low) ** u, self.low, self.high))

    def log_prob(self, x: F64) -> F64:
        ok = self.inside(x)
        safe = np.where(ok, x[:, 0], self.low)
        return np.where(ok, -np.log(safe) - np.log(np.log(self.high / self.low)), -np.inf)


@dataclass(frozen=True, eq=False)
class Normal(Family):
    """Normal with mean `loc` and standard deviation `scale`."""

    clamps: ClassVar[bool] = False
    loc: float
    scale: float

    def __post_init__(self) -> None:
        need_positive(scale=self.scale)

    def log_prob(self, x: F64) -> F64:
        z = (x[:, 0] - self.loc) / self.scale
        return np.asarray(-0.5 * z**2 - np.log(self.scale) - _LOG_SQRT_2PI)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return self.from_z(rng.standard_normal((n, 1)))

    def to_z(self, x: F64) -> F64:
        return np.asarray((x - self.loc) / self.scale)

    def from_z(self, z: F64) -> F64:
        return np.asarray(self.loc + self.scale * z)

    def moments(self) -> tuple[F64, F64]:
        return np.array([self.loc], float), np.array([self.scale], float)


@dataclass(frozen=True, eq=False)
class LogNormal(Family):
    """Exponential of a normal; `loc` and `scale` are those of the natural logarithm."""

    domain: ClassVar[str] = "positive numbers"
    clamps: ClassVar[bool] = False
    loc: float
    scale: float

    def __post_init__(self) -> None:
        need_positive(scale=self.scale)

    @property
    def ends(self) -> tuple[float, float]:
        return 0.0, np.inf

    def ppf(self, u: F64) -> F64:
        return self.from_z(special.ndtri(u))

    def log_prob(self, x: F64) -> F64:
        ok = x[:, 0] > 0
        y = np.log(np.where(ok, x[:, 0], 1.0))
        z = (y - self.loc) / self.scale
        return np.where(ok, -0.5 * z**2 - np.log(self.scale) - _LOG_SQRT_2PI - y, -np.inf)

    def to_z(self, x: F64) -> F64:
        with np.errstate(divide="ignore"):  # -inf at zero
            return np.asarray((np.log(x) - self.loc) / self.scale)

    def from_z(self, z: F64) -> F64:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.loc + self.scale * z))


class _Truncated(Family):
    """A normal of ``loc`` and ``scale`` between two ends."""

    loc: float
    scale: float

    def __post_init__(self) -> None:
        need_positive(scale=self.scale)
        low, high = self.ends
        need_order(low, high)
        a, b, _ = self._standard
        if not special.ndtr(b) - special.ndtr(a) > _SMALLEST_MASS:
            msg = f"[{low}, {high}] lies too far from 'loc' ({self.loc}) for its 'scale'"
            raise ValueError(msg)

    @cached_property
    def _standard(self) -> tuple[float, float, float]:
        """Standardised ends and the sign that puts the bulk into the accurate lower tail."""
        low, high = ((end - self.loc) / self.scale for end in self.ends)
        sign = -1.0 if low > 0 else 1.0
        return (low, high, sign) if sign > 0 else (-high, -low, sign)

    def cdf(self, x: F64) -> F64:
        a, b, sign = self._standard
        t = np.clip(sign * (x - self.loc) / self.scale, a, b)
        u = (special.ndtr(t) - special.ndtr(a)) / (special.ndtr(b) - special.ndtr(a))
        return np.asarray(u if sign > 0 else 1 - u)

    def ppf(self, u: F64) -> F64:
        a, b, sign = self._standard
        w = u if sign > 0 else 1 - u
        mass = special.ndtr(a) + w * (special.ndtr(b) - special.ndtr(a))
        t = special.ndtri(np.clip(mass, _SMALLEST_MASS, BELOW_ONE))
        return np.asarray(np.clip(self.loc + self.scale * sign * np.clip(t, a, b), *self.ends))

    def log_prob(self, x: F64) -> F64:
        a, b, _ = self._standard
        z = (x[:, 0] - self.loc) / self.scale
        norm = np.log(special.ndtr(b) - special.ndtr(a))
        inside = -0.5 * z**2 - np.log(self.scale) - _LOG_SQRT_2PI - norm
        return np.where(self.inside(x), inside, -np.inf)


@dataclass(frozen=True, eq=False)
class TruncNormal(_Truncated):
    """Normal of `loc` and `scale`, restricted to [`low`, `high`]; either end may be left out."""

    domain: ClassVar[str] = "[low, high]"
    loc: float
    scale: float
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False)
class HalfNormal(_Truncated):
    """Upper half of a normal of `loc` and `scale`."""

    domain: ClassVar[str] = "[loc, ∞)"
    loc: float
    scale: float

    @property
    def ends(self) -> tuple[float, float]:
        return float(self.loc), np.inf


@dataclass(frozen=True, eq=False)
class StudentT(Family):
    """Student's t with `df` degrees of freedom: heavy tails, for values with outliers."""

    df: float
    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        need_positive(df=self.df, scale=self.scale)

    def cdf(self, x: F64) -> F64:
        return np.asarray(special.stdtr(self.df, (x - self.loc) / self.scale))

    def ppf(self, u: F64) -> F64:
        return np.asarray(self.loc + self.scale * special.stdtrit(self.df, u.clip(_LEAST)))

    def log_prob(self, x: F64) -> F64:
        t = (x[:, 0] - self.loc) / self.scale
        half = 0.5 * self.df
        norm = special.gammaln(half + 0.5) - special.gammaln(half)
        norm -= 0.5 * np.log(self.df * np.pi) + np.log(self.scale)
        return np.asarray(norm - (half + 0.5) * np.log1p(t**2 / self.df))


@dataclass(frozen=True, eq=False)
class Beta(Family):
    """Beta(`a`, `b`), stretched from [0, 1] to [`low`, `high`] when these are given."""

    domain: ClassVar[str] = "[low, high]"
    a: float
    b: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        need_positive(a=self.a, b=self.b)
        need_order(self.low, self.high)
        if not np.isfinite([self.low, self.high]).all():
            msg = f"'low' ({self.low}) and 'high' ({self.high}) must be finite"
            raise ValueError(msg)

    def cdf(self, x: F64) -> F64:
        t = (x - self.low) / (self.high - self.low)
        return np.asarray(special.betainc(self.a, self.b, t))

    def ppf(self, u: F64) -> F64:
        t = special.betaincinv(self.a, self.b, u)
        return np.asarray(self.low + (self.high - self.low) * t)

    def log_prob(self, x: F64) -> F64:
        ok = self.inside(x)
        width = self.high - self.low
        t = np.where(ok, (x[:, 0] - self.low) / width, 0.5)
        log_p = special.xlogy(self.a - 1, t) + special.xlog1py(self.b - 1, -t)
        return np.where(ok, log_p - special.betaln(self.a, self.b) - np.log(width), -np.inf)


@dataclass(frozen=True, eq=False)
class Table(Family):
    """Piecewise linear `density` on an increasing `grid`; it need not be normalised."""

    domain: ClassVar[str] = "first to last grid point"
    grid: ArrayLike
    density: ArrayLike

    def __post_init__(self) -> None:
        grid, density = np.asarray(self.grid, float), np.asarray(self.density, float)
        if grid.ndim != 1 or grid.shape != density.shape or grid.size < 2:
            msg = "'grid' and 'density' must be lists of equal length >= 2"
            raise ValueError(msg)
        if (np.diff(grid) <= 0).any() or (density < 0).any() or not density.sum() > 0:
            msg = "'grid' must increase and 'density' must be non-negative and not all zero"
            raise ValueError(msg)

    @cached_property
    def _arrays(self) -> tuple[F64, F64, F64]:
        """Grid, normalised density, and distribution function at the grid points."""
        grid, density = np.asarray(self.grid, float), np.asarray(self.density, float)
        steps = np.diff(grid) * 0.5 * (density[1:] + density[:-1])
        return grid, density / steps.sum(), np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])

    @property
    def ends(self) -> tuple[float, float]:
        return float(self._arrays[0][0]), float(self._arrays[0][-1])

    def cdf(self, x: F64) -> F64:
        grid, density, cum = self._arrays
        k = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, grid.size - 2)
        t = np.clip(x, grid[0], grid[-1]) - grid[k]
        slope = (density[k + 1] - density[k]) / (grid[k + 1] - grid[k])
        return np.asarray(cum[k] + density[k] * t + 0.5 * slope * t**2)

    def ppf(self, u: F64) -> F64:
        grid, density, cum = self._arrays
        k = np.clip(np.searchsorted(cum, u, side="right") - 1, 0, grid.size - 2)
        slope = (density[k + 1] - density[k]) / (grid[k + 1] - grid[k])
        rest = u - cum[k]
        root = np.sqrt(np.maximum(density[k] ** 2 + 2 * slope * rest, 0))
        t = 2 * rest / np.maximum(density[k] + root, 1e-300)
        return np.clip(grid[k] + t, grid[k], grid[k + 1])

    def log_prob(self, x: F64) -> F64:
        grid, density, _ = self._arrays
        with np.errstate(divide="ignore"):
            return np.log(np.interp(x[:, 0], grid, density, left=0.0, right=0.0))
