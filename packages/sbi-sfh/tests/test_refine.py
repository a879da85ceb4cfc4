import numpy as np
import pytest
from scipy import special, stats

from sbi_core import ConfigError, stream
from sbi_sfh.config import SfhConfig
from sbi_sfh.coordinates import Coordinates
from sbi_sfh.histories import draw_family
from sbi_sfh.refine import Refiner, Target, _nuisances, target_of
from sbi_sfh.residuals import weighted
from sbi_sfh.simulator import SfhSimulator


@pytest.fixture(scope="module")
def refiner(simulator):
    return Refiner(simulator, bank=2000)


def test_numbers_of_coordinates_have_their_distributions(rng):
    numbers = Coordinates(np.empty((4000, 0)), rng)
    made = {
        "uniform": (numbers.uniform(2.0, 5.0, (4000, 1))[:, 0], stats.uniform(2, 3)),
        "normal": (numbers.normal(size=(4000, 2))[:, 1], stats.norm()),
        "exponential": (numbers.exponential(size=4000), stats.expon()),
        "dirichlet": (numbers.dirichlet([5.0] * 4, 4000)[:, 2], stats.beta(5, 15)),
    }
    for name, (values, exact) in made.items():
        assert stats.kstest(values, exact.cdf).pvalue > 1e-3, name
    counts = np.bincount(numbers.integers(1, 4, size=(4000, 1))[:, 0])
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


@pytest.mark.parametrize("family", ["gp", "tau", "delayed", "quenching", "bursts"])
def test_a_history_is_a_function_of_its_coordinates(family, rng):
    config = SfhConfig(family=family)
    first = Coordinates(np.empty((20, 0)), rng)
    drawn = draw_family(family, 20, config, first)
    again = draw_family(family, 20, config, Coordinates(first.z))
    np.testing.assert_array_equal(drawn.cumulative, again.cumulative)
    with pytest.raises(ValueError, match="too few"):
        draw_family(family, 20, config, Coordinates(first.z[:, :-1]))


def test_coordinates_have_the_prior_of_the_simulations(refiner, simulator):
    made = [refiner.populations(name, z).theta for name, (z, _) in refiner.bank.items()]
    ours = np.concatenate(made)
    theirs = simulator.draw(2000, 3).theta.double().numpy()
    p = [stats.ks_2samp(a, b).pvalue for a, b in zip(ours.T, theirs.T, strict=True)]
    assert min(p) > 1e-3  # one in a hundred seeds


def test_moves_keep_the_prior(refiner, simulator):
    flat = Target(np.zeros((len(simulator.library.basis),) * 2), np.zeros(1))
    found = refiner(flat, stream(1, "flat"), particles=300)
    theirs = simulator.draw(2000, 4).theta.double().numpy()
    p = [stats.ks_2samp(a, b).pvalue for a, b in zip(found.theta.T, theirs.T, strict=True)]
    assert min(p) > 1e-3
    assert found.efficiency == pytest.approx(1.0)


def test_the_posterior_is_that_of_importance_weights():
    """At S/N 1, many histories of the prior fit: their weighted mean is exact."""
    simulator = SfhSimulator(SfhConfig(snr=1.0))
    refiner = Refiner(simulator, bank=8000)
    mocks = simulator.example_observations(stream(3, "refine"), 1)
    target = target_of(simulator, mocks, 0, np.zeros(10))
    found = refiner(target, stream(4, "refine"), particles=400)
    log_l = np.concatenate([target(c) for _, c in refiner.bank.values()])
    weight = special.softmax(log_l)
    made = [refiner.populations(name, z).theta for name, (z, _) in refiner.bank.items()]
    theta = np.concatenate(made)
    assert 1.0 / (weight**2).sum() > 200
    mean = weight @ theta
    sd = np.sqrt(weight @ (theta - mean) ** 2)
    assert (np.abs(found.theta.mean(0) - mean) < 0.3 * sd).all()
    assert (np.abs(np.log(found.theta.std(0) / sd)) < np.log(1.25)).all()
    assert found.difference < 0.5


def test_nuisances_are_marginalised(observed_simulator):
    """The few numbers give the same likelihood as the covariance of the pixels."""
    sim = observed_simulator
    mocks = sim.example_observations(stream(5, "refine"), 1)
    theta = np.array([mocks.truth[n][0] for n in mocks.truth_names])
    target = target_of(sim, mocks, 0, theta)
    basis, rows = _nuisances(sim, mocks.batch[0], theta)
    flux, weight, used = weighted(mocks.batch[0])
    d = (rows * weight)[:, used]
    inverse = np.linalg.inv(np.eye(used.sum()) + d.T @ d)
    c = sim.recovery.coefficients(np.stack([theta, theta + [*[0.1] * 9, 0.02]]))
    off = ((flux - c @ basis) * weight)[:, used]
    exact = -0.5 * np.einsum("ni,ij,nj->n", off, inverse, off)
    assert np.diff(target(c))[0] == pytest.approx(np.diff(exact)[0], rel=1e-3, abs=0.05)


def test_priors_without_coordinates_are_refused():
    with pytest.raises(ConfigError, match="grid=continuous"):
        Refiner(SfhSimulator(SfhConfig(grid="readme")))
