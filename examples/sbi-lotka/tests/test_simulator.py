"""The jump process against cases whose distribution is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_lotka.simulator import PREDATORS, TIMES, LotkaConfig, LotkaSimulator, trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def rows(n, a, b, c, prey):
    return np.tile([a, b, c, prey], (n, 1)).astype(float)


def test_prey_without_predation_grows_like_a_yule_process(rng):
    """Mean X0 e^(at), variance X0 e^(at) (e^(at) - 1) (Yule 1925); 5 sigma."""
    n, a, start = 2000, 0.2, 30
    counts, ok = trajectories(rows(n, a, 0.0, 0.5, start), rng, 100_000)
    growth = np.exp(a * TIMES)
    mean, variance = start * growth, start * growth * (growth - 1)
    assert ok.all()
    assert (np.abs(counts[:, 0].mean(0) - mean) < 5 * np.sqrt(variance / n)).all()
    assert_allclose(counts[:, 0].var(0), variance, rtol=5 * np.sqrt(3 / n))


def test_predators_without_prey_die_independently(rng):
    """Each survives to t with probability e^(-ct): a binomial; 5 sigma."""
    n, c = 2000, 0.3
    counts, ok = trajectories(rows(n, 1.0, 0.01, c, 0), rng, 1000)
    p = np.exp(-c * TIMES)
    assert ok.all()
    assert (counts[:, 0] == 0).all()
    sd = np.sqrt(PREDATORS * p * (1 - p) / n)
    assert (np.abs(counts[:, 1].mean(0) - PREDATORS * p) < 5 * sd).all()


def test_many_animals_follow_the_deterministic_equations(rng):
    """At the fixed point X = c / b, Y = a / b the means stay for a short time."""
    a, b = 1.0, 0.05  # Y = a / b is what every island starts with
    counts, _ = trajectories(rows(1000, a, b, 1.0, 20), rng, 100_000)
    first = counts[:, :, 0].mean(0)
    assert_allclose(first, [20, 20], atol=1.5)


def test_animals_only_come_in_whole_numbers_and_are_never_negative(rng):
    counts, ok = trajectories(LotkaSimulator.parameters.sample(500, rng), rng, 20_000)
    assert counts.min() >= 0
    assert ok.mean() > 0.95


def test_an_explosion_is_flagged_and_not_raised(rng):
    simulator = LotkaSimulator(LotkaConfig(max_events=200))
    batch = simulator.simulate(rows(4, 2.0, 0.0001, 0.3, 200), rng)
    assert not batch.ok.any()
    assert set(batch.failure.tolist()) == {1}
    assert simulator.failures[1] == "more events than max_events"


def test_both_species_of_a_survey_are_missing_together(rng):
    simulator = LotkaSimulator()
    seen = simulator.observe(simulator.draw(50, rng).succeeded, rng)
    assert bool((seen.mask[:, 0] == seen.mask[:, 1]).all())
    assert 0.8 < float(seen.mask.float().mean()) < 0.98
