"""Several yield sets as one simulator."""

import numpy as np
import pytest

from sbi_chempy.marginal import ChempyMarginalConfig, ChempyMarginalSimulator
from sbi_core import ConfigError, get_simulator


@pytest.fixture(scope="module")
def mixture():
    sets = ("default", "iwamoto99-w7+limongi18-v150+karakas10")
    return ChempyMarginalSimulator(ChempyMarginalConfig(sets=sets))


def test_every_galaxy_has_one_of_the_yield_sets(mixture):
    rng = np.random.default_rng(1)
    theta = mixture.parameters.sample(40, rng)
    theta[:20, :2], theta[20:, :2] = theta[0, :2], theta[20, :2]
    batch = mixture.simulate(theta, 1)
    model = mixture.model_of(theta)
    assert len(set(model[:20])) == len(set(model[20:])) == 1
    for k, simulator in enumerate(mixture.simulators):
        own = simulator.simulate(theta, 1)
        rows = (model == k) & own.ok.numpy()
        np.testing.assert_array_equal(batch.x.numpy()[rows], own.x.numpy()[rows])


def test_it_is_found_by_name_and_says_which_yields_it_has(mixture):
    found = get_simulator("chempy-marginal", sets=list(mixture.config.sets))
    assert found.identity == mixture.identity
    yields = {m["yields"] for m in found.identity["models"]}
    assert len(yields) == 2
    assert len(found.example_observations(1, 5)) == 5
    assert get_simulator("chempy-marginal").parameters.hash == found.parameters.hash


def test_one_yield_set_is_no_mixture():
    with pytest.raises(ConfigError):
        get_simulator("chempy-marginal", sets=["default"])
