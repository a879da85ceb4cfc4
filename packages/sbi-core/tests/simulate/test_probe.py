"""Faults of simulators and embeddings are found on a few rows, before the simulations of a run."""

import numpy as np
import pytest
import sbi_toy
import torch
from torch import nn

from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.errors import ConfigError, SimulationError
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import execute
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.registry import Registry
from sbi_core.simulate.probe import try_components

MLP = MlpEmbedding()


class Breaks(sbi_toy.ToySimulator):
    """The toy with another result of ``simulate`` or ``observe``."""

    def __init__(self, simulate=None, observe=None):
        super().__init__()
        self.simulated, self.observed = simulate, observe

    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return self.simulated(batch, theta) if self.simulated else batch

    def observe(self, batch, rng):
        seen = super().observe(batch, rng)
        return self.observed(seen) if self.observed else seen


def shifted_in_place(batch, theta):
    theta[:, 0] += 3.0
    return batch.with_(theta=theta)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda b, theta: b.x, "simulate returned Tensor; return sbi_core.Batch"),
        (lambda b, theta: b.x.numpy(), "simulate returned ndarray"),
        (lambda b, theta: b.with_(x=b.x[:, 0]), r"x of shape \(8,\); return \(rows, columns\)"),
        (lambda b, theta: b.with_(x=torch.cat([b.x, b.x], 1)), "x with 6 columns, .* names 3"),
        (lambda b, theta: b[1:], "returned 7 rows for 8"),
        (lambda b, theta: b.with_(theta=b.theta[:, :2]), r"theta of shape \(8, 2\), not \(8, 3\)"),
        (lambda b, theta: b.with_(theta=b.theta.flip(0)), r"simulate returned theta \[.*in row 0"),
        (shifted_in_place, "but was given .*; return theta=theta and assign nothing into it"),
    ],
)
def test_a_fault_of_simulate(how, message):
    with pytest.raises(SimulationError, match=f"simulator 'toy': .*{message}"):
        try_components(Breaks(simulate=how), MLP, 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda b: b.x, "observe returned Tensor for a Batch of 8 rows"),
        (lambda b: b[:3], r"observe returned 3 rows for a Batch of 8 rows; return batch.with_"),
    ],
)
def test_a_fault_of_observe(how, message):
    with pytest.raises(SimulationError, match=message):
        try_components(Breaks(observe=how), MLP, 1)


class Fixed(MlpEmbedding):
    """An embedding for vectors of one length."""

    def build(self, shape):
        module = nn.Linear(5, 2)
        module.forward = lambda x, x_err=None, mask=None, context=None: nn.Linear(5, 2)(x)
        module.out_features = 2
        return module


class Lying(MlpEmbedding):
    def build(self, shape):
        module = super().build(shape)
        module.out_features += 1
        return module


def test_a_fault_of_the_embedding(toy):
    with pytest.raises(ConfigError, match=r"'mlp' does not work with InputShape\(x=\(3,\).*5x2"):
        try_components(toy, Fixed(), 1)
    with pytest.raises(ConfigError, match=r"'mlp' returns \(8, \d+\) for 8 rows"):
        try_components(toy, Lying(), 1)


def test_implicit_priors_are_tried_by_draw():
    class Drawn(sbi_toy.ToySimulator):
        parameters = ParameterSpace((Parameter("a", Prior("implicit", {"sampler": "mine"})),))

        def draw(self, n, rng):
            from sbi_core import Batch

            return Batch(x=np.ones((n, 3)), theta=np.ones((n, 2)))

    with pytest.raises(SimulationError, match=r"draw returned theta of shape \(8, 2\)"):
        try_components(Drawn(), MLP, 1)


def test_the_global_generators_are_left_alone(toy):
    before = torch.get_rng_state()
    try_components(toy, MLP, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_stops_before_it_simulates(tmp_path, monkeypatch):
    monkeypatch.setattr(sbi_toy.ToySimulator, "observables", sbi_toy.ToySimulator.observables[:2])
    registry = Registry(["toy"], extra={"toy": sbi_toy})
    with pytest.raises(SimulationError, match="x with 3 columns, but `observables` names 2"):
        execute(resolve(registry, "toy", preset="quick"), tmp_path / "run", registry)
    assert not list((tmp_path / "run").rglob("part-*.h5"))
