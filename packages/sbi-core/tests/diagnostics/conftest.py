"""A linear-Gaussian problem with an exact posterior, and the faults planted into it."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Problem:
    """theta ~ N(0, I), x = A theta + noise; the exact posterior N(mean_b, cov)."""

    theta: np.ndarray  # (B, d)
    x: np.ndarray  # (B, d_x)
    mean: np.ndarray  # (B, d)
    cov: np.ndarray  # (d, d)

    def draw(self, draws, rng, *, shift=0.0, width=1.0):
        """Draws (S, B, d), moved by ``shift`` posterior sigmas and stretched by ``width``."""
        root = np.linalg.cholesky(self.cov)
        noise = rng.standard_normal((draws, *self.mean.shape)) @ root.T
        return self.mean + shift * np.sqrt(np.diag(self.cov)) + width * noise

    def log_q(self, theta, *, shift=0.0, width=1.0):
        """Log density (up to a constant) of the planted posterior at theta (..., B, d)."""
        offset = theta - self.mean - shift * np.sqrt(np.diag(self.cov))
        precision = np.linalg.inv(self.cov * width**2)
        return -0.5 * np.einsum("...i,ij,...j->...", offset, precision, offset)


def linear_gaussian(objects, d, rng):
    a = rng.standard_normal((4, d))
    theta = rng.standard_normal((objects, d))
    x = theta @ a.T + 0.8 * rng.standard_normal((objects, 4))
    cov = np.linalg.inv(np.eye(d) + a.T @ a / 0.64)
    return Problem(theta=theta, x=x, mean=x @ a @ cov / 0.64, cov=cov)


@pytest.fixture
def rng():
    return np.random.default_rng(20260)


@pytest.fixture
def problem(rng):
    return linear_gaussian(1000, 3, rng)
