r"""Distributions of other libraries as priors.

A prior is stored as data, so a distribution becomes a family and its numbers:

1. A distribution of torch or scipy that is also a family here becomes that family.
2. Any other continuous distribution of one number becomes a ``table`` of its density: at
   :math:`F^{-1}(\Phi(z))` for 2001 equal steps of z within the clamp, or at 2001 equal steps of
   theta where the quantile function is unknown. Where straight lines between these points miss
   more than 1 % of the mass, intervals are halved until they miss less than 0.1 %. A discrete one
   becomes ``discrete``.
3. A distribution of several numbers becomes ``implicit``: it can be drawn from, has no density
   here, and is identified by the hash of 1000 draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from sbi_core.errors import ConfigError
from sbi_core.priors.families import CLAMP
from sbi_core.rng import seeded

__all__ = ["Draw", "adapt"]

F64 = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], F64]
Known = tuple[str, dict[str, Any]]

_NODES = 2001
_MOST_NODES = 20_001
_MASS_ERROR = 1e-3  # of the integral of a tabulated density that claims to be normalised
_RESOLVED = 1e-2  # mass that straight lines between nodes may miss before the grid is refined


def adapt(
    distribution: Any, low: float | None = None, high: float | None = None
) -> tuple[str, dict[str, Any], Draw | None]:
    """Return family and numbers, and for an implicit prior its sampler.

    Raises
    ------
    ConfigError
        If it is not a distribution, or its density cannot be tabulated.
    """
    source = _source(distribution)
    known = source.known() if low is None and high is None else None
    if known is not None:
        return *known, None
    if source.size > 1 or not source.has_density:
        draws = np.round(source.sample(1000, np.random.default_rng(0)), 6)
        spec = {"draws": hashlib.sha256(draws.tobytes()).hexdigest()}
        values = {"sampler": source.name, "spec": spec, "size": source.size}
        return "implicit", values, source.sample
    return *_tabulated(source, low, high), None


@dataclass(frozen=True)
class _Source:
    """An object with ``sample(n, rng)`` and ``log_prob(x)``, or a function: its log density."""

    object: Any

    @property
    def name(self) -> str:
        return str(getattr(self.object, "__name__", type(self.object).__name__))

    @property
    def has_density(self) -> bool:
        return hasattr(self.object, "log_prob") or callable(self.object)

    @property
    def normalised(self) -> bool:
        return hasattr(self.object, "log_prob")

    @property
    def draws(self) -> bool:
        return hasattr(self.object, "sample")

    @property
    def size(self) -> int:
        if not self.draws:
            return 1
        return int(self.sample(2, np.random.default_rng(0)).shape[1])

    @property
    def ends(self) -> tuple[float, float]:
        return -np.inf, np.inf

    def known(self) -> Known | None:
        """Return the family and its numbers, where there is one."""
        return None

    def quantile(self, u: F64) -> F64 | None:
        return None

    def log_prob(self, x: F64) -> F64:
        f = self.object.log_prob if self.normalised else self.object
        return np.asarray(f(x), np.float64)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return np.asarray(self.object.sample(n, rng), np.float64).reshape(n, -1)


@dataclass(frozen=True)
class _Scipy(_Source):
    """A frozen distribution of scipy."""

    has_density = normalised = draws = True

    @property
    def name(self) -> str:
        return str(getattr(getattr(self.object, "dist", None), "name", type(self.object).__name__))

    @property
    def ends(self) -> tuple[float, float]:
        low, high = self.object.support()
        return float(low), float(high)

    def known(self) -> Known | None:
        d = self.object
        match type(d).__name__:
            case "multivariate_normal_frozen":
                return "mvnormal", {"mean": d.mean.tolist(), "cov": np.asarray(d.cov).tolist()}
            case "dirichlet_frozen":
                return "dirichlet", {"alpha": d.alpha.tolist()}
        if hasattr(d, "logpmf") and hasattr(d, "ppf"):
            values = np.arange(d.ppf(1e-12), d.ppf(1 - 1e-12) + 1)
            pmf = d.pmf(values)
            return "discrete", {"values": values.tolist(), "pmf": (pmf / pmf.sum()).tolist()}
        if not hasattr(d, "dist"):
            return None
        shapes = d.dist.shapes.split(", ") if d.dist.shapes else []
        given = dict(zip([*shapes, "loc", "scale"], d.args, strict=False)) | d.kwds
        v = {k: float(x) for k, x in ({"loc": 0.0, "scale": 1.0} | given).items()}
        loc, scale = v["loc"], v["scale"]
        match self.name:
            case "norm":
                return "normal", {"loc": loc, "scale": scale}
            case "halfnorm":
                return "halfnormal", {"loc": loc, "scale": scale}
            case "uniform":
                return "uniform", {"low": loc, "high": loc + scale}
            case "truncnorm":
                ends = {"low": loc + scale * v["a"], "high": loc + scale * v["b"]}
                return "truncnormal", {"loc": loc, "scale": scale, **ends}
            case "beta":
                return "beta", {"a": v["a"], "b": v["b"], "low": loc, "high": loc + scale}
            case "t":
                return "studentt", {"df": v["df"], "loc": loc, "scale": scale}
            case "lognorm" if loc == 0:
                return "lognormal", {"loc": float(np.log(scale)), "scale": v["s"]}
            case "loguniform" | "reciprocal" if loc == 0:
                return "loguniform", {"low": scale * v["a"], "high": scale * v["b"]}
        return None

    def quantile(self, u: F64) -> F64 | None:
        return np.asarray(self.object.ppf(u), np.float64)

    def log_prob(self, x: F64) -> F64:
        return np.asarray(self.object.logpdf(x), np.float64)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return np.asarray(self.object.rvs(size=n, random_state=rng), np.float64).reshape(n, -1)


@dataclass(frozen=True)
class _Torch(_Source):
    """A distribution of torch; float32 numbers are read by their decimal form."""

    has_density = normalised = True

    @property
    def name(self) -> str:
        return type(self.object).__name__

    @property
    def size(self) -> int:
        d = self.object
        if len(d.batch_shape) or hasattr(d, "reinterpreted_batch_ndims"):
            msg = (
                f"{_text(d)} holds independent components: give every parameter its own prior, "
                "e.g. Prior.of(torch.distributions.Uniform(0, 1))"
            )
            raise ConfigError(msg)
        return int(np.prod(d.event_shape, dtype=int))

    @property
    def ends(self) -> tuple[float, float]:
        ends = (getattr(self.object.support, f"{k}_bound", np.nan) for k in ("lower", "upper"))
        low, high = (float(e) for e in ends)
        return -np.inf if np.isnan(low) else low, np.inf if np.isnan(high) else high

    def known(self) -> Known | None:
        d, size = self.object, self.size
        if getattr(d.support, "is_discrete", False) and size == 1:
            msg = f"{_text(d)} is discrete: take it from scipy.stats, or use Prior('discrete', ...)"
            raise ConfigError(msg)
        match self.name:
            case "Normal" | "LogNormal":
                return self.name.lower(), {"loc": _number(d.loc), "scale": _number(d.scale)}
            case "StudentT":
                numbers = {"df": _number(d.df), "loc": _number(d.loc), "scale": _number(d.scale)}
                return "studentt", numbers
            case "HalfNormal":
                return "halfnormal", {"loc": 0.0, "scale": _number(d.scale)}
            case "Uniform":
                return "uniform", {"low": _number(d.low), "high": _number(d.high)}
            case "Beta":
                a, b = _number(d.concentration1), _number(d.concentration0)
                return "beta", {"a": a, "b": b}
            case "Dirichlet":
                return "dirichlet", {"alpha": _number(d.concentration)}
            case "MultivariateNormal":
                cov = np.asarray(d.covariance_matrix, np.float64)
                return "mvnormal", {"mean": _number(d.loc), "cov": ((cov + cov.T) / 2).tolist()}
        return None

    def quantile(self, u: F64) -> F64 | None:
        try:
            return np.asarray(self.object.icdf(torch.as_tensor(u)), np.float64)
        except NotImplementedError:
            return None

    def log_prob(self, x: F64) -> F64:
        return np.asarray(self.object.log_prob(torch.as_tensor(x)), np.float64)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        with seeded(rng):  # distributions use the global generator
            draws = self.object.sample((n,))
        return np.asarray(draws, np.float64).reshape(n, -1)


def _source(distribution: Any) -> _Source:
    module = type(distribution).__module__.partition(".")[0]
    if module == "scipy" and hasattr(distribution, "rvs"):
        return _Scipy(distribution)
    if hasattr(distribution, "event_shape") and hasattr(distribution, "log_prob"):
        return _Torch(distribution)
    if hasattr(distribution, "sample") or callable(distribution):
        return _Source(distribution)
    msg = (
        f"{_text(distribution)} is not a distribution: Prior.of takes one of torch.distributions, "
        "a frozen one of scipy.stats, an object with sample(n, rng) and log_prob(x), or a function "
        "that returns the log density"
    )
    raise ConfigError(msg)


def _tabulated(source: _Source, low: float | None, high: float | None) -> Known:
    """Return the table of a density in one dimension."""
    ends = source.ends
    a = ends[0] if low is None else max(float(low), ends[0])
    b = ends[1] if high is None else min(float(high), ends[1])
    if not a < b:
        msg = f"the prior {_text(source.object)} needs low < high in its range, got {a:g} and {b:g}"
        raise ConfigError(msg)
    z = special.ndtri(CLAMP) * np.linspace(1, -1, _NODES)
    grid = source.quantile(special.ndtr(z))
    if grid is not None:
        given = [float(end) for end in (low, high) if end is not None]
        grid = np.unique([*grid[(grid > a) & (grid < b)], *given])
    elif np.isfinite([a, b]).all():
        grid = np.linspace(a, b, _NODES)
    else:
        msg = f"the quantiles of {_text(source.object)} are unknown: give Prior.of low= and high="
        raise ConfigError(msg)
    log_p = _log_density(source, grid)
    density = _density(source, grid, log_p)
    mass = float(np.trapezoid(density, grid))
    if source.normalised and low is None and high is None and abs(mass - 1) > _MASS_ERROR:
        msg = (
            f"the density of {_text(source.object)} integrates to {mass:.4g} on a grid of "
            f"{len(grid)} points: give its range with low= and high=, or write a table of your own"
        )
        raise ConfigError(msg)
    grid, density = _refined(source, grid, log_p)
    return "table", {"grid": grid.tolist(), "density": density.tolist()}


def _refined(source: _Source, grid: F64, log_p: F64) -> tuple[F64, F64]:
    """Return grid and density; intervals are halved where the grid does not resolve the density."""
    allowed = _RESOLVED
    while len(grid) <= _MOST_NODES:
        middle = (grid[:-1] + grid[1:]) / 2
        log_middle = _log_density(source, middle)
        density = _density(source, grid, np.concatenate([log_p, log_middle]))
        at, between = density[: len(grid)], density[len(grid) :]
        missed = np.abs(between - (at[:-1] + at[1:]) / 2) * np.diff(grid)
        allowed_mass = allowed * np.sum((between + (at[:-1] + at[1:]) / 2) * np.diff(grid)) / 2
        if missed.sum() <= allowed_mass:
            return grid, _density(source, grid, log_p)
        allowed = _MASS_ERROR
        halved = (missed > allowed_mass / len(grid)) & (grid[:-1] < middle) & (middle < grid[1:])
        if not halved.any():
            break
        where = np.flatnonzero(halved)
        grid = np.insert(grid, where + 1, middle[where])
        log_p = np.insert(log_p, where + 1, log_middle[where])
    msg = (
        f"the density of {_text(source.object)} changes too fast for a table of {_MOST_NODES} "
        f"points on [{grid[0]:.4g}, {grid[-1]:.4g}]: narrow it with low= and high="
    )
    raise ConfigError(msg)


def _log_density(source: _Source, x: F64) -> F64:
    try:
        with np.errstate(all="ignore"):
            log_p = source.log_prob(x)
            refused = "" if log_p.shape == x.shape else f"it returned shape {log_p.shape}"
    except (TypeError, ValueError) as error:
        refused = str(error)
    if refused:
        msg = (
            f"the log density of {_text(source.object)} must take an array and return one value "
            f"for each of its {len(x)} points ({refused}); numpy.vectorize makes such a function "
            "of one that takes a single number"
        )
        raise ConfigError(msg)
    return log_p


def _density(source: _Source, grid: F64, log_p: F64) -> F64:
    """Return the density, at most 1 where it has no scale; the grid is for the message."""
    with np.errstate(all="ignore"):
        density = np.asarray(np.exp(log_p - (0.0 if source.normalised else np.max(log_p))))
    if not np.isfinite(density).all():
        msg = (
            f"the density of {_text(source.object)} is not finite on all of "
            f"[{grid[0]:.4g}, {grid[-1]:.4g}]: narrow it with low= and high="
        )
        raise ConfigError(msg)
    return density


def _number(tensor: Any) -> Any:
    """Return a tensor as float or list; 0.1 in float32 is 0.1."""
    values = np.asarray(tensor)
    if values.ndim:
        return [float(str(v)) for v in values]
    return float(str(values[()]))


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{type(value).__name__}(...)"
