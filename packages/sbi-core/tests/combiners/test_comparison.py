"""Probabilities of simulators, where the exact ones are known."""

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.comparison import (
    CompareConfig,
    ModelComparison,
    ModelProbabilities,
    average,
)
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable, Observations
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.posterior import combined_from_gaussian

SMALL = CompareConfig(max_objects=30, simulations=12_000, steps=250, rows=768)


class Shifted(sbi_toy.ToySimulator):
    """The toy with an offset that neither parameter can make."""

    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=batch.x + torch.tensor([0.6, -0.6, 0.6]))


def covariance(n):
    """Of the 3 n values of a group of the toy, around their mean, shared parameters integrated."""
    a = np.tile(sbi_toy.A * sbi_toy.SCALE, (n, 1))
    own = np.outer(sbi_toy.B, sbi_toy.B) + sbi_toy.ERROR**2 * np.eye(3)
    return a @ a.T + np.kron(np.eye(n), own)


def exact_probability(x):
    """p(toy | x) of a group (n, 3), both models equally probable."""
    mean = np.tile(sbi_toy.A @ sbi_toy.LOC, len(x))
    shift = np.tile([0.6, -0.6, 0.6], len(x))
    inverse = np.linalg.inv(covariance(len(x)))
    chi2 = [r @ inverse @ r for r in (x.ravel() - mean, x.ravel() - mean - shift)]
    return 1 / (1 + np.exp(-0.5 * (chi2[1] - chi2[0])))


def group(simulator, n, rng):
    theta = sbi_toy.SPACE.sample(n, rng)
    theta[:, :2] = theta[0, :2]
    return Observations.from_batch(simulator.observe(simulator.simulate(theta, rng), rng))


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(1)
    rule = ModelComparison({"toy": sbi_toy.ToySimulator(), "shifted": Shifted()}, SMALL)
    rule.fit(group(sbi_toy.ToySimulator(), 100, rng).batch, seed=1)
    return rule


def test_probabilities_follow_the_exact_ones(trained, rng):
    for n in (1, 5, 30):
        got, want = [], []
        for k in range(80):
            objects = group((sbi_toy.ToySimulator(), Shifted())[k % 2], n, rng)
            got.append(trained.probabilities(objects).probability[0])
            want.append(exact_probability(objects.batch.x.double().numpy()))
        assert np.abs(np.array(got) - want).mean() < 0.12, n
        assert (np.array(got) > 0.5)[::2].mean() > 0.5


def test_its_weights_are_aligned_after_training(trained):
    tensors = (*trained._network.parameters(), *trained._network.buffers())
    assert all(t.data_ptr() % 64 == 0 for t in tensors)


def test_more_objects_decide(trained, rng):
    p = [trained.probabilities(group(Shifted(), 30, rng)).probability[1] for _ in range(20)]
    one = [trained.probabilities(group(Shifted(), 1, rng)).probability[1] for _ in range(20)]
    assert np.median(p) > np.median(one)


def test_calibration_is_measured_on_groups_it_never_saw(trained):
    facts = trained.facts
    assert 0.5 < facts["accuracy"] <= 1
    assert facts["calibration_error"] < 0.12
    assert 0.3 < facts["temperature"] < 3


def test_order_and_padding_do_not_matter_and_nothing_observed_says_nothing(trained, rng):
    objects = group(Shifted(), 20, rng)
    one = trained.probabilities(objects)
    other = trained.probabilities(objects[rng.permutation(20)])
    assert_allclose(one.probability, other.probability, atol=1e-10)
    nothing = objects.batch.with_(mask=torch.zeros_like(objects.batch.observed))
    assert_allclose(trained.probabilities(Observations.from_batch(nothing)).probability, [0.5, 0.5])
    none = trained.probabilities(objects[np.arange(0)])
    assert_allclose(none.probability, [0.5, 0.5])
    assert "shifted" in repr(one)
    assert one.n == 20


def test_what_cannot_be_compared_is_refused(trained, rng):
    toy = sbi_toy.ToySimulator()
    with pytest.raises(ConfigError, match="at least two models"):
        ModelComparison({"toy": toy})
    other = sbi_toy.ToySimulator()
    other.observables = (Observable("u"),)
    with pytest.raises(ConfigError, match="different observables"):
        ModelComparison({"toy": toy, "other": other})
    local = sbi_toy.ToySimulator()
    local.parameters = sbi_toy.SPACE.select("local")
    with pytest.raises(ConfigError, match="no shared parameter"):
        ModelComparison({"toy": toy, "local": local})
    with pytest.raises(ConfigError, match="not trained yet"):
        ModelComparison({"a": toy, "b": toy}).probabilities(group(toy, 2, rng))
    with pytest.raises(ObservationError, match="31 objects are more than the 30"):
        trained.probabilities(group(toy, 31, rng))
    images = Batch(x=np.zeros((2, 4, 4)), x_err=np.ones((2, 4, 4)))
    with pytest.raises(ObservationError, match="one row of numbers"):
        ModelComparison({"a": toy, "b": toy}).fit(images)


def test_the_average_has_the_moments_of_the_mixture(rng):
    space = sbi_toy.SPACE.select("global")
    parts = [
        combined_from_gaussian("a", space, 3, np.full(2, m), 0.01 * np.eye(2), draws=10, rng=1)
        for m in (-1.0, 1.0)
    ]
    p = np.array([0.25, 0.75])
    draws, mean, cov = average(parts, p, draws=40_000, rng=2)
    assert_allclose(mean, sbi_toy.LOC + 0.5 * sbi_toy.SCALE)
    assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(np.diag(cov).max() / 40_000))
    assert_allclose(np.cov(draws.T), cov, rtol=0.05)
    sure, mean, _ = average(parts, np.array([1.0, 0.0]), draws=100, rng=2)
    assert_allclose(mean, parts[0].mean)
    assert len(sure) == 100
    with pytest.raises(ConfigError, match="one posterior per model"):
        average(parts, np.ones(3) / 3, draws=10, rng=1)


def test_training_repeats_to_the_bit(rng):
    options = CompareConfig(max_objects=10, simulations=2000, steps=3, rows=64)
    objects = group(sbi_toy.ToySimulator(), 5, rng)
    found = []
    for _ in range(2):
        rule = ModelComparison({"toy": sbi_toy.ToySimulator(), "shifted": Shifted()}, options)
        rule.fit(objects.batch, seed=4)
        found.append(rule.probabilities(objects).probability)
    assert_array_equal(found[0], found[1])


def test_the_best_model_is_named():
    found = ModelProbabilities(("a", "b"), np.array([0.1, 0.9]), 3)
    assert found.best == "b"
