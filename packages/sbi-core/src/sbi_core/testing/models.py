r"""Problems with known answers, on which estimators and combiners are checked.

.. math:: x_i = A\Lambda + B\Theta_i + \epsilon_i, \qquad
          p(\Lambda\,|\,x_1 .. x_N) = N(C h,\ C), \quad
          C^{-1} = I + \sum_i A^T V_i^{-1} A, \quad h = \sum_i A^T V_i^{-1} (x_i - A\mu),
          \quad V_i = B B^T + \mathrm{diag}(\sigma_i^2)

in units of the prior of :math:`\Lambda` (mean :math:`\mu`, A per prior sigma): the posterior of a
linear model with normal noise, errors and missing values that differ between objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core.components import (
    Callback,
    Embedding,
    Estimator,
    Rng,
    Simulator,
    Training,
    TrainingRecord,
)
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable, Observations
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.registry import Registry
from sbi_core.rng import as_generator, stream, torch_generator

__all__ = ["ExactEstimator", "LinearGaussian", "ProbeSimulator"]

F64 = NDArray[np.float64]
_LOC, _SCALE = np.array([1.0, -2.0]), np.array([0.5, 2.0])
_A = np.array([[1.0, 0.0], [0.5, 1.0], [-0.3, 0.7]])  # per prior sigma
_B = np.array([0.8, -0.4, 0.5])


class LinearGaussian(Simulator):
    """Two shared parameters, one of each object's own, three values, some of them missing."""

    name = "linear-gaussian"
    version = "1"
    parameters = ParameterSpace(
        (
            Parameter("first", Prior("normal", {"loc": 1.0, "scale": 0.5}), scope="global"),
            Parameter("second", Prior("normal", {"loc": -2.0, "scale": 2.0}), scope="global"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
        )
    )
    observables = (Observable("a"), Observable("b"), Observable("c"))

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return x (n, 3) of theta (n, 3); no randomness."""
        values = np.asarray(theta, np.float64)
        z = (values[:, :2] - _LOC) / _SCALE
        return Batch.of_arrays(x=z @ _A.T + values[:, 2:] * _B, theta=values)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return noisy data: errors 0.3 to 1, one value in five missing."""
        gen = as_generator(rng)
        shape = tuple(batch.x.shape)
        err = np.exp(gen.uniform(np.log(0.3), 0.0, shape))
        noise = err * gen.standard_normal(shape)
        mask = torch.as_tensor(gen.random(shape) > 0.2)
        x = batch.x.double() + torch.as_tensor(noise)
        return batch.with_(x=x.where(mask, torch.nan), x_err=torch.as_tensor(err), mask=mask)

    def objects(self, n: int, *, off: float, seed: int) -> Observations:
        """Return n objects that share a truth ``off`` prior sigma from the prior mean."""
        rng = stream(seed, "objects", n)
        theta = self.parameters.sample(n, rng)
        theta[:, :2] = _LOC + off * _SCALE
        batch = self.observe(self.simulate(theta, rng), rng)
        names = self.parameters.names
        return Observations.from_batch(batch, observables=self.observables, truth_names=names)

    @staticmethod
    def exact(batch: Batch) -> tuple[F64, F64]:
        """Return precision (n, 2, 2) and information (n, 2) that each object adds to the prior."""
        seen = batch.observed.numpy()
        err = np.ones(seen.shape) if batch.x_err is None else batch.x_err.double().numpy()
        # 1e8: a value without information
        variance = np.where(seen, err, 1e8) ** 2
        v = variance[:, :, None] * np.eye(3) + np.outer(_B, _B)
        weighted = np.linalg.solve(v, np.broadcast_to(_A, (len(v), 3, 2)))
        x = np.where(seen, batch.x.double().numpy(), 0.0)
        precision = np.asarray(_A.T @ weighted, np.float64)
        information = np.asarray(np.einsum("nmi,nm->ni", weighted, x), np.float64)
        return precision, information

    def posterior(self, batch: Batch) -> tuple[F64, F64]:
        """Return the exact mean (2,) and covariance (2, 2) given all objects, in prior sigma."""
        precision, information = self.exact(batch)
        cov = np.asarray(np.linalg.inv(np.eye(2) + precision.sum(0)), np.float64)
        return cov @ information.sum(0), cov


class ExactEstimator(Estimator):
    """The exact posterior of single objects of :class:`LinearGaussian`."""

    name = "exact"
    space = LinearGaussian.parameters.select("global")

    @classmethod
    def trained(cls) -> Posterior:
        """Return it as a posterior."""
        return Posterior(cls())

    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Do nothing."""
        return TrainingRecord(epochs=0, seconds=0.0, test_nll=0.0, best_epoch=0)

    def gaussian_moments(self, batch: Batch) -> tuple[F64, F64]:
        """Return exact mean (n, 2) and covariance (n, 2, 2)."""
        precision, information = LinearGaussian.exact(batch)
        cov = np.asarray(np.linalg.inv(np.eye(2) + precision), np.float64)
        return np.einsum("nij,nj->ni", cov, information), cov

    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> F64:
        """Return log q of theta (n, 2) or (S, n, 2)."""
        precision, information = LinearGaussian.exact(batch)
        precision = np.eye(2) + precision
        mean = np.linalg.solve(precision, information[..., None])[..., 0]
        off = (np.asarray(theta, np.float64) - _LOC) / _SCALE - mean
        chi2 = np.einsum("...ni,nij,...nj->...n", off, precision, off)
        log_det = np.linalg.slogdet(precision)[1]
        return np.asarray(
            0.5 * (log_det - chi2) - np.log(2 * np.pi) - np.log(_SCALE).sum(), np.float64
        )

    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws (S, n, 2)."""
        precision, information = LinearGaussian.exact(batch)
        cov = np.linalg.inv(np.eye(2) + precision)
        mean = np.einsum("nij,nj->ni", cov, information)
        if isinstance(rng, Sequence):
            noise = np.stack([g.standard_normal((draws, 2)) for g in rng], 1)
        else:
            noise = as_generator(rng).standard_normal((draws, len(batch), 2))
        z = mean + np.einsum("sni,nji->snj", noise, np.linalg.cholesky(cov))
        return np.asarray(_LOC + _SCALE * z, np.float64)

    def save(self, directory: str | Path) -> None:
        """Do nothing: there is nothing to store."""

    @classmethod
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> ExactEstimator:
        """Return a new one."""
        return cls()


class ProbeSimulator(Simulator):
    """x = M theta + noise for parameters of given priors; what estimators are trained on.

    Parameters
    ----------
    priors
        One per parameter; discrete ones give integers.
    """

    name = "probe"
    version = "1"

    def __init__(self, *priors: Prior) -> None:
        self.parameters = ParameterSpace(
            tuple(Parameter(f"p{k}", p, scope="global") for k, p in enumerate(priors))
        )
        mean, sd = self.parameters.moments()
        d = len(mean)
        mix = stream(5).standard_normal((d, 3))
        self._mean, self._design = mean, mix / np.linalg.norm(mix, axis=1)[:, None] / sd[:, None]
        self.observables = (Observable("a"), Observable("b"), Observable("c"))

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return x (n, 3) of theta (n, d), about unit variance."""
        values = np.asarray(theta, np.float64)
        return Batch.of_arrays(x=(values - self._mean) @ self._design, theta=values)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return noisy data: errors 0.3 to 0.6, one value in five missing."""
        gen = torch_generator(rng)
        err = 0.3 + 0.3 * torch.rand(batch.x.shape, generator=gen, dtype=batch.x.dtype)
        noise = torch.randn(batch.x.shape, generator=gen, dtype=batch.x.dtype)
        mask = torch.rand(batch.x.shape, generator=gen) > 0.2
        x = torch.where(mask, batch.x + err * noise, torch.nan)
        return batch.with_(x=x, x_err=err, mask=mask)
