import numpy as np
import pytest
import torch

from sbi_casbi.embedding import MlpConfig, PairEmbedding, PlaneEmbedding
from sbi_casbi.estimator import SetEstimator
from sbi_casbi.sets import SetConfig
from sbi_core import InputShape, Training


def trained(simulator, number):
    training = Training(
        batch=simulator.draw(300, 1),
        space=simulator.parameters,
        columns=tuple(range(len(simulator.columns))),
        observe=simulator.observe,
        config={"epochs": 1, "batch_size": 100},
        seed=3,
    )
    config = SetConfig(design="two_step", number=number, hidden=16, bins=4)
    estimator = SetEstimator(config)
    estimator.fit(training, PlaneEmbedding(MlpConfig(hidden=(32, 16), pool=8)))
    return estimator


@pytest.fixture(scope="module", params=["flow", "classes"])
def case(request, simulator):
    test = simulator.observe(simulator.draw_from(6, 5, "test"), 6)
    return trained(simulator, request.param), test


def test_both_steps_give_probabilities_and_sets(case):
    estimator, test = case
    np.testing.assert_allclose(estimator.pmf(test).sum(1), 1.0, atol=1e-4)
    sets = estimator.sample_members(test, 10, 1)
    assert sets.count.min() >= 2
    assert sets.count.max() <= 100
    assert np.isfinite(estimator.log_prob_members(test)).all()


def test_the_steps_share_no_weight(case):
    estimator, test = case
    pmf = estimator.pmf(test)
    sets = estimator.sample_members(test, 4, 1, count=5)
    second = estimator.network.embedding.second
    weights = [p.detach().clone() for p in second.parameters()]
    with torch.no_grad():
        for p in second.parameters():
            p.add_(1.0)
    moved = estimator.sample_members(test, 4, 1, count=5)
    unchanged = estimator.pmf(test)
    with torch.no_grad():
        for p, w in zip(second.parameters(), weights, strict=True):
            p.copy_(w)
    np.testing.assert_array_equal(pmf, unchanged)
    assert (sets.values != moved.values).any()


def test_a_loaded_design_gives_the_same_bits(case, tmp_path):
    estimator, test = case
    estimator.save(tmp_path)
    again = SetEstimator.load(tmp_path)
    np.testing.assert_array_equal(estimator.pmf(test), again.pmf(test))


def test_a_pair_of_networks_joins_its_outputs():
    pair = PairEmbedding(PlaneEmbedding(MlpConfig(hidden=(8,), pool=8))).build(InputShape((4100,)))
    x = torch.rand(3, 4100)
    both = pair(x, None, None, None)
    assert pair.out_features == 24
    assert both.shape == (3, 24)
    assert torch.equal(both[:, :12], pair.first(x, None, None, None))
