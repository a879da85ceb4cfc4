"""Truncated sequential estimation against a posterior that is known."""

import numpy as np
import pytest
import torch

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError, ObservationError, SimulationError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.refine import RefineConfig, refine
from sbi_core.training.config import TrainConfig

ERROR = 0.02
PRIOR = Prior("uniform", {"low": -2.0, "high": 2.0})
FAST = {
    "config": RefineConfig(rounds=3, simulations=600, draws=3000),
    "train": TrainConfig(epochs=60, batch_size=32),
}


class Lines(Simulator):
    """x = (a + b, a - b) with errors of 0.02: a posterior 100 times narrower than the prior."""

    name, version, observables = "lines", "1", ()
    parameters = ParameterSpace((Parameter("a", PRIOR), Parameter("b", PRIOR)))
    default_error = ERROR

    def simulate(self, theta, rng):
        theta = torch.as_tensor(theta)
        a, b = theta[:, 0], theta[:, 1]
        return Batch(theta=theta, x=torch.stack([a + b, a - b], dim=1).float())


class Square(Lines):
    """x = a^2: two modes."""

    parameters = ParameterSpace((Parameter("a", PRIOR),))

    def simulate(self, theta, rng):
        theta = torch.as_tensor(theta)
        return Batch(theta=theta, x=(theta**2).float())


def estimator():
    return MixtureEstimator(MixtureConfig(components=4, hidden=(32, 32)))


def observed(x, err=ERROR):
    x = torch.tensor([x])
    return Observations.from_batch(Batch(x=x, x_err=torch.full_like(x, err)), id=["star"])


@pytest.fixture(scope="module")
def lines():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield refine(Lines(), estimator, IdentityEmbedding(), observed([0.5, 0.1]), seed=3, **FAST)
    torch.set_num_threads(threads)


def test_it_reaches_the_exact_posterior_and_counts_what_it_spent(lines):
    draws = lines.sample(4000, 1).values[:, 0]
    sd = ERROR / np.sqrt(2)  # exact: a = (x1 + x2) / 2 = 0.3, b = 0.2
    # a small net; after the first round alone the width is several times too large
    assert np.abs((draws.mean(0) - [0.3, 0.2]) / sd).max() < 0.5
    assert np.abs(np.log(draws.std(0) / sd)).max() < 0.35
    assert [r.number for r in lines.rounds] == [1, 2, 3]
    assert [r.simulations for r in lines.rounds] == [600] * 3
    masses = [r.prior_mass for r in lines.rounds]
    assert masses[0] == 1
    assert masses[2] < masses[1] < 0.3
    assert lines.rounds[2].trained_on >= 600
    assert min(lines.rounds[2].coverage_p) > 1e-4  # false alarms: 2e-4, were it exact
    assert lines.rounds[2].verdict.level in ("pass", "fail")
    assert "1800 simulations" in repr(lines)


def test_the_density_is_normalised_and_belongs_to_the_draws(lines):
    draws = lines.sample(2000, 2).values[:, 0]
    low, high = draws.min(0) - 0.01, draws.max(0) + 0.01
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 80).T), axis=-1).reshape(-1, 2)
    cell = np.prod((high - low) / 79)
    assert np.exp(lines.log_prob(grid)).sum() * cell == pytest.approx(1, abs=0.03)
    assert np.isfinite(lines.log_prob(draws)).all()
    assert (lines.log_prob(np.array([[1.9, 1.9], [3.0, 0.0]])) == -np.inf).all()
    assert lines._region.inside(lines.space.to_unconstrained(draws)).all()


def test_results_repeat(one_thread):
    again = {**FAST, "config": RefineConfig(rounds=2, simulations=200, draws=1000)}
    args = (Lines(), estimator, IdentityEmbedding(), observed([0.5, 0.1]))
    first, second = (refine(*args, seed=5, **again) for _ in range(2))
    np.testing.assert_array_equal(first.sample(50, 1).values, second.sample(50, 1).values)


def test_both_modes_survive_the_truncation(one_thread):
    shown = []
    got = refine(
        Square(), estimator, IdentityEmbedding(), observed([1.0], 0.05), seed=1,
        report=shown.append, **FAST,
    )  # fmt: skip
    a = got.sample(2000, 1).values[:, 0, 0]
    assert 0.3 < (a > 0).mean() < 0.7
    assert np.abs(np.abs(a) - 1).mean() < 0.1
    assert len(shown) == len(got.rounds)


def test_simulations_at_hand_replace_the_first_round(one_thread):
    sim = Lines()
    first = sim.draw(600, 1)
    got = refine(
        sim, estimator, IdentityEmbedding(), observed([0.5, 0.1]), first=first, seed=1,
        config=RefineConfig(rounds=1), train=TrainConfig(epochs=2),
    )  # fmt: skip
    assert got.rounds[0].simulations == 0
    assert got.rounds[0].trained_on == 600


def test_an_uninformative_observation_stops_the_rounds(one_thread):
    got = refine(
        Lines(), estimator, IdentityEmbedding(), observed([0.5, 0.1], 100.0), seed=1,
        config=RefineConfig(rounds=4, simulations=300, draws=1000), train=TrainConfig(epochs=3),
    )  # fmt: skip
    assert len(got.rounds) < 4


def test_bad_input_is_named():
    two = Observations.from_batch(Batch(x=torch.zeros(2, 2)))
    with pytest.raises(ObservationError, match="one object, got 2"):
        refine(Lines(), estimator, IdentityEmbedding(), two)

    class Counts(Lines):
        parameters = ParameterSpace((Parameter("n", Prior("integer", {"low": 1, "high": 9})),))

    with pytest.raises(ConfigError, match="'n' is discrete"):
        refine(Counts(), estimator, IdentityEmbedding(), observed([0.5, 0.1]))

    class Broken(Lines):
        def simulate(self, theta, rng):
            batch = super().simulate(theta, rng)
            return batch.with_(ok=torch.zeros(len(batch), dtype=torch.bool))

    with pytest.raises(SimulationError, match="all 5000 simulations of round 1 failed"):
        refine(Broken(), estimator, IdentityEmbedding(), observed([0.5, 0.1]))
