"""Histories between percentiles, from the data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core import Observations, stream
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
    assert all(m.best_chi2 == m.mean.chi2 for m in made)
    assert all(m.mean.sigma > 0 for m in made)


def test_spectra_without_errors_are_completed(simulator):
    objects = mocks(simulator, 2)
    bare = Observations.from_batch(objects.batch.with_(x_err=None), id=["a", "b"])
    made = recover_object(simulator, bare, 0, truth_of(objects)[None, 0], fits=0)
    assert made.mean.rms < 0.02
    assert np.isnan(made.mean.chi2)
