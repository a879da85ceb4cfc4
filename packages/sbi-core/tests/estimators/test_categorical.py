import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError
from sbi_core.estimators.categorical import CategoricalConfig, CategoricalEstimator
from sbi_core.rng import stream


def test_it_recovers_the_exact_probabilities(integer_of):
    problem = integer_of()
    estimator = CategoricalEstimator(CategoricalConfig(hidden=(32, 32)))
    estimator.fit(problem.training(n=6000), IdentityEmbedding())
    batch = problem.observe(problem.simulate(300, stream(3)), stream(4))
    got, want = estimator.pmf(batch), problem.pmf(batch)
    assert_allclose(got.sum(1), 1)
    # a small training: total variation measured 0.04
    assert 0.5 * np.abs(got - want).sum(1).mean() < 0.1
    draws = estimator.sample(batch[:1], 40_000, 1)[:, 0, 0]
    counts = np.array([(draws == v).mean() for v in problem.values])
    error = np.sqrt(got[0] * (1 - got[0]) / 40_000)
    assert (np.abs(counts - got[0]) < 5 * error + 1e-4).all()


def test_probabilities_of_any_network_sum_to_one():
    head = CategoricalEstimator().discrete_head(3, [np.arange(7.0)])
    places = torch.arange(7.0)[:, None, None].expand(7, 4, 1)
    assert_allclose(head.log_prob(places, torch.randn(4, 3)).exp().sum(0).detach(), 1, rtol=1e-5)


def test_too_many_values_are_refused():
    with pytest.raises(ConfigError, match="5000 values"):
        CategoricalEstimator().discrete_head(3, [np.arange(5000.0)])
