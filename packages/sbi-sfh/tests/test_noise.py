from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from survey_spectra import galaxy, write

from sbi_core import ConfigError
from sbi_sfh.config import SfhConfig
from sbi_sfh.masks import EMISSION_LINES, emission_mask, sky_mask
from sbi_sfh.noise import Nuisances, Telescope


def test_noise_has_the_signal_to_noise_that_was_asked_for(simulator):
    batch = simulator.draw(40, 1)
    clean = simulator.telescope.noise_free(batch.x)
    seen = simulator.observe(batch, 2)
    pull = (seen.x - clean) / seen.x_err
    assert_allclose((clean / seen.x_err).numpy(), 100.0, rtol=1e-4)
    # 172 000 pixels: 5 sigma of the standard deviation is 0.0085
    assert float(pull.std()) == pytest.approx(1.0, abs=0.0085)


def test_noise_is_fresh_and_repeatable(simulator):
    batch = simulator.draw(3, 1)
    first, again, other = (simulator.observe(batch, k).x for k in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_free_mode_has_no_errors(simulator):
    telescope = Telescope(simulator.library, SfhConfig(noise="none"))
    batch = simulator.draw(3, 1)
    assert telescope.observe(batch, 1).x_err is None


def test_observed_spectra_vary_as_configured(observed_simulator):
    batch = observed_simulator.draw(200, 1)
    seen = observed_simulator.observe(batch, 2)
    median = torch.where(seen.mask, seen.x, torch.nan).nanmedian(1).values
    assert_allclose(median.numpy(), 1.0, rtol=1e-5)
    assert 1.0 <= float(seen.context[:, 0].min()) < float(seen.context[:, 0].max()) <= 2.302
    told = torch.isfinite(seen.context[:, 1])
    # half of 200: 5 sigma are 35
    assert 65 < int(told.sum()) < 135
    lines = emission_mask(observed_simulator.wave)
    assert not seen.mask[:, torch.as_tensor(lines)].any()


def test_dust_reddens_by_the_law_of_calzetti(observed_simulator):
    """Without noise, calibration and velocity, the ratio to the clean spectrum is the law."""
    sim = observed_simulator
    batch = sim.draw(3, 1).succeeded
    n, wave = len(batch), torch.as_tensor(sim.wave)
    rows = Nuisances(torch.full((n,), 1e7), torch.full((n,), 100.0), torch.zeros(n),
                     torch.zeros(n, sim.config.polynomial_order),
                     torch.ones(n, len(wave), dtype=torch.bool))  # fmt: skip
    clean = sim.telescope.observe_as(batch, rows, 1).x.double()
    red = sim.telescope.observe_as(batch, replace(rows, ebv=torch.full((n,), 0.3)), 1).x.double()
    blue, green = (int((wave - v).abs().argmin()) for v in (4400.0, 5500.0))
    ratio = red / clean
    colour = -2.5 * torch.log10(ratio[:, blue] / ratio[:, green])
    # k(4400) - k(5500) = 5.0603 - 4.0479 (Calzetti et al. 2000, equation 4)
    assert_allclose(colour.numpy(), 0.3 * 1.0124, atol=2e-3)


def test_dust_is_drawn_up_to_its_largest_value(observed_simulator):
    config = SfhConfig(mode="observed", dust=0.4)
    telescope = Telescope(observed_simulator.library, config)
    drawn = telescope.draw(400, torch.Generator().manual_seed(1))
    assert 0 <= float(drawn.ebv.min()) < 0.02
    assert 0.38 < float(drawn.ebv.max()) <= 0.4
    assert observed_simulator.telescope.draw(2, torch.Generator()).ebv is None
    with pytest.raises(ValueError, match="mode = 'observed'"):
        SfhConfig(dust=0.4)


def test_a_shift_moves_lines_by_the_velocity(observed_simulator):
    wave = torch.as_tensor(observed_simulator.wave, dtype=torch.float64)
    line = torch.exp(-0.5 * ((wave - 5200.0) / 3.0) ** 2)[None]
    moved = observed_simulator.telescope.shifted(line, torch.tensor([30.0]))
    centre = float((moved * wave).sum() / moved.sum())
    assert centre == pytest.approx(5200.0 * (1 + 30.0 / 299792.458), abs=0.01)


def test_dispersion_between_nodes_lies_between_them(observed_simulator):
    telescope = observed_simulator.telescope
    c = observed_simulator.draw(1, 3).x
    three = torch.cat([c, c, c])
    out = telescope.at_dispersion(three, torch.tensor([100.0, 106.25, 112.5]))
    assert_allclose(out[1].numpy(), 0.5 * (out[0] + out[2]).numpy(), rtol=1e-5)
    exact = c @ telescope.broadened[8]
    assert_allclose(out[0].numpy(), exact[0].numpy(), rtol=1e-5)


def test_lines_and_sky_are_masked():
    wave = 3540.5 + 0.9 * np.arange(4300)
    masked = emission_mask(wave)
    for line in EMISSION_LINES.values():
        assert masked[np.argmin(np.abs(wave - line))]
    assert 0.02 < masked.mean() < 0.15
    assert sky_mask(np.array([5577.0, 5600.0])).tolist() == [True, False]


def test_a_noise_shape_scales_the_errors(simulator, tmp_path):
    path = tmp_path / "shape.txt"
    table = np.stack([np.linspace(3500, 7500, 50), np.linspace(3, 1, 50)], 1)
    np.savetxt(path, table)
    telescope = Telescope(simulator.library, SfhConfig(noise_shape=str(path)))
    err = telescope.errors(torch.ones(2, 4300), 100.0)
    assert float(err.median()) == pytest.approx(0.01, rel=1e-3)
    assert float(err[0, 0] / err[0, -1]) == pytest.approx(2.98 / 1.05, rel=0.05)
    np.savetxt(path, table[10:])
    with pytest.raises(ConfigError, match="covers"):
        Telescope(simulator.library, SfhConfig(noise_shape=str(path)))


def test_a_noise_shape_may_be_that_of_spectra(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator, z=0.0)
    columns["IVAR"] *= np.where(columns["WAVE"] < 5000, 0.25, 1.0)
    path = write(tmp_path / "g.fits", columns, facts)
    err = Telescope(simulator.library, SfhConfig(noise_shape=str(path))).errors(
        torch.ones(1, 4300), 100.0
    )[0]
    flux = simulator.telescope.noise_free(simulator.draw(1, 1).x)[0]
    ratio = err / flux  # the errors of the fixture follow its flux
    blue, red = ratio[1400:1580].median(), ratio[1660:1840].median()
    assert float(blue / red) == pytest.approx(2.0, rel=0.05)
    assert float(err.median()) == pytest.approx(0.01, rel=1e-3)


def test_a_noise_shape_of_three_columns_is_a_spectrum(simulator, tmp_path):
    columns, _, _ = galaxy(simulator, z=0.0)
    table = [columns["WAVE"], columns["FLUX"], columns["IVAR"] ** -0.5]
    np.savetxt(tmp_path / "a.txt", np.stack(table, 1))
    with pytest.raises(ConfigError, match="nor of spectra: .*no redshift in the file"):
        Telescope(simulator.library, SfhConfig(noise_shape=str(tmp_path / "a.txt")))
    np.savetxt(tmp_path / "a.txt", np.stack(table, 1), header="REDSHIFT = 0\nVACUUM = T")
    Telescope(simulator.library, SfhConfig(noise_shape=str(tmp_path / "a.txt")))
    with pytest.raises(ConfigError, match="cannot be read"):
        Telescope(simulator.library, SfhConfig(noise_shape=str(tmp_path / "none.txt")))


def test_spectra_observed_like_others_have_the_shape_of_their_errors(observed_simulator):
    sim = observed_simulator
    batch = sim.draw(60, 1)
    given = sim.observe(batch, 2)
    blue = torch.where(torch.arange(given.x.shape[1]) < 1000, 3.0, 1.0)
    like = given.with_(x_err=given.x_err * blue)[np.arange(5)]
    seen = sim.observe_like(batch, like, 3)
    ratio = torch.where(seen.observed, seen.x_err / seen.x.abs(), torch.nan)
    shape = ratio[:, :1000].nanmedian(1).values / ratio[:, 1000:].nanmedian(1).values
    assert_allclose(shape, 3.0, rtol=0.25)  # ratios to noisy fluxes
    # the signal to noise is that of a donor
    snr = torch.where(seen.observed, seen.x / seen.x_err, torch.nan).nanmedian(1).values
    told = 10 ** seen.context[:, 0]
    assert set(np.round(told.tolist(), 3)) <= set(np.round((10 ** like.context[:, 0]).tolist(), 3))
    assert_allclose(snr, told, rtol=0.15)
