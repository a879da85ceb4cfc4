"""Inversion and MCMC of the experiments: what the posterior of the network is compared with."""

import numpy as np
import pytest

from sbi_core import ConfigError, stream
from sbi_sfh import baselines
from sbi_sfh.config import SfhConfig
from sbi_sfh.simulator import SfhSimulator


@pytest.fixture(scope="module")
def simulator():
    return SfhSimulator(SfhConfig(family="gp"))  # the only one with coordinates for MCMC


def test_inversion_finds_a_single_population(simulator):
    library = simulator.library
    flux = library.spectra()[8, 45]
    flux = flux / np.median(flux)
    found = baselines.invert(simulator, flux, flux / 1000)
    assert found.mh == pytest.approx(library.mh[8], abs=0.05)
    formed = simulator.config.t_end - library.age_gyr[45]
    assert found.percentiles[4] == pytest.approx(formed, abs=0.4)
    assert found.chi2 < 0.1


def test_mcmc_coordinates_are_the_prior(simulator, rng):
    theta, flux = baselines.theta_of(simulator, rng.standard_normal((1500, 6)))
    drawn = simulator.draw(1500, 4).theta.double().numpy()
    # 4 sigma of the difference of two means of 1500 draws
    limit = 4 * np.sqrt(2 / 1500) * drawn.std(0)
    assert (np.abs(theta.mean(0) - drawn.mean(0)) < limit).all()
    np.testing.assert_allclose(np.median(flux, axis=1), 1.0, rtol=1e-3)


def test_mcmc_runs_and_stays_near_the_truth(simulator):
    batch = simulator.draw(1, 21)
    flux = simulator.observe(batch, 3).x[0].double().numpy()
    found = baselines.emcee_posterior(
        simulator, flux, stream(1, "mcmc"), walkers=16, steps=40, burn=60
    )
    assert found.theta.shape[1] == 10
    assert abs(found.theta[:, 9].mean() - float(batch.theta[0, 9])) < 0.5
    assert not found.converged  # 40 steps are none


def test_mcmc_refuses_what_it_is_not_written_for(observed_simulator):
    with pytest.raises(ConfigError, match="mode 'mock'"):
        baselines.emcee_posterior(observed_simulator, np.ones(4300), stream(1, "mcmc"))
