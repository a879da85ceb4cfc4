"""Models with exact posteriors: estimators pass the gates, one that is too sure of itself fails.

Gamma-Poisson: rate ~ Gamma(3, 1), five counts ~ Poisson(rate), so rate | counts is
Gamma(3 + sum, 1 + 5).
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.diagnostics import (
    combine_verdicts,
    coverage_central,
    judge_coverage,
    judge_sbc,
    sbc_ranks,
    sbc_uniformity,
)
from sbi_core.diagnostics.coverage import LEVELS
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding
from sbi_core.estimators.flows import NsfConfig, NsfEstimator
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig

GRID = np.linspace(1e-3, 20, 2001)
PRIOR = Prior("table", {"grid": GRID.tolist(), "density": stats.gamma(3).pdf(GRID).tolist()})
SPACE = ParameterSpace((Parameter("rate", PRIOR),))
SMALL = {
    "mixture": lambda: MixtureEstimator(MixtureConfig(components=3, hidden=(48, 48))),
    "nsf": lambda: NsfEstimator(NsfConfig(transforms=2, hidden=(32, 32))),
}


def simulate(n, seed):
    rate = torch.as_tensor(SPACE.sample(n, stream(seed))).float()
    return Batch(x=rate.expand(n, 5), theta=rate)


def count(batch, rng):
    return batch.with_(x=torch.poisson(batch.x, generator=torch_generator(rng)))


@pytest.fixture(scope="module", params=sorted(SMALL))
def fitted(request):
    estimator = SMALL[request.param]()
    config = TrainConfig(epochs=12, batch_size=256)
    training = Training(simulate(8000, 1), SPACE, (0,), count, config, seed=2)
    estimator.fit(training, MlpEmbedding(MlpConfig(hidden=(32, 8))))
    return estimator


def test_the_gamma_posterior_of_poisson_counts_is_recovered(fitted):
    batch = count(simulate(200, 7), stream(8))
    total = batch.x.sum(1).numpy()
    exact = stats.gamma(3 + total, scale=1 / 6)
    draws = fitted.sample(batch, 2000, 1)[:, :, 0]
    off = (draws.mean(0) - exact.mean()) / exact.std()
    assert np.sqrt((off**2).mean()) < 0.2
    assert_allclose(np.median(draws.std(0) / exact.std()), 1, atol=0.08)


def test_its_density_integrates_to_one_and_draws_follow_it(fitted):
    batch = count(simulate(5, 7), stream(8))
    edges = np.linspace(0.001, 20, 8001)
    middle = (edges[1:] + edges[:-1]) / 2
    theta = np.broadcast_to(middle[:, None, None], (8000, 5, 1))
    q = np.exp(fitted.log_prob(theta, batch)) * (edges[1] - edges[0])
    assert_allclose(q.sum(0), 1, atol=0.02)
    draws = fitted.sample(batch, 4000, 3)[:, :, 0]
    for k in range(5):
        cdf = np.interp(draws[:, k], edges[1:], q[:, k].cumsum())
        assert stats.kstest(cdf, "uniform").pvalue > 1e-4  # 10 such tests


def gates(samples, theta):
    """The levels that simulation-based calibration and coverage come to."""
    ranks = sbc_ranks(samples, theta, stream(3))
    p = sbc_uniformity(ranks, len(samples))[0]
    covered = coverage_central(ranks, len(samples), LEVELS)[:, 0]
    verdicts = [
        judge_coverage("rate", float(c), level, objects=len(theta))
        for c, level in zip(covered, LEVELS, strict=True)
    ]
    return {
        "sbc": judge_sbc("rate", float(p)).level,
        "coverage": combine_verdicts(verdicts).level,
    }


def test_it_passes_the_gates_and_a_narrower_one_fails(fitted):
    batch = count(simulate(1000, 11), stream(12))
    theta = batch.theta.double().numpy()
    draws = fitted.sample(batch, 300, 1)
    # p < 0.01 or beyond 3 sigma by chance: 2 % for an exact posterior, fixed seeds
    assert "fail" not in gates(draws, theta).values()
    middle = draws.mean(0)
    assert gates(middle + 0.6 * (draws - middle), theta) == {"sbc": "fail", "coverage": "fail"}
