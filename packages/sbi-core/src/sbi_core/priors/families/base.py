r"""Base class of the prior families.

A family maps theta to unconstrained space by :math:`z = \Phi^{-1}(F(\theta))`, with *F* its
distribution function, so that the prior is exactly :math:`N(0, I)` in *z*.
"""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["BELOW_ONE", "CLAMP", "F64", "Family", "clamped", "need_order", "need_positive"]

F64 = NDArray[np.float64]

CLAMP = 1e-7  # smallest distance of F(theta) from 0 and 1 before the normal quantile is taken
BELOW_ONE = 1 - 2.0**-53  # largest F(theta), beyond z = 8.2, so that theta without an end is finite


def clamped(u: F64) -> F64:
    """Return u within [CLAMP, 1 - CLAMP]."""
    return np.clip(u, CLAMP, 1 - CLAMP)


class Family:
    """A distribution, built from its numbers: the fields of a dataclass.

    A continuous family in one dimension defines ``cdf``, ``ppf``, ``log_prob`` and its ``ends``;
    joint and discrete families override the rest. The first line of the docstring and ``domain``
    are the row of the family in the documentation.
    """

    domain: ClassVar[str] = "all real numbers"
    continuous: ClassVar[bool] = True
    has_density: ClassVar[bool] = True
    clamps: ClassVar[bool] = True  # z comes from F(theta), within CLAMP of its ends

    @classmethod
    def numbers(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the numbers it needs, and of the optional ones."""
        every = fields(cls)  # type: ignore[arg-type]
        needed = tuple(f.name for f in every if f.default is f.default_factory)
        return needed, tuple(f.name for f in every if f.name not in needed)

    @property
    def size(self) -> int:
        """Number of components of theta."""
        return 1

    @property
    def z_size(self) -> int:
        """Number of unconstrained components."""
        return self.size if self.continuous else 0

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the support of every component: its ``low`` and ``high`` unless overridden."""
        return float(getattr(self, "low", -np.inf)), float(getattr(self, "high", np.inf))

    @property
    def support(self) -> tuple[F64, F64]:
        """Lower and upper ends, each (size,)."""
        low, high = self.ends
        return np.full(self.size, low), np.full(self.size, high)

    @property
    def table(self) -> tuple[F64, F64]:
        """Values and probabilities of a discrete family, each (k,)."""
        raise NotImplementedError

    def cdf(self, x: F64) -> F64:
        """Return the distribution function, elementwise."""
        raise NotImplementedError

    def ppf(self, u: F64) -> F64:
        """Return the quantile function, elementwise."""
        raise NotImplementedError

    def log_prob(self, x: F64) -> F64:
        """Return the log density at x (n, size), shape (n,); -inf outside the support."""
        raise NotImplementedError

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        """Return n draws, (n, size)."""
        return self.ppf(rng.random((n, 1)))

    def to_z(self, x: F64) -> F64:
        """Return z (n, z_size) for x (n, size) inside the support."""
        return np.asarray(special.ndtri(clamped(self.cdf(x))))

    def from_z(self, z: F64) -> F64:
        """Return x (n, size) for z (n, z_size); finite for finite z, also without ends."""
        return self.ppf(np.minimum(special.ndtr(z), BELOW_ONE))

    def moments(self) -> tuple[F64, F64]:
        """Return mean and standard deviation, each (size,), by 20,001 quantiles if need be."""
        u = (np.arange(20001) + 0.5) / 20001
        x = self.ppf(u[:, None])
        return x.mean(0), x.std(0)

    def inside(self, x: F64) -> NDArray[np.bool_]:
        """Return which rows of x (n, size) lie in the closed support."""
        low, high = self.support
        return np.asarray(((x >= low) & (x <= high)).all(1))


def need_positive(**numbers: float) -> None:
    """Raise ValueError where one of these numbers is not positive."""
    for name, value in numbers.items():
        if not value > 0:
            msg = f"'{name}' must be positive, got {value}"
            raise ValueError(msg)


def need_order(low: float, high: float) -> None:
    """Raise ValueError unless low < high."""
    if not low < high:
        msg = f"'low' ({low}) must be below 'high' ({high})"
        raise ValueError(msg)
