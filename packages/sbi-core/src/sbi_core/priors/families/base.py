r"""What a prior family has to say: density, sampler, distribution function and its inverse.

Each family maps to unconstrained space by :math:`z = \Phi^{-1}(F(\theta))`, with *F* its
distribution function, so that the prior is exactly :math:`N(0, I)` in *z*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["CLAMP", "F64", "Family", "Values", "clamped", "positive"]

F64 = NDArray[np.float64]
Values = Mapping[str, Any]

CLAMP = 1e-7  # smallest distance of F(theta) from 0 and 1 before the normal quantile is taken


def clamped(u: F64) -> F64:
    """Return u within [CLAMP, 1 - CLAMP]."""
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
        return np.asarray(special.ndtri(clamped(cls.cdf(v, x))))

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


def positive(v: Values, *names: str) -> None:
    """Raise ValueError where one of these numbers is not positive."""
    for name in names:
        if not v[name] > 0:
            msg = f"'{name}' must be positive, got {v[name]}"
            raise ValueError(msg)
