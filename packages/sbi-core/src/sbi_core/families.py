r"""Prior families: density, sampler, distribution function and its inverse.

Each family maps to unconstrained space by :math:`z = \Phi^{-1}(F(\theta))`, with *F* its
distribution function, so that the prior is exactly :math:`N(0, I)` in *z*. The flat Dirichlet
uses stick-breaking, :math:`v_k = \beta_k / (1 - \sum_{j<k} \beta_j) \sim
\mathrm{Beta}(\alpha_k, \sum_{j>k} \alpha_j)`, the multivariate normal its Cholesky factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["CLAMP", "FAMILIES", "Family", "family"]

F64 = NDArray[np.float64]
Values = Mapping[str, Any]

CLAMP = 1e-7  # smallest distance of F(theta) from 0 and 1 before the normal quantile is taken
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SMALLEST_MASS = 1e-300  # of a truncated normal; 37 sigma from its mean there is no less


def _clamped(u: F64) -> F64:
    return np.clip(u, CLAMP, 1 - CLAMP)


class Family:
    """A one-dimensional continuous family, given by ``cdf``, ``ppf`` and ``log_prob``."""

    keys: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    continuous: ClassVar[bool] = True
    has_density: ClassVar[bool] = True

    @classmethod
    def check(cls, v: Values) -> None:
        """Raise ValueError when the numbers make no distribution."""

    @classmethod
    def size(cls, v: Values) -> int:
        """Return the number of components of theta."""
        return 1

    @classmethod
    def z_size(cls, v: Values) -> int:
        """Return the number of unconstrained components."""
        return cls.size(v) if cls.continuous else 0

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        """Return lower and upper ends, each (size,)."""
        return np.array([-np.inf]), np.array([np.inf])

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        """Return the distribution function, elementwise."""
        raise NotImplementedError

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        """Return the quantile function, elementwise."""
        raise NotImplementedError

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        """Return the log density at x (n, size), shape (n,); -inf outside the support."""
        raise NotImplementedError

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        """Return n draws, (n, size)."""
        return cls.ppf(v, rng.random((n, 1)))

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        """Return z (n, z_size) for x (n, size) inside the support."""
        return np.asarray(special.ndtri(_clamped(cls.cdf(v, x))))

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        """Return x (n, size) for z (n, z_size)."""
        return cls.ppf(v, special.ndtr(z))

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        """Return mean and standard deviation, each (size,), by 20,001 quantiles if need be."""
        u = (np.arange(20001) + 0.5) / 20001
        x = cls.ppf(v, u[:, None])
        return x.mean(0), x.std(0)

    @classmethod
    def inside(cls, v: Values, x: F64) -> NDArray[np.bool_]:
        """Return which rows of x (n, size) lie in the closed support."""
        low, high = cls.support(v)
        return np.asarray(((x >= low) & (x <= high)).all(1))


def _positive(v: Values, *names: str) -> None:
    for name in names:
        if not v[name] > 0:
            msg = f"'{name}' must be positive, got {v[name]}"
            raise ValueError(msg)


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
        _positive(v, "low")

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


class Normal(Family):
    """Normal with mean loc and standard deviation scale; z is the plain standardisation."""

    keys = ("loc", "scale")

    @classmethod
    def check(cls, v: Values) -> None:
        _positive(v, "scale")

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
        _positive(v, "scale")
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
        _positive(v, "scale")

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


class Beta(Family):
    """Beta(a, b), stretched to [low, high] when these are given."""

    keys = ("a", "b")
    optional = ("low", "high")

    @classmethod
    def check(cls, v: Values) -> None:
        _positive(v, "a", "b")
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


class Table(Family):
    """Piecewise-linear density on a grid, normalised by the trapezoidal rule."""

    keys = ("grid", "density")

    @classmethod
    def check(cls, v: Values) -> None:
        grid, density = np.asarray(v["grid"], float), np.asarray(v["density"], float)
        if grid.ndim != 1 or grid.shape != density.shape or grid.size < 2:
            msg = "'grid' and 'density' must be lists of equal length >= 2"
            raise ValueError(msg)
        if (np.diff(grid) <= 0).any() or (density < 0).any() or not density.sum() > 0:
            msg = "'grid' must increase and 'density' must be non-negative and not all zero"
            raise ValueError(msg)

    @classmethod
    def _arrays(cls, v: Values) -> tuple[F64, F64, F64]:
        grid, density = np.asarray(v["grid"], float), np.asarray(v["density"], float)
        steps = np.diff(grid) * 0.5 * (density[1:] + density[:-1])
        return grid, density / steps.sum(), np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        return np.array([v["grid"][0]], float), np.array([v["grid"][-1]], float)

    @classmethod
    def cdf(cls, v: Values, x: F64) -> F64:
        grid, density, cum = cls._arrays(v)
        k = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, grid.size - 2)
        t = np.clip(x, grid[0], grid[-1]) - grid[k]
        slope = (density[k + 1] - density[k]) / (grid[k + 1] - grid[k])
        return np.asarray(cum[k] + density[k] * t + 0.5 * slope * t**2)

    @classmethod
    def ppf(cls, v: Values, u: F64) -> F64:
        grid, density, cum = cls._arrays(v)
        k = np.clip(np.searchsorted(cum, u, side="right") - 1, 0, grid.size - 2)
        slope = (density[k + 1] - density[k]) / (grid[k + 1] - grid[k])
        rest = u - cum[k]
        root = np.sqrt(np.maximum(density[k] ** 2 + 2 * slope * rest, 0))
        t = 2 * rest / np.maximum(density[k] + root, 1e-300)
        return np.clip(grid[k] + t, grid[k], grid[k + 1])

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        grid, density, _ = cls._arrays(v)
        with np.errstate(divide="ignore"):
            return np.log(np.interp(x[:, 0], grid, density, left=0.0, right=0.0))


class MvNormal(Family):
    """Multivariate normal with mean (d,) and covariance (d, d); z = L^-1 (theta - mean)."""

    keys = ("mean", "cov")

    @classmethod
    def check(cls, v: Values) -> None:
        mean, cov = np.asarray(v["mean"], float), np.asarray(v["cov"], float)
        if cov.shape != (mean.size, mean.size) or not np.allclose(cov, cov.T):
            msg = f"'cov' must be a symmetric ({mean.size}, {mean.size}) matrix"
            raise ValueError(msg)
        if np.linalg.eigvalsh(cov).min() <= 0:
            msg = "'cov' must be positive definite"
            raise ValueError(msg)

    @classmethod
    def size(cls, v: Values) -> int:
        return len(v["mean"])

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        d = cls.size(v)
        return np.full(d, -np.inf), np.full(d, np.inf)

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        z = cls.to_z(v, x)
        log_det = np.log(np.diag(np.linalg.cholesky(np.asarray(v["cov"], float)))).sum()
        return np.asarray(-0.5 * (z**2).sum(1) - log_det - cls.size(v) * _LOG_SQRT_2PI)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        return cls.from_z(v, rng.standard_normal((n, cls.size(v))))

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        chol = np.linalg.cholesky(np.asarray(v["cov"], float))
        return np.asarray(np.linalg.solve(chol, (x - np.asarray(v["mean"])).T).T)

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        return np.asarray(v["mean"]) + z @ np.linalg.cholesky(np.asarray(v["cov"], float)).T

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        return np.asarray(v["mean"], float), np.sqrt(np.diag(np.asarray(v["cov"], float)))


class Dirichlet(Family):
    """Dirichlet(alpha) on the simplex: K components of theta, K - 1 of z.

    The density is with respect to the first K - 1 components.
    """

    keys: ClassVar[tuple[str, ...]] = ("alpha",)

    @classmethod
    def check(cls, v: Values) -> None:
        alpha = np.asarray(v["alpha"], float)
        if alpha.ndim != 1 or alpha.size < 2 or (alpha <= 0).any():
            msg = "'alpha' must be a list of at least two positive numbers"
            raise ValueError(msg)

    @classmethod
    def size(cls, v: Values) -> int:
        return len(v["alpha"])

    @classmethod
    def z_size(cls, v: Values) -> int:
        return cls.size(v) - 1

    @classmethod
    def support(cls, v: Values) -> tuple[F64, F64]:
        d = cls.size(v)
        return np.zeros(d), np.ones(d)

    @classmethod
    def inside(cls, v: Values, x: F64) -> NDArray[np.bool_]:
        return np.asarray(super().inside(v, x) & (np.abs(x.sum(1) - 1) < 1e-5))

    @classmethod
    def _sticks(cls, v: Values) -> tuple[F64, F64]:
        alpha = np.asarray(v["alpha"], float)
        return alpha[:-1], np.cumsum(alpha[::-1])[::-1][1:]

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        alpha = np.asarray(v["alpha"], float)
        norm = special.gammaln(alpha.sum()) - special.gammaln(alpha).sum()
        ok = cls.inside(v, x)
        safe = np.where(ok[:, None], x, 1.0 / x.shape[1])
        return np.where(ok, norm + special.xlogy(alpha - 1, safe).sum(1), -np.inf)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        return rng.dirichlet(np.asarray(v["alpha"], float), size=n)

    @classmethod
    def to_z(cls, v: Values, x: F64) -> F64:
        a, b = cls._sticks(v)
        left = 1 - np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, 1)[:, :-2]], 1)
        stick = np.clip(x[:, :-1] / np.maximum(left, 1e-300), 0, 1)
        return np.asarray(special.ndtri(_clamped(special.betainc(a, b, stick))))

    @classmethod
    def from_z(cls, v: Values, z: F64) -> F64:
        a, b = cls._sticks(v)
        stick = special.betaincinv(a, b, special.ndtr(z))
        left = np.cumprod(1 - stick, axis=1)
        before = np.concatenate([np.ones((len(z), 1)), left[:, :-1]], 1)
        return np.concatenate([stick * before, left[:, -1:]], 1)

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        alpha = np.asarray(v["alpha"], float)
        mean = alpha / alpha.sum()
        return mean, np.sqrt(mean * (1 - mean) / (alpha.sum() + 1))


class Sticks(Dirichlet):
    """Stick-breaking fractions v_k ~ Beta(a_k, b_k), k = 1..K-1: a generalised Dirichlet.

    b_k = sum_{j>k} alpha_j gives the Dirichlet (Connor & Mosimann 1969, JASA 64, 194).
    """

    keys = ("a", "b")

    @classmethod
    def check(cls, v: Values) -> None:
        a, b = cls._sticks(v)
        if a.ndim != 1 or a.size < 1 or a.shape != b.shape or (a <= 0).any() or (b <= 0).any():
            msg = "'a' and 'b' must be lists of equal length, at least one, of positive numbers"
            raise ValueError(msg)

    @classmethod
    def size(cls, v: Values) -> int:
        return len(v["a"]) + 1

    @classmethod
    def _sticks(cls, v: Values) -> tuple[F64, F64]:
        return np.asarray(v["a"], float), np.asarray(v["b"], float)

    @classmethod
    def log_prob(cls, v: Values, x: F64) -> F64:
        a, b = cls._sticks(v)
        ok = cls.inside(v, x)
        safe = np.where(ok[:, None], x, 1.0 / x.shape[1])
        left = 1 - np.concatenate([np.zeros((len(x), 1)), np.cumsum(safe, 1)[:, :-2]], 1)
        stick = np.clip(safe[:, :-1] / np.maximum(left, 1e-300), 0, 1)
        log_p = special.xlogy(a - 1, stick) + special.xlog1py(b - 1, -stick)
        log_p = log_p - special.betaln(a, b) - np.log(np.maximum(left, 1e-300))
        return np.where(ok, log_p.sum(1), -np.inf)

    @classmethod
    def sample(cls, v: Values, n: int, rng: np.random.Generator) -> F64:
        a, b = cls._sticks(v)
        stick = rng.beta(a, b, size=(n, len(a)))
        left = np.cumprod(1 - stick, axis=1)
        before = np.concatenate([np.ones((n, 1)), left[:, :-1]], 1)
        return np.concatenate([stick * before, left[:, -1:]], 1)

    @classmethod
    def moments(cls, v: Values) -> tuple[F64, F64]:
        a, b = cls._sticks(v)
        first, second = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
        rest, rest2 = b / (a + b), b * (b + 1) / ((a + b) * (a + b + 1))
        left = np.concatenate([[1.0], np.cumprod(rest)])
        left2 = np.concatenate([[1.0], np.cumprod(rest2)])
        mean = np.append(first, 1.0) * left
        square = np.append(second, 1.0) * left2
        return mean, np.sqrt(square - mean**2)


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
