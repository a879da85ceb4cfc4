"""Block means over a running continuum, with errors."""

import numpy as np
import torch
from numpy.testing import assert_allclose

from sbi_core import Batch
from sbi_sfh.summaries import block_summaries, relative_errors


def spectra(n=3, pixels=1010):
    x = np.linspace(1.0, 2.0, pixels) * np.ones((n, 1))
    return x, 0.1 * x


def test_a_power_law_is_close_to_one_and_its_errors_are_those_of_means():
    x, err = spectra()
    got = block_summaries(Batch(x=x, x_err=err), 10)
    assert got.x.shape == (3, 101)
    assert_allclose(got.x[:, 10:-10], 1.0, atol=1e-3)
    assert_allclose(got.x_err[:, 10:-10], 0.1 / np.sqrt(10), rtol=2e-3)


def test_the_scatter_of_noisy_spectra_is_the_error(rng):
    x, err = spectra(2000)
    noisy = block_summaries(Batch(x=x + err * rng.normal(size=x.shape), x_err=err), 10)
    scatter = noisy.x.std(0)[10:-10]
    # one of fifteen blocks of the continuum is the block itself: 1 - 1/15 of the scatter
    assert_allclose(scatter / noisy.x_err.mean(0)[10:-10], np.sqrt(14 / 15), atol=0.07)


def test_a_block_without_a_used_pixel_is_one_with_error_zero():
    x, err = spectra()
    mask = np.ones(x.shape, bool)
    mask[0, 200:210] = False
    mask[0, 300:305] = False
    err[0, 200:210] = np.nan  # as files have it
    got = block_summaries(Batch(x=x, x_err=err, mask=mask), 10)
    assert got.x[0, 20] == 1.0
    assert got.x_err[0, 20] == 0.0
    assert_allclose(got.x_err[0, 30] / got.x_err[0, 31], np.sqrt(2), rtol=0.01)
    assert torch.isfinite(got.x_err).all()


def test_relative_errors_are_the_inverse_signal_to_noise():
    x, err = spectra()
    err[1] *= np.where(np.arange(x.shape[1]) < 500, 4.0, 1.0)
    got = relative_errors(Batch(x=x, x_err=err), 10)
    assert got.shape == x.shape
    assert_allclose(got[0, 100:900], 0.1, rtol=2e-2)
    assert_allclose(got[1, 100:480], 0.4, rtol=2e-2)


def test_relative_errors_are_typical_where_nothing_was_observed_and_finite_without_flux():
    x, err = spectra()
    mask = np.ones(x.shape, bool)
    mask[0, 100:200] = False
    x[1, 400:700] = -0.1
    got = relative_errors(Batch(x=x, x_err=err, mask=mask), 10)
    assert_allclose(got[0, 100:200], got[0, mask[0]].median(), rtol=1e-6)
    assert torch.isfinite(got).all()
    assert (got > 0).all()
