"""Small problems with known answers, and one trained estimator of every kind."""

import numpy as np
import pytest
import torch

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.estimators.ensemble import EnsembleConfig, EnsembleEstimator
from sbi_core.estimators.flows import MafConfig, MafEstimator, NsfConfig, NsfEstimator
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.estimators.sbi import SbiMafEstimator, SbiNsfConfig, SbiNsfEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig

SMALL = {
    "mixture": lambda: MixtureEstimator(MixtureConfig(components=3, hidden=(48, 48))),
    "maf": lambda: MafEstimator(MafConfig(transforms=3, hidden=(32, 32))),
    "nsf": lambda: NsfEstimator(NsfConfig(transforms=2, hidden=(32, 32))),
    "ensemble": lambda: EnsembleEstimator(
        EnsembleConfig(members=2, of="mixture", options={"components": 2, "hidden": [32]})
    ),
    "sbi-maf": SbiMafEstimator,
    "sbi-nsf": lambda: SbiNsfEstimator(SbiNsfConfig(hidden=12, transforms=2, bins=5)),
}


class LinearGaussian:
    """x = theta A + noise; errors per element differ, some elements are not observed."""

    def __init__(self, priors, *, missing=0.0, error=(0.3, 0.3), nuisance=0):
        names = [f"t{k}" for k in range(len(priors) + nuisance)]
        all_priors = [*priors, *[Prior("normal", {"loc": 0.0, "scale": 1.0})] * nuisance]
        self.all = ParameterSpace(
            tuple(Parameter(n, p) for n, p in zip(names, all_priors, strict=True))
        )
        self.space = self.all.select(names[: len(priors)])
        self.space_priors, self.missing, self.error = priors, missing, error
        self.matrix = stream(11).normal(0, 1, (len(names), 3))

    def simulate(self, n, rng):
        theta = self.all.sample(n, rng)
        return Batch(x=torch.as_tensor(theta @ self.matrix), theta=torch.as_tensor(theta))

    def observe(self, batch, rng):
        gen = torch_generator(rng)
        low, high = np.log(self.error)
        err = torch.exp(low + (high - low) * torch.rand(batch.x.shape, generator=gen))
        x = batch.x + err * torch.randn(batch.x.shape, generator=gen)
        mask = torch.rand(batch.x.shape, generator=gen) >= self.missing
        return batch.with_(x=torch.where(mask, x, torch.nan), x_err=err, mask=mask)

    def training(self, n=8000, seed=1, **options):
        config = TrainConfig(**{"epochs": 25, "batch_size": 128, "learning_rate": 5e-3, **options})
        columns = tuple(self.all.index(self.space.names))
        batch = self.simulate(n, stream(seed, "sims"))
        return Training(batch, self.space, columns, self.observe, config, seed=seed)

    def posterior(self, batch):
        """Exact mean (n, d) and covariance (n, d, d) of theta for normal priors."""
        loc, scale = self.all.moments()
        x, err = batch.x.double().numpy(), batch.x_err.double().numpy()
        weight = np.where(batch.mask.numpy(), err**-2.0, 0.0)
        precision = np.einsum("ij,nj,kj->nik", self.matrix, weight, self.matrix)
        cov = np.linalg.inv(precision + np.diag(scale**-2.0))
        total = np.einsum("ij,nj->ni", self.matrix, weight * np.nan_to_num(x)) + loc / scale**2
        d = self.space.dim
        return np.einsum("nij,nj->ni", cov, total)[:, :d], cov[:, :d, :d]


TWO_NORMAL = (
    Prior("normal", {"loc": 1.0, "scale": 2.0}),
    Prior("normal", {"loc": -1.0, "scale": 0.5}),
)
BOUNDED = (
    Prior("uniform", {"low": -1.0, "high": 2.0}),
    Prior("truncnormal", {"loc": 0.0, "scale": 1.0, "low": -0.5}),
)


def fitted(name, problem, **options):
    estimator = SMALL[name]()
    estimator.fit(problem.training(**options), IdentityEmbedding())
    return estimator


@pytest.fixture(scope="session")
def gaussian():
    return LinearGaussian(TWO_NORMAL, missing=0.2, error=(0.1, 0.6), nuisance=1)


@pytest.fixture(scope="session")
def bounded():
    return LinearGaussian(BOUNDED, missing=0.2)


@pytest.fixture(scope="session")
def barely(gaussian, bounded):
    """Estimators after a very short training: enough for everything that is exact."""
    made = {}

    def get(name, problem="gaussian"):
        chosen = {"gaussian": gaussian, "bounded": bounded}[problem]
        if (name, problem) not in made:
            made[name, problem] = fitted(name, chosen, n=2000, epochs=4)
        return made[name, problem]

    return get


@pytest.fixture(scope="session")
def fit_small():
    return fitted


@pytest.fixture(scope="session")
def problem_of():
    return LinearGaussian


class NoisyInteger:
    """x = f(n) + noise for an integer n: the probabilities given x are known."""

    def __init__(self, low=1, high=12, *, noise=1.2, log=False, pmf=None):
        values = {"low": low, "high": high} | ({} if pmf is None else {"pmf": pmf})
        self.space = ParameterSpace((Parameter("n", Prior("integer", values)),))
        self.noise, self.f = noise, np.log if log else np.asarray
        self.values = np.arange(low, high + 1.0)
        self.prior = np.full(len(self.values), 1 / len(self.values)) if pmf is None else pmf

    def simulate(self, n, rng):
        theta = self.space.sample(n, rng)
        return Batch(x=torch.as_tensor(self.f(theta)).float(), theta=torch.as_tensor(theta).float())

    def observe(self, batch, rng):
        noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
        return batch.with_(x=batch.x + self.noise * noise)

    def training(self, n=4000, seed=1, **options):
        config = TrainConfig(**{"epochs": 15, "batch_size": 128, **options})
        return Training(
            self.simulate(n, stream(seed)), self.space, (0,), self.observe, config, seed
        )

    def pmf(self, batch):
        """Exact probabilities (n, R)."""
        off = (batch.x.double().numpy() - self.f(self.values)) / self.noise
        p = self.prior * np.exp(-0.5 * off**2)
        return p / p.sum(1, keepdims=True)


@pytest.fixture(scope="session")
def integer_of():
    return NoisyInteger
