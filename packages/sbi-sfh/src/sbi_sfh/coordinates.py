r"""Random numbers as coordinates: the prior of a sampler in which it is standard normal.

A family of histories is a function of random numbers, drawn in a fixed order. :class:`Coordinates`
gives it numbers made from standard normal ones,

.. math:: u = \Phi(z), \qquad -\ln(1 - u), \qquad \lfloor k\,u \rfloor, \qquad \ldots

so that a history can be changed a little by changing z, and the density of z is known where that
of the percentiles is not.

References:
    | Kelemen et al. 2002, Computer Graphics Forum 21, 531 (MCMC on the random numbers of a sampler)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Coordinates"]

F64 = NDArray[np.float64]
_EDGE = 1e-15  # of u, from 0 and 1


class Coordinates:
    """The methods of a generator that families of histories use, on given coordinates.

    Parameters
    ----------
    z : (n, D)
        Standard normal coordinates; each call takes the next ones.
    rng
        Draws coordinates beyond D; None: there must be enough.
    """

    def __init__(self, z: F64, rng: np.random.Generator | None = None) -> None:
        self.z, self._rng, self._used = z, rng, 0

    def normal(self, *, size: int | tuple[int, ...]) -> F64:
        """Return standard normal numbers."""
        shape = (size,) if isinstance(size, int) else size
        count = int(np.prod(shape[1:], dtype=int))
        first, self._used = self._used, self._used + count
        missing = self._used - self.z.shape[1]
        if missing > 0:
            if self._rng is None:
                msg = f"{self.z.shape[1]} coordinates are too few"
                raise ValueError(msg)
            more = self._rng.standard_normal((len(self.z), missing))
            self.z = np.concatenate([self.z, more], axis=1)
        return self.z[:, first : self._used].reshape(shape)

    def random(self, size: int | tuple[int, ...]) -> F64:
        """Return numbers between 0 and 1."""
        return np.asarray(np.clip(special.ndtr(self.normal(size=size)), _EDGE, 1.0 - _EDGE))

    def uniform(self, low: float, high: float, size: int | tuple[int, ...]) -> F64:
        """Return numbers between two ends."""
        return low + (high - low) * self.random(size)

    def exponential(self, *, size: int | tuple[int, ...]) -> F64:
        """Return exponential numbers of mean one."""
        return -np.log1p(-self.random(size))

    def integers(
        self, low: int, high: int | None = None, *, size: int | tuple[int, ...]
    ) -> NDArray[np.int64]:
        """Return integers from ``low`` to ``high`` - 1, or from 0 to ``low`` - 1."""
        first, end = (0, low) if high is None else (low, high)
        return (first + np.floor((end - first) * self.random(size))).astype(np.int64)

    def dirichlet(self, alpha: Sequence[float], size: int) -> F64:
        """Return shares (size, k) of a Dirichlet distribution."""
        u = self.random((size, len(alpha)))
        parts = np.maximum(special.gammaincinv(np.asarray(alpha, float), u), 1e-300)
        return np.asarray(parts / parts.sum(1, keepdims=True))
