"""Histories between percentiles, from the data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core import Batch, Observations, stream
from sbi_sfh.completion import complete
from sbi_sfh.percentiles import crossing_times
from sbi_sfh.recovered import recover_object
from sbi_sfh.residuals import weighted


def mocks(simulator, n, seed=1):
    return simulator.example_observations(stream(seed, "completion"), n)


def truth_of(objects):
    return np.stack([objects.truth[n] for n in objects.truth_names], axis=1)


def test_completed_histories_keep_their_percentiles_and_fit_the_spectrum(simulator):
    objects, fractions = mocks(simulator, 20), simulator.recovery.fractions
    theta = truth_of(objects)
    chi2 = []
    for k in range(len(objects)):
        flux, weight, _ = weighted(objects.batch[k])
        growth = complete(
            simulator.synthesis, theta[k : k + 1], fractions, simulator.library.basis, flux, weight
        )
        assert (np.diff(growth) >= 0).all()
        assert growth[0, -1] == pytest.approx(1.0)
        times = crossing_times(growth, simulator.synthesis.time, fractions)
        assert_allclose(times[0], theta[k, :9], atol=0.03)
        chi2.append(recover_object(simulator, objects, k, theta[None, k], fits=0).mean.chi2)
    # 4300 pixels: 5 standard deviations are 0.11
    assert np.median(chi2) == pytest.approx(1.0, abs=0.11)
    assert np.quantile(chi2, 0.9) < 1.3


@pytest.mark.parametrize("what", ["late", "metallicity"])
def test_wrong_parameters_do_not_fit(simulator, what):
    objects = mocks(simulator, 10)
    off = truth_of(objects)
    if what == "late":
        end = simulator.config.t_end
        off[:, :9] = end - 0.1 * (end - off[:, :9])
    else:
        off[:, 9] += np.where(off[:, 9] < -1.0, 0.5, -0.5)
    chi2 = [recover_object(simulator, objects, k, off[None, k], fits=0).mean.chi2
            for k in range(10)]  # fmt: skip
    assert np.median(chi2) > 2.0


def test_dispersion_calibration_and_masks_are_taken_into_account(observed_simulator):
    objects = mocks(observed_simulator, 10)
    theta = truth_of(objects)
    made = [recover_object(observed_simulator, objects, k, theta[None, k], fits=1)
            for k in range(10)]  # fmt: skip
    assert np.median([m.mean.chi2 for m in made]) == pytest.approx(1.0, abs=0.11)
    assert_allclose([m.best_chi2 for m in made], [m.mean.chi2 for m in made], rtol=1e-2)
    assert all(m.mean.sigma > 0 for m in made)


def old_galaxies(simulator, n=16):
    """One burst 5 Gyr ago, S/N 100, with calibration errors."""
    time = simulator.synthesis.time
    rate = np.exp(-0.5 * ((time - (time[-1] - 5.0)) / 0.3) ** 2) * (time > 0)
    growth = np.tile(np.cumsum(rate) / rate.sum(), (n, 1))
    c, _, _ = simulator.synthesis.coefficients(growth, np.zeros(n))
    times = crossing_times(growth, time, simulator.recovery.fractions)
    batch = Batch.of_arrays(theta=np.column_stack([times, np.zeros(n)]), x=c.astype(np.float32))
    gen = torch.Generator().manual_seed(4)
    drawn = simulator.telescope.draw(n, gen)
    rows = replace(drawn, snr=torch.full((n,), 100.0), sigma=torch.full((n,), 150.0))
    seen = simulator.telescope.observe_as(batch, rows, gen, tell_sigma=False)
    return Observations.from_batch(seen, id=[str(k) for k in range(n)],
                                   context_names=simulator.context_names,
                                   truth_names=simulator.parameters.names)  # fmt: skip


def test_a_first_history_far_from_the_galaxy_does_not_matter(observed_simulator):
    """Before, calibration and dispersion were those of the first history: chi2 up to 78."""
    objects = old_galaxies(observed_simulator)
    theta = truth_of(objects)
    shift, width = np.linspace(-0.6, 0.6, len(theta)), np.linspace(-0.8, 0.8, 9)
    theta[:, :9] += shift[:, None] + width  # as the mean of a wide posterior has it
    made = [recover_object(observed_simulator, objects, k, theta[None, k], fits=0).mean
            for k in range(len(objects))]  # fmt: skip
    assert np.median([m.chi2 for m in made]) < 1.1
    assert max(m.chi2 for m in made) < 1.5
    assert_allclose([m.sigma for m in made], 150.0, atol=13.0)


def test_spectra_without_errors_are_completed(simulator):
    objects = mocks(simulator, 2)
    bare = Observations.from_batch(objects.batch.with_(x_err=None), id=["a", "b"])
    made = recover_object(simulator, bare, 0, truth_of(objects)[None, 0], fits=0)
    assert made.mean.rms < 0.02
    assert np.isnan(made.mean.chi2)
