import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core import ConfigError, DensityUnavailableError, stream
from sbi_sfh.config import SfhConfig
from sbi_sfh.histories import draw_histories, history_spec
from sbi_sfh.populations import mh_bins
from sbi_sfh.recover import METHODS, Recovery, star_formation_rate
from sbi_sfh.residuals import fit_spectrum
from sbi_sfh.simulator import SfhSimulator


def test_draws_are_repeatable_and_ordered(simulator):
    a, b = simulator.draw(50, 3), simulator.draw(50, 3)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.theta, b.theta)
    assert bool((a.theta[:, :9].diff(dim=1) > 0).all())
    assert a.x.shape == (50, 49)


def test_spectra_have_median_one(simulator):
    batch = simulator.draw(20, 3)
    flux = simulator.telescope.noise_free(batch.x)
    assert_allclose(flux.median(1).values.numpy(), 1.0, rtol=1e-3)
    assert bool((flux > 0).all())


def test_the_first_stars_are_the_oldest(simulator):
    early, late = np.zeros((2, 1000))
    early[1:], late[-1] = 1.0, 1.0
    weights, _ = simulator.synthesis.weights(np.stack([early, late]))
    ages = simulator.library.age_gyr
    assert weights[0] @ ages == pytest.approx(13.45, abs=0.05)
    assert weights[1] @ ages == pytest.approx(ages[0])


def test_all_mass_is_conserved(simulator, rng):
    found = draw_histories(50, simulator.config, rng)
    weights, clamped = simulator.synthesis.weights(found.cumulative)
    assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    assert ((clamped >= 0) & (clamped <= 1)).all()


def test_the_product_is_the_explicit_sum(simulator, rng):
    found = draw_histories(1, simulator.config, rng)
    c, median, _ = simulator.synthesis.coefficients(found.cumulative, np.array([0.0]))
    weights, _ = simulator.synthesis.weights(found.cumulative)
    library = simulator.library
    low = int(np.searchsorted(library.mh, 0.0)) - 1
    part = -library.mh[low] / (library.mh[low + 1] - library.mh[low])
    spectra = library.spectra()
    flux = sum(
        weights[0, k] * ((1 - part) * spectra[low, k] + part * spectra[low + 1, k])
        for k in range(53)
    )
    assert median[0] == pytest.approx(np.median(flux), rel=1e-5)
    assert_allclose(c[0] @ library.basis, flux / np.median(flux), rtol=1e-5)


def test_copies_of_a_history_share_their_key():
    simulator = SfhSimulator(SfhConfig(copies=3, grid="readme"))
    batch = simulator.draw(30, 1)
    keys = batch.split_key.numpy()
    assert len(np.unique(keys)) == 10
    assert (keys[::3] == keys[2::3]).all()
    assert len(np.unique(batch.theta[:, 9].numpy())) > 3


def test_clamped_bins_carry_the_effective_label():
    simulator = SfhSimulator(SfhConfig(grid="readme"))
    labels = simulator.draw(500, 1).theta[:, 9].numpy()
    assert labels.min() == pytest.approx(-2.27, abs=1e-6)
    assert labels.max() == pytest.approx(0.26, abs=1e-6)
    assert mh_bins(SfhConfig(mh_bins="step0.2"))[-1] == pytest.approx(0.5)


def test_tau_family_and_lookback_spec():
    config = SfhConfig(family="tau")
    batch = SfhSimulator(config).draw(20, 1)
    assert bool(batch.ok.all())
    assert history_spec(config)["family"] == "tau"


def test_overshoot_limit_changes_prior_and_draws(rng):
    config = SfhConfig(max_overshoot=0.05)
    assert draw_histories(40, config, rng).overshoot.max() <= 0.05
    assert history_spec(config) != history_spec(SfhConfig())


def test_identity_follows_what_changes_the_numbers():
    base = SfhSimulator(SfhConfig())
    other = SfhSimulator(SfhConfig(wave_range="paper-etg"))
    assert base.identity != other.identity
    assert base.parameters.hash != SfhSimulator(SfhConfig(redshift=0.05)).parameters.hash
    assert base.parameters.hash != SfhSimulator(SfhConfig(interp="pchip")).parameters.hash


def test_the_prior_of_percentiles_has_no_density(simulator):
    with pytest.raises(DensityUnavailableError, match="implicit"):
        simulator.parameters.log_prob(np.ones((1, 10)))


def test_redshift_sets_the_age_of_the_universe():
    # flat LCDM, H0 = 70, Omega_m = 0.3
    assert SfhConfig(redshift=0.0).t_end == pytest.approx(13.467, abs=1e-3)
    assert SfhConfig(redshift=0.05).t_end == pytest.approx(12.79, abs=0.02)


@pytest.fixture(scope="module")
def recovery(simulator):
    return Recovery(simulator.synthesis, size=2000)


@pytest.mark.parametrize("method", METHODS)
def test_recovered_growth_is_a_growth_curve(recovery, simulator, method):
    theta = simulator.draw(30, 5).theta.numpy()
    growth = recovery.growth(theta, method)
    assert (np.diff(growth, axis=1) >= -1e-12).all()
    assert_allclose(growth[:, -1], 1.0, atol=1e-9)
    assert_allclose(star_formation_rate(growth, recovery.time).mean(1) * 13.467, 1.0, atol=0.2)


def test_recovered_growth_meets_the_percentiles(recovery, simulator):
    from sbi_sfh.percentiles import crossing_times

    theta = simulator.draw(30, 5).theta.double().numpy()
    for method in ("bank", "derivative"):
        times = crossing_times(recovery.growth(theta, method), recovery.time, recovery.fractions)
        assert_allclose(times, theta[:, :9], atol=0.03)


def test_the_bank_recovers_spectra_within_a_percent(recovery, simulator):
    found = simulator.synthesis.draw(100, stream(1, "recover"))
    theta = np.concatenate([found.histories.percentiles, found.mh[:, None]], 1)
    truth = found.coefficients @ simulator.library.basis
    rms = {
        m: np.median(np.sqrt(((recovery.spectra(theta, m) / truth - 1) ** 2).mean(1)))
        for m in ("bank", "derivative")
    }
    assert rms["bank"] < 0.01
    assert rms["bank"] < rms["derivative"]


def test_unknown_methods_are_refused(recovery):
    with pytest.raises(ConfigError, match="unknown method"):
        recovery.growth(np.ones((1, 10)), "spline")


def test_a_perfect_model_has_chi2_one(simulator, observed_simulator):
    # 4300 pixels: 5 sigma of chi2 per pixel are 0.11
    for s in (simulator, observed_simulator):
        batch = s.draw(1, 9)
        fit = fit_spectrum(s.telescope, batch.x[0].double().numpy(), s.observe(batch, 4))
        assert fit.chi2 == pytest.approx(1.0, abs=0.11)


def test_theta_must_fit(simulator):
    with pytest.raises(ConfigError, match="shape"):
        simulator.simulate(np.ones((2, 3)))
    bad = np.ones((2, 10))
    bad[1, 4] = np.nan
    with pytest.raises(ConfigError, match="row 1, column 't50'"):
        simulator.simulate(bad)


def test_examples_carry_their_truth(simulator):
    example = simulator.example_observations(3, n=4)
    assert len(example) == 4
    assert set(example.truth) == set(simulator.parameters.names)


def test_summaries_see_lines_and_ignore_the_scale(simulator):
    batch = simulator.observe(simulator.draw(5, 1), 2)
    one = simulator.summaries(batch).x
    assert one.shape == (5, 172)
    assert_allclose(
        simulator.summaries(batch.with_(x=3 * batch.x)).x.numpy(), one.numpy(), rtol=1e-4
    )
