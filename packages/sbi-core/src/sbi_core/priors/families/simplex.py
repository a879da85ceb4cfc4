r"""Fractions that sum to one, by stick-breaking.

.. math:: v_k = \beta_k / (1 - \sum_{j<k} \beta_j) \sim \mathrm{Beta}(\alpha_k, \sum_{j>k} \alpha_j)
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sbi_core.priors.families.base import F64, Family, Values, clamped

__all__ = ["Dirichlet", "Sticks"]


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
        return np.asarray(special.ndtri(clamped(special.betainc(a, b, stick))))

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
