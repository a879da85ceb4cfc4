"""The linear-Gaussian problem x_i = A Lambda + B Theta_i + eps with its exact joint posterior."""

from dataclasses import dataclass

import numpy as np
import pytest

from sbi_core.combiners.moments import Gaussian


@dataclass(frozen=True)
class LinearGaussian:
    """d shared parameters, k of each object's own, m outputs; the truth ``truth`` sigma off."""

    d: int
    k: int
    m: int
    truth: float

    def __post_init__(self):
        gen = np.random.default_rng(7)
        spread = gen.normal(size=(self.d, self.d))
        cov = spread @ spread.T / self.d + np.eye(self.d)  # correlated, not of unit size
        object.__setattr__(self, "prior", Gaussian(gen.normal(size=self.d), cov))
        object.__setattr__(self, "a", gen.normal(size=(self.m, self.d)))
        object.__setattr__(self, "b", gen.normal(size=(self.m, self.k)))

    @property
    def value(self):
        """The true Lambda: ``truth`` prior sigmas off along every axis of the whitened prior."""
        return self.prior.mean + np.linalg.cholesky(self.prior.cov) @ np.full(self.d, self.truth)

    def simulate(self, n, rng, value=None):
        """x (n, m) and errors (n, m) that differ from object to object."""
        shared = self.value if value is None else value
        err = np.exp(rng.uniform(np.log(0.3), np.log(3.0), (n, self.m)))
        own = rng.normal(size=(n, self.k))
        return shared @ self.a.T + own @ self.b.T + err * rng.normal(size=err.shape), err

    def single_posteriors(self, x, err):
        """Means (n, d) and covariances (n, d, d) of Lambda given each x alone, Theta integrated.

        By conditioning the joint normal of (Lambda, Theta), not by the formula under test.
        """
        n = len(x)
        size = self.d + self.k
        cov0 = np.eye(size)
        cov0[: self.d, : self.d] = self.prior.cov
        mean0 = np.concatenate([self.prior.mean, np.zeros(self.k)])
        design = np.concatenate([self.a, self.b], 1)
        noise = err[:, :, None] ** 2 * np.eye(self.m)
        gain = cov0 @ design.T @ np.linalg.inv(design @ cov0 @ design.T + noise)
        mean = mean0 + np.einsum("nij,nj->ni", gain, x - design @ mean0)
        cov = cov0 - gain @ design @ cov0
        cov = cov[:, : self.d, : self.d]
        assert mean.shape == (n, size)
        return mean[:, : self.d], 0.5 * (cov + cov.transpose(0, 2, 1))

    def posterior(self, x, err):
        """The exact posterior of Lambda given all x: a weighted least-squares problem.

        Theta_i is integrated in the likelihood, x_i ~ N(A Lambda, B B^T + err_i^2).
        """
        cov_x = err[:, :, None] ** 2 * np.eye(self.m) + self.b @ self.b.T
        inverse = np.linalg.inv(cov_x)
        p0 = np.linalg.inv(self.prior.cov)
        precision = p0 + np.einsum("mi,nmp,pj->ij", self.a, inverse, self.a)
        total = p0 @ self.prior.mean + np.einsum("mi,nmp,np->i", self.a, inverse, x)
        return Gaussian(np.linalg.solve(precision, total), np.linalg.inv(precision))


@pytest.fixture
def linear_gaussian():
    return LinearGaussian
