r"""Problems with known answers, on which estimators and combiners are checked.

.. math:: x_i = A\Lambda + B\Theta_i + \epsilon_i, \qquad
          p(\Lambda\,|\,x_1 .. x_N) = N(C h,\ C), \quad
          C^{-1} = I + \sum_i A^T V_i^{-1} A, \quad h = \sum_i A^T V_i^{-1} (x_i - A\mu),
          \quad V_i = B B^T + \mathrm{diag}(\sigma_i^2)

in units of the prior of :math:`\Lambda` (mean :math:`\mu`, A per prior sigma): the posterior of a
linear model with normal noise, errors and missing values that differ between objects.

In two further models one shared parameter, unconstrained u, is integrated on a grid, and a mean m
that all objects share, if there is one, in closed form:

.. math:: \log p(x_i\,|\,m, u) = c_i(u) - \tfrac12 w_i(u)\,m^2 + h_i(u)\,m, \qquad
          m\,|\,u \sim N\Bigl(\frac{\sum_i h_i}{P},\ \frac1P\Bigr), \quad P = 1 + \sum_i w_i .
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special
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

__all__ = [
    "Counts",
    "ExactEstimator",
    "GridEstimator",
    "GridModel",
    "LinearGaussian",
    "MeanAndScatter",
    "OffsetModel",
    "ProbeSimulator",
]

F64 = NDArray[np.float64]
_LOC, _SCALE = np.array([1.0, -2.0]), np.array([0.5, 2.0])
_A = np.array([[1.0, 0.0], [0.5, 1.0], [-0.3, 0.7]])  # per prior sigma
_B = np.array([0.8, -0.4, 0.5])
_GRID = np.linspace(-6.0, 6.0, 481)  # of u


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


class OffsetModel(LinearGaussian):
    """The same with a shift of all values that every object of a group shares.

    Its posterior is that of :class:`LinearGaussian` with a third shared parameter.
    """

    name = "offset"

    def __init__(self) -> None:
        shift = Parameter("shift", Prior("normal", {"loc": 0.0, "scale": 0.5}), scope="nuisance")
        self.nuisances = {"offset": ParameterSpace((shift,))}
        self.population = {"own": (0.0, 0.0)}

    def simulate_nuisances(
        self, theta: ArrayLike | Tensor, nuisances: Mapping[str, F64], rng: Rng
    ) -> Batch:
        """Return x (n, 3) with the shift, 0 where it is NaN."""
        batch = self.simulate(theta, rng)
        shift = torch.as_tensor(np.nan_to_num(nuisances["offset"]))
        return batch.with_(x=batch.x + shift.to(batch.x))

    def marginal(self, batch: Batch) -> tuple[F64, F64]:
        """Return the exact mean (2,) and covariance (2, 2), the shift marginalised."""
        seen = batch.observed.numpy()
        err = np.ones(seen.shape) if batch.x_err is None else batch.x_err.double().numpy()
        variance = np.where(seen, err, 1e8) ** 2
        v = variance[:, :, None] * np.eye(3) + np.outer(_B, _B)
        design = np.concatenate([_A, np.full((3, 1), 0.5)], 1)
        weighted = np.linalg.solve(v, np.broadcast_to(design, (len(v), 3, 3)))
        x = np.where(seen, batch.x.double().numpy(), 0.0)
        information = np.einsum("nmi,nm->i", weighted, x)
        cov = np.linalg.inv(np.eye(3) + np.einsum("mi,nmj->ij", design, weighted))
        return np.asarray(cov @ information)[:2], np.asarray(cov[:2, :2])


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


class GridModel(Simulator):
    """A hierarchy whose posteriors are sums over a grid; the shared parameters are (m, u) or u."""

    def terms(self, batch: Batch, u: F64) -> tuple[F64, F64, F64]:
        """Return c, w, h of objects at u, which broadcasts with (n, 1)."""
        raise NotImplementedError

    def group(self, n: int, seed: int) -> Observations:
        """Return n objects that share a truth drawn from the prior."""
        rng = stream(seed, self.name, n)
        theta = self.parameters.sample(n, rng)
        shared = [k for k, scope in enumerate(self.parameters.scopes) if scope == "global"]
        theta[:, shared] = theta[0, shared]
        batch = self.observe(self.simulate(theta, rng), rng)
        return Observations.from_batch(batch, truth_names=self.parameters.names)

    def posterior(self, batch: Batch) -> tuple[F64, F64]:
        """Return the exact mean (d,) and covariance (d, d) given all objects, in prior sigma."""
        mean, cov = self.moments(*(v.sum(0, keepdims=True) for v in self.terms(batch, _GRID)))
        return mean[0], cov[0]

    def moments(self, c: F64, w: F64, h: F64) -> tuple[F64, F64]:
        """Return means (n, d) and covariances (n, d, d) of terms (n, G)."""
        p, mean, precision = self.marginal(c, w, h)
        values = np.stack([mean, np.broadcast_to(_GRID, mean.shape)], 2)
        centre = np.einsum("ng,ngd->nd", p, values)
        off = values - centre[:, None]
        cov = np.einsum("ng,ngd,nge->nde", p, off, off)
        cov[:, 0, 0] += (p / precision).sum(1)
        d = self.parameters.select("global").z_dim
        return centre[:, -d:], cov[:, -d:, -d:]

    @staticmethod
    def marginal(c: F64, w: F64, h: F64) -> tuple[F64, F64, F64]:
        """Return probabilities of the grid, means and precisions of m given u, each (n, G)."""
        precision = 1 + w
        log_p = c + 0.5 * h**2 / precision - 0.5 * np.log(precision) - 0.5 * _GRID**2
        return np.asarray(special.softmax(log_p, 1)), h / precision, precision


class Counts(GridModel):
    """Counts of Poisson variables with one rate: skewed posteriors, no local parameter."""

    name = "counts"
    version = "1"
    parameters = ParameterSpace(
        (Parameter("rate", Prior("lognormal", {"loc": 0.5, "scale": 0.8}), scope="global"),)
    )

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return the rate itself: counting happens when it is observed."""
        values = np.asarray(theta, np.float64)
        return Batch.of_arrays(x=values, theta=values)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return counts."""
        counts = as_generator(rng).poisson(batch.x.double().numpy())
        return batch.with_(x=torch.as_tensor(counts).to(batch.x.dtype))

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return counts."""
        return self.observe(batch, rng)

    def log_likelihood(self, simulated: Batch, observed: Batch) -> F64:
        """Return log p(count | rate) but for a constant, (n,)."""
        rate = simulated.x[:, 0].double().numpy()
        return np.asarray(observed.x[:, 0].double().numpy() * np.log(rate) - rate)

    def terms(self, batch: Batch, u: F64) -> tuple[F64, F64, F64]:
        """Return c; there is no mean."""
        log_rate = 0.5 + 0.8 * u
        c = batch.x[:, :1].double().numpy() * log_rate - np.exp(log_rate)
        return c, np.zeros_like(c), np.zeros_like(c)


class MeanAndScatter(GridModel):
    """Values with a mean and an intrinsic scatter, and errors that differ between objects."""

    name = "mean-and-scatter"
    version = "1"
    parameters = ParameterSpace(
        (
            Parameter("mean", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="global"),
            Parameter("scatter", Prior("lognormal", {"loc": -0.7, "scale": 0.6}), scope="global"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
        )
    )
    observables = (Observable("value"),)

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return mean + scatter * own."""
        values = np.asarray(theta, np.float64)
        return Batch.of_arrays(x=values[:, :1] + values[:, 1:2] * values[:, 2:], theta=values)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return noisy values: errors 0.1 to 1."""
        gen = as_generator(rng)
        err = 10.0 ** gen.uniform(-1.0, 0.0, tuple(batch.x.shape))
        x = batch.x.double() + torch.as_tensor(err * gen.standard_normal(err.shape))
        return batch.with_(x=x, x_err=torch.as_tensor(err))

    def terms(self, batch: Batch, u: F64) -> tuple[F64, F64, F64]:
        """Return c, w, h."""
        assert batch.x_err is not None
        y, noise = batch.x[:, :1].double().numpy(), batch.x_err[:, :1].double().numpy() ** 2
        w = 1 / (np.exp(2 * (-0.7 + 0.6 * u)) + noise)
        return 0.5 * (np.log(w) - w * y**2), w, w * y


class GridEstimator(ExactEstimator):
    """The exact posterior of single objects of a :class:`GridModel`."""

    def __init__(self, model: GridModel) -> None:
        self.model, self.space = model, model.parameters.select("global")

    def gaussian_moments(self, batch: Batch) -> tuple[F64, F64]:
        """Return exact means and covariances."""
        return self.model.moments(*self.model.terms(batch, _GRID))

    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> F64:
        """Return log q of theta (n, d) or (S, n, d)."""
        values = np.asarray(theta, np.float64)
        z = self.space.to_unconstrained(values.reshape(-1, self.space.dim))
        z = z.reshape(*values.shape[:-1], -1)
        c, w, h = self.model.terms(batch, _GRID)
        log_p = c + 0.5 * h**2 / (1 + w) - 0.5 * np.log1p(w) - 0.5 * _GRID**2
        total = special.logsumexp(log_p, 1) + np.log(_GRID[1] - _GRID[0])
        total = total + 0.5 * np.log(2 * np.pi) * (z.shape[-1] - 1)
        prior = self.space.log_prob(values.reshape(-1, self.space.dim)).reshape(values.shape[:-1])
        normal = -0.5 * (z**2).sum(-1) - 0.5 * np.log(2 * np.pi) * z.shape[-1]
        return np.asarray(self._log_joint(z, batch) - total + prior - normal, np.float64)

    def score(self, value: F64, batch: Batch) -> F64:
        """Return the gradient of log q (n, d) at one value (d,), in unconstrained space."""
        steps = 1e-4 * np.eye(len(value))
        up, down = (self._log_joint((value + s * steps)[:, None], batch) for s in (1, -1))
        return np.asarray((up - down).T / 2e-4, np.float64)

    def _log_joint(self, z: F64, batch: Batch) -> F64:
        """Return log p(x, z) but for a constant, of z (..., n or 1, d)."""
        c, w, h = self.model.terms(batch, z[..., -1:])
        m = z[..., :1]
        return np.asarray((c - 0.5 * w * m**2 + h * m)[..., 0] - 0.5 * (z**2).sum(-1))

    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws (S, n, d)."""
        gens = list(rng) if isinstance(rng, Sequence) else [as_generator(rng)] * len(batch)
        p, mean, precision = self.model.marginal(*self.model.terms(batch, _GRID))
        theta = []
        for k, gen in enumerate(gens):
            g = gen.choice(len(_GRID), draws, p=p[k])
            u = _GRID[g] + (_GRID[1] - _GRID[0]) * (gen.random(draws) - 0.5)
            m = mean[k][g] + gen.standard_normal(draws) / np.sqrt(precision[k][g])
            theta.append(self.space.from_unconstrained(np.stack([m, u], 1)[:, -self.space.z_dim :]))
        return np.stack(theta, 1)

    @classmethod
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> GridEstimator:
        """Refuse: nothing was stored."""
        raise NotImplementedError


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
