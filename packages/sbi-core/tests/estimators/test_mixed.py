import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ComponentNotFoundError, ConfigError
from sbi_core.estimators import load_estimator
from sbi_core.estimators.mixed import MixedConfig, MixedEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig

SPACE = ParameterSpace(
    (
        Parameter("t", Prior("normal", {"loc": 0.0, "scale": 1.0})),
        Parameter("n", Prior("integer", {"low": 0, "high": 4})),
    )
)
SMALL = {"continuous": "mixture", "continuous_options": {"components": 2, "hidden": [48, 48]}}


def observe(batch, rng):
    noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
    return batch.with_(x=batch.x + noise * torch.tensor([0.7, 0.5]))


def simulate(n, seed):
    """x1 = n + noise, x2 = t (1 + n) / 2 + noise: the width of t depends on n."""
    theta = SPACE.sample(n, stream(seed))
    x = np.stack([theta[:, 1], theta[:, 0] * (1 + theta[:, 1]) / 2], 1)
    return Batch(x=torch.as_tensor(x).float(), theta=torch.as_tensor(theta).float())


@pytest.fixture(scope="module")
def fitted():
    config = TrainConfig(epochs=12, batch_size=128)
    estimator = MixedEstimator(
        MixedConfig(discrete_options={"components": 3, "hidden": [32, 32]}, **SMALL)
    )
    estimator.fit(Training(simulate(6000, 1), SPACE, (0, 1), observe, config), IdentityEmbedding())
    return estimator


def exact(batch):
    """p(n | x) (n, 5), mean and sd of t given n (n, 5)."""
    x, k = batch.x.double().numpy(), np.arange(5)
    slope = (1 + k) / 2
    var = 0.25 + slope**2  # of x2 given n
    log_p = -0.5 * ((x[:, :1] - k) / 0.7) ** 2 - 0.5 * x[:, 1:] ** 2 / var - 0.5 * np.log(var)
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), x[:, 1:] * slope / var, np.sqrt(0.25 / var)


def test_both_factors_are_recovered(fitted):
    batch = observe(simulate(200, 5), stream(6))
    p, mean, sd = exact(batch)
    assert 0.5 * np.abs(fitted.pmf(batch) - p).sum(1).mean() < 0.1
    draws = fitted.sample(batch, 1500, 1)
    given = np.where(draws[:, :, 1] == 3, draws[:, :, 0], np.nan)
    enough = np.isfinite(given).sum(0) > 400
    assert enough.sum() > 15
    off = (np.nanmean(given[:, enough], 0) - mean[enough, 3]) / sd[3]
    assert np.sqrt((off**2).mean()) < 0.25
    assert_allclose(np.median(np.nanstd(given[:, enough], 0)) / sd[3], 1, atol=0.1)


def test_the_density_sums_and_integrates_to_one(fitted):
    batch = observe(simulate(1, 8), stream(6))
    t = np.linspace(-6, 6, 1201)
    theta = np.stack(np.meshgrid(t, np.arange(5.0), indexing="ij"), -1).reshape(-1, 1, 2)
    q = np.exp(fitted.log_prob(theta, batch)).reshape(1201, 5)
    assert_allclose(q.sum() * (t[1] - t[0]), 1, atol=2e-3)
    assert_allclose(q.sum(0) * (t[1] - t[0]), fitted.pmf(batch)[0], atol=2e-3)


def test_test_nll_is_that_of_log_prob(fitted):
    batch = observe(simulate(20_000, 9), stream(10))
    fresh = -fitted.log_prob(batch.theta, batch)
    assert_allclose(fitted.record.test_nll, fresh.mean(), atol=5 * fresh.std() / np.sqrt(600))


def test_a_saved_estimator_draws_the_same_bits(fitted, tmp_path):
    fitted.save(tmp_path)
    batch = observe(simulate(4, 8), stream(6))
    assert_array_equal(load_estimator(tmp_path).sample(batch, 5, 1), fitted.sample(batch, 5, 1))


def test_what_cannot_be_mixed_is_said(gaussian, integer_of):
    for problem, word in ((gaussian, "needs discrete"), (integer_of(), "needs continuous")):
        with pytest.raises(ConfigError, match=word):
            MixedEstimator(MixedConfig(**SMALL)).fit(problem.training(n=200), IdentityEmbedding())
    with pytest.raises(ConfigError, match="cannot be the continuous part"):
        MixedEstimator(MixedConfig(continuous="ensemble")).make_head(3, SPACE)
    with pytest.raises(ComponentNotFoundError, match="nfs"):
        MixedEstimator(MixedConfig(continuous="nfs")).make_head(3, SPACE)
