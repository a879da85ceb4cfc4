"""A density given on a grid."""

from __future__ import annotations

import numpy as np

from sbi_core.priors.families.base import F64, Family, Values

__all__ = ["Table"]


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
