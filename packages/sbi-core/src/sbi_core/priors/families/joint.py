r"""Priors of several numbers: the multivariate normal, and fractions that sum to one.

Fractions are made by breaking a stick:

.. math:: v_k = \beta_k / (1 - \sum_{j<k} \beta_j) \sim \mathrm{Beta}(\alpha_k, \sum_{j>k} \alpha_j)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sbi_core.priors.families.base import F64, Family, clamped

__all__ = ["Dirichlet", "MvNormal", "Sticks"]

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_STEEP = 0.5  # shape below which breaks lie closer to 0 and 1 than their difference is rounded
_SMALLEST = 1e-45  # fraction in a density that diverges at 0


@dataclass(frozen=True, eq=False)
class MvNormal(Family):
    """Normal in d dimensions with `mean` (d) and covariance `cov` (d, d)."""

    domain: ClassVar[str] = "all real vectors"
    clamps: ClassVar[bool] = False
    mean: ArrayLike
    cov: ArrayLike

    def __post_init__(self) -> None:
        mean, cov = np.asarray(self.mean, float), np.asarray(self.cov, float)
        if cov.shape != (mean.size, mean.size) or not np.allclose(cov, cov.T):
            msg = f"'cov' must be a symmetric ({mean.size}, {mean.size}) matrix"
            raise ValueError(msg)
        if np.linalg.eigvalsh(cov).min() <= 0:
            msg = "'cov' must be positive definite"
            raise ValueError(msg)

    @property
    def size(self) -> int:
        return np.asarray(self.mean).size

    @cached_property
    def _cholesky(self) -> F64:
        return np.linalg.cholesky(np.asarray(self.cov, float))

    def log_prob(self, x: F64) -> F64:
        z = self.to_z(x)
        log_det = np.log(np.diag(self._cholesky)).sum()
        return np.asarray(-0.5 * (z**2).sum(1) - log_det - self.size * _LOG_SQRT_2PI)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return self.from_z(rng.standard_normal((n, self.size)))

    def to_z(self, x: F64) -> F64:
        return np.asarray(np.linalg.solve(self._cholesky, (x - np.asarray(self.mean)).T).T)

    def from_z(self, z: F64) -> F64:
        return np.asarray(self.mean) + z @ self._cholesky.T

    def moments(self) -> tuple[F64, F64]:
        return np.asarray(self.mean, float), np.sqrt(np.diag(np.asarray(self.cov, float)))


class _Simplex(Family):
    """K fractions that sum to one, with K - 1 coordinates z: one per break of the stick."""

    domain: ClassVar[str] = "fractions that sum to 1"

    @property
    def _breaks(self) -> tuple[F64, F64]:
        """Both shapes of the beta distributions of the breaks, each (K - 1,)."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        return len(self._breaks[0]) + 1

    @property
    def z_size(self) -> int:
        return self.size - 1

    @property
    def ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def inside(self, x: F64) -> NDArray[np.bool_]:
        return np.asarray(super().inside(x) & (np.abs(x.sum(1) - 1) < 1e-5))

    @property
    def _steep(self) -> bool:
        return min(float(np.min(shape)) for shape in self._breaks) < _STEEP

    def to_z(self, x: F64) -> F64:
        a, b = self._breaks
        if not self._steep:
            stick, _ = _sticks_of(x)
            return np.asarray(special.ndtri(clamped(special.betainc(a, b, stick))))
        after = np.maximum(np.cumsum(x[:, ::-1], 1)[:, ::-1], 1e-300)  # x_k + x_(k+1) + ...
        stick, rest = x[:, :-1] / after[:, :-1], after[:, 1:] / after[:, :-1]
        below = special.ndtri(clamped(special.betainc(a, b, np.minimum(stick, 1))))
        above = -special.ndtri(clamped(special.betainc(b, a, np.minimum(rest, 1))))
        return np.asarray(np.where(stick < 0.5, below, above))

    def from_z(self, z: F64) -> F64:
        a, b = self._breaks
        stick = special.betaincinv(a, b, special.ndtr(z))
        rest = special.betaincinv(b, a, special.ndtr(-z)) if self._steep else 1 - stick
        return _broken(stick, rest)


def _sticks_of(x: F64) -> tuple[F64, F64]:
    """Return the breaks v_k of fractions x (n, K), and what is left before each, (n, K - 1)."""
    left = 1 - np.concatenate([np.zeros((len(x), 1)), np.cumsum(x, 1)[:, :-2]], 1)
    left = np.maximum(left, 1e-300)
    return np.clip(x[:, :-1] / left, 0, 1), left


def _broken(stick: F64, rest: F64) -> F64:
    """Return the fractions (n, K) of breaks and their complements, (n, K - 1) each."""
    left = np.cumprod(rest, axis=1)
    before = np.concatenate([np.ones((len(stick), 1)), left[:, :-1]], 1)
    return np.concatenate([stick * before, left[:, -1:]], 1)


@dataclass(frozen=True, eq=False)
class Dirichlet(_Simplex):
    """Dirichlet(`alpha`): K fractions; the density is that of the first K - 1."""

    alpha: ArrayLike

    def __post_init__(self) -> None:
        alpha = np.asarray(self.alpha, float)
        if alpha.ndim != 1 or alpha.size < 2 or (alpha <= 0).any():
            msg = "'alpha' must be a list of at least two positive numbers"
            raise ValueError(msg)

    @property
    def _breaks(self) -> tuple[F64, F64]:
        alpha = np.asarray(self.alpha, float)
        return alpha[:-1], np.cumsum(alpha[::-1])[::-1][1:]

    def log_prob(self, x: F64) -> F64:
        alpha = np.asarray(self.alpha, float)
        norm = special.gammaln(alpha.sum()) - special.gammaln(alpha).sum()
        ok = self.inside(x)
        safe = np.where(ok[:, None], x, 1.0 / x.shape[1])
        safe = np.where(alpha < 1, np.maximum(safe, _SMALLEST), safe)
        return np.where(ok, norm + special.xlogy(alpha - 1, safe).sum(1), -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        return rng.dirichlet(np.asarray(self.alpha, float), size=n)

    def moments(self) -> tuple[F64, F64]:
        alpha = np.asarray(self.alpha, float)
        mean = alpha / alpha.sum()
        return mean, np.sqrt(mean * (1 - mean) / (alpha.sum() + 1))


@dataclass(frozen=True, eq=False)
class Sticks(_Simplex):
    """Fractions from breaks v_k ~ Beta(`a`_k, `b`_k) of a stick: a generalised Dirichlet.

    b_k = sum_{j>k} alpha_j gives the Dirichlet (Connor & Mosimann 1969, JASA 64, 194).
    """

    a: ArrayLike
    b: ArrayLike

    def __post_init__(self) -> None:
        a, b = self._breaks
        if a.ndim != 1 or a.size < 1 or a.shape != b.shape or (a <= 0).any() or (b <= 0).any():
            msg = "'a' and 'b' must be lists of equal length, at least one, of positive numbers"
            raise ValueError(msg)

    @property
    def _breaks(self) -> tuple[F64, F64]:
        return np.asarray(self.a, float), np.asarray(self.b, float)

    def log_prob(self, x: F64) -> F64:
        a, b = self._breaks
        ok = self.inside(x)
        stick, left = _sticks_of(np.where(ok[:, None], x, 1.0 / x.shape[1]))
        log_p = special.xlogy(a - 1, stick) + special.xlog1py(b - 1, -stick)
        log_p = log_p - special.betaln(a, b) - np.log(left)
        return np.where(ok, log_p.sum(1), -np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        a, b = self._breaks
        stick = rng.beta(a, b, size=(n, len(a)))
        return _broken(stick, 1 - stick)

    def moments(self) -> tuple[F64, F64]:
        a, b = self._breaks
        first, second = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
        rest, rest2 = b / (a + b), b * (b + 1) / ((a + b) * (a + b + 1))
        left = np.concatenate([[1.0], np.cumprod(rest)])
        left2 = np.concatenate([[1.0], np.cumprod(rest2)])
        mean = np.append(first, 1.0) * left
        square = np.append(second, 1.0) * left2
        return mean, np.sqrt(square - mean**2)
