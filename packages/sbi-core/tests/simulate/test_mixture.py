"""Several simulators as one."""

import pickle

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose

from sbi_core.errors import ConfigError, ObservationError
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.simulate.mixture import MixtureSimulator


class Shifted(sbi_toy.ToySimulator):
    """The toy, 100 higher: nobody can confuse the two."""

    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return batch.with_(x=batch.x + 100.0)


@pytest.fixture
def mixture():
    return MixtureSimulator([sbi_toy.ToySimulator(), Shifted()])


def test_every_row_comes_from_the_simulator_it_is_said_to(mixture, toy, rng):
    theta = sbi_toy.SPACE.sample(500, rng)
    batch = mixture.simulate(theta, 1)
    plain = toy.simulate(theta, np.random.default_rng(0))
    shift = np.repeat(100.0 * mixture.model_of(theta)[:, None], 3, 1)
    assert_allclose(batch.x - plain.x, shift, atol=1e-4)
    assert_allclose(batch.theta, theta)


def test_shares_are_equal_and_do_not_depend_on_the_parameters(mixture, rng):
    theta = sbi_toy.SPACE.sample(20_000, rng)
    model = mixture.model_of(theta)
    assert abs(model.mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    for k in range(3):
        assert abs(np.corrcoef(model, theta[:, k])[0, 1]) < 5 / np.sqrt(20_000)
    three = MixtureSimulator([sbi_toy.ToySimulator()] * 3).model_of(theta)
    assert_allclose(np.bincount(three) / 20_000, 1 / 3, atol=0.02)


def test_objects_of_a_group_share_the_simulator(mixture, rng):
    batch = GroupSimulator(mixture, 50).draw(2000, rng)
    high = (batch.x[:, 0] > 50).reshape(40, 50)
    assert (high.all(1) | ~high.any(1)).all()
    assert 5 < int(high.all(1).sum()) < 35


def test_observing_is_that_of_the_first_and_a_likelihood_is_refused(mixture, toy, rng):
    theta = sbi_toy.SPACE.sample(5, rng)
    batch = mixture.simulate(theta, 1)
    torch.testing.assert_close(mixture.observe(batch, 3).x, toy.observe(batch, 3).x)
    like = toy.observe(batch, 4)
    assert mixture.observe_like(batch, like, 5).x_err is not None
    with pytest.raises(ObservationError, match="no likelihood"):
        mixture.log_likelihood(batch, like)
    assert len(mixture.identity["models"]) == 2
    assert mixture.citations == ("Toy & Toy 2025",)
    assert len(pickle.loads(pickle.dumps(mixture)).simulators) == 2
    assert len(mixture.simulate(theta[:0], 1)) == 0


def test_simulators_that_do_not_belong_together_are_refused():
    other = sbi_toy.ToySimulator()
    other.parameters = sbi_toy.SPACE.select("global")
    with pytest.raises(ConfigError, match="parameters or priors"):
        MixtureSimulator([sbi_toy.ToySimulator(), other])
    with pytest.raises(ConfigError, match="at least two"):
        MixtureSimulator([sbi_toy.ToySimulator()])
    blind = sbi_toy.ToySimulator()
    blind.observables = ()
    with pytest.raises(ConfigError, match="observables"):
        MixtureSimulator([sbi_toy.ToySimulator(), blind])
    local = sbi_toy.ToySimulator()
    local.parameters = sbi_toy.SPACE.select("local")
    with pytest.raises(ConfigError, match="shared parameters"):
        MixtureSimulator([local, local])
