"""Asinh magnitudes, errors, noise and missing bands."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core import ConfigError
from sbi_sedflow.constants import POGSON
from sbi_sedflow.luptitudes import flux_error_of, flux_of, luptitude, luptitude_error
from sbi_sedflow.masks import SHARES, draw_masks
from sbi_sedflow.noise import HotDeck, NoiseModel, floor_error, log_prob_flux, log_prob_sigma


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def test_asinh_magnitudes_and_fluxes_are_inverse():
    flux = torch.tensor([[-5.0, 0.0, 1e-3, 1.0, 50.0, 1e4, 1e6]], dtype=torch.float64)
    assert_allclose(flux_of(luptitude(flux)), flux, atol=1e-9)
    sigma = torch.full_like(flux, 0.3)
    assert_allclose(flux_error_of(luptitude(flux), luptitude_error(flux, sigma)), sigma)


def test_bright_asinh_magnitudes_are_magnitudes():
    flux = torch.full((1, 7), 1e5, dtype=torch.float64)
    assert_allclose(luptitude(flux), 22.5 - 2.5 * np.log10(1e5), atol=1e-8)
    assert_allclose(luptitude_error(flux, 0.02 * flux), 0.02 * POGSON, rtol=1e-6)


def test_masks_have_the_stated_shares():
    masks = draw_masks(100_000, generator())
    assert sum(SHARES.values()) == pytest.approx(1.0)
    empty = (~masks.any(1)).double().mean()
    expected = SHARES["empty"] + SHARES["random"] * 0.35**7
    assert_allclose(empty, expected, atol=5 * np.sqrt(0.01 / 1e5))  # five sigma
    patterns = {tuple(m) for m in masks.tolist()}
    assert len(patterns) == 128


def test_errors_follow_those_of_real_galaxies(sedflow_data):
    """Medians per magnitude bin of the excerpt, bands and bins with 30 galaxies: 0.2 dex."""
    bins = json.loads((sedflow_data / "nsa_noise_bins.json").read_text())
    columns, bins = bins["columns"], bins["bands"]
    model, worst = NoiseModel(), []
    for k, band in enumerate(("F", "N", "u", "g", "r", "i", "z")):
        for values in bins[band]:
            row = dict(zip(columns, values, strict=True))
            if row["n"] < 30:
                continue
            flux = 10 ** (0.4 * (22.5 - row["mag_mid"]))
            sigma = model.sigma(torch.full((1000, 7), flux, dtype=torch.float64), generator())
            mag_error = POGSON * sigma[:, k] / flux
            worst.append(
                abs(float(torch.log10(mag_error).median()) - np.log10(row["median_sigma"]))
            )
    assert len(worst) > 30
    assert np.median(worst) < 0.1
    assert np.percentile(worst, 90) < 0.25


def test_the_density_of_errors_is_that_of_the_draws():
    """KL by Monte Carlo: the mean log ratio of own to shifted density is positive, and the
    density is normalised (importance sampling from a wide normal in one band)."""
    flux = torch.full((4_000, 7), 30.0, dtype=torch.float64)
    mask = torch.zeros_like(flux, dtype=torch.bool)
    mask[:, 4] = True
    log_sigma = torch.linspace(-4, 3, 4_000, dtype=torch.float64)
    sigma = (10**log_sigma)[:, None].expand(-1, 7)
    density = log_prob_sigma(sigma, flux, mask).exp()
    assert_allclose(torch.trapezoid(density, log_sigma), 1, rtol=1e-3)
    drawn = NoiseModel().sigma(flux, generator())
    mean = torch.trapezoid(density * log_sigma, log_sigma)
    assert_allclose(torch.log10(drawn[:, 4]).mean(), mean, atol=0.02)


def test_the_likelihood_of_fluxes_is_the_normal_one():
    flux = torch.tensor([[10.0] * 7], dtype=torch.float64)
    sigma = torch.full_like(flux, 0.5)
    mask = torch.ones_like(flux, dtype=torch.bool)
    found = log_prob_flux(flux + 1.0, sigma, flux, mask, 0.03)
    s = np.sqrt(0.25 + (10 * 0.03 / POGSON) ** 2)
    assert_allclose(found, 7 * (-0.5 / s**2 - 0.5 * np.log(2 * np.pi * s**2)))
    broken = flux + 1.0
    broken[0, 3] = torch.nan
    mask[0, 3] = False
    assert_allclose(log_prob_flux(broken, sigma, flux, mask, 0.03), found * 6 / 7)
    assert_allclose(floor_error(-flux, 0.03), 0)


def test_noise_has_the_stated_width(toy):
    batch = toy.draw(1, 1)
    many = batch[torch.zeros(5_000, dtype=torch.long)]
    like = toy.observe(batch, 3)
    like = like.with_(
        x=batch.x, x_err=torch.full_like(batch.x, 0.05), mask=torch.ones_like(batch.x).bool()
    )
    seen = flux_of(toy.observe_like(many, like, 5).x)
    flux = flux_of(batch.x)
    sigma = flux_error_of(batch.x, torch.full_like(batch.x, 0.05))
    want = torch.sqrt(sigma**2 + floor_error(flux, 0.03) ** 2)[0]
    assert_allclose(seen.std(0), want, rtol=0.06)
    assert (abs(seen.mean(0) - flux[0]) < 5 * want / np.sqrt(5_000)).all()


def test_the_hot_deck_returns_errors_of_galaxies_as_bright(rng):
    flux = 10 ** rng.uniform(0, 4, (1000, 7))
    sigma = 0.05 * flux
    deck = HotDeck(flux, sigma)
    wanted = torch.as_tensor(10 ** rng.uniform(1, 3, (2000, 7)))
    found = deck.sigma(wanted, generator())
    ratio = (found[:, 4] / (0.05 * wanted[:, 4])).log10()
    assert abs(float(ratio.median())) < 0.1
    with pytest.raises(ConfigError, match="at least 200"):
        HotDeck(flux[:50], sigma[:50])
