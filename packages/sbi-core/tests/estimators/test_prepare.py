"""The hook that starts a network before the training loop, and the public loop it may use."""

import torch

from sbi_core import Batch, Prior, Trainable, Training, train_network
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding
from sbi_core.estimators.flows import MafConfig, MafEstimator
from sbi_core.testing.models import ProbeSimulator
from sbi_core.training import rows

PRIOR = Prior("normal", {"loc": 0.0, "scale": 1.0})


def training(n=300):
    simulator = ProbeSimulator(PRIOR, PRIOR)
    theta = simulator.parameters.sample(n, 1)
    config = {"epochs": 2, "batch_size": 64, "retries": 0}
    return Training(
        simulator.simulate(theta, 1), simulator.parameters, (0, 1), simulator.observe, config
    )


class _Regression(Trainable):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.last = torch.nn.Linear(8, 2)

    def loss(self, targets, batch: Batch):
        return ((self.last(self.network.features(batch)) - targets) ** 2).mean(-1)


class _Prepared(MafEstimator):
    def prepare(self, network, training):
        def targets(batch):
            return self.targets(batch, training)

        train_network(_Regression(network), training, targets)
        network.embedding.requires_grad_(False)
        self.started = {k: v.clone() for k, v in network.embedding.state_dict().items()}
        return training


def test_weights_frozen_in_prepare_stay_as_they_are():
    estimator = _Prepared(MafConfig(transforms=1, hidden=(8,)))
    estimator.fit(training(), MlpEmbedding(MlpConfig(hidden=(8,))))
    for name, value in estimator.network.embedding.state_dict().items():
        assert torch.equal(value, estimator.started[name])


def test_prepare_may_choose_the_rows_of_the_loop():
    class Half(MafEstimator):
        def prepare(self, network, training):
            from dataclasses import replace

            return replace(training, batch=training.batch[: len(training.batch) // 2])

    estimator = Half(MafConfig(transforms=1, hidden=(8,)))
    record = estimator.fit(training(), MlpEmbedding(MlpConfig(hidden=(8,))))
    assert sum(record.split[k] for k in ("train", "val", "test")) == 150


def test_large_rows_are_standardised_from_fewer(monkeypatch):
    monkeypatch.setattr(rows, "_STANDARDIZE_NUMBERS", 3000)
    asked = []
    plain = training(3000)

    def observe(batch, rng):
        asked.append(len(batch))
        return plain.observe(batch, rng)

    from dataclasses import replace

    rows.observed_sample(replace(plain, observe=observe))
    assert asked == [1, 1000]
