r"""Correlated normal parameters: z is the Cholesky factor's, :math:`z = L^{-1}(\theta - \mu)`."""

from __future__ import annotations

import numpy as np

from sbi_core.priors.families.base import F64, Family, Values

__all__ = ["MvNormal"]

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


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
