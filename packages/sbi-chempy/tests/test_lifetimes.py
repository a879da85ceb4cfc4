"""Lifetimes, and turn-off masses as their interpolated inverse."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy import imf, lifetimes

METALLICITIES = (0.0, 1e-15, 1e-5, 1e-3, 0.02, 0.04)


def turnoff_by_interpolation(age, metallicity):
    """The definition: linear interpolation of x(tau(x_j)) over all 5000 points."""
    x = torch.as_tensor(imf.mass_grid())
    tau = lifetimes.lifetime(x, torch.tensor(metallicity, dtype=torch.float64)).numpy()
    return np.interp(age, tau[::-1], x.numpy()[::-1])


def test_the_sun_lives_about_ten_gyr():
    tau = lifetimes.lifetime(torch.tensor(1.0), torch.tensor(0.02))
    assert 8 < float(tau) < 13


def test_massive_stars_die_first():
    mass = torch.logspace(0, 2, 50, dtype=torch.float64)
    for z in METALLICITIES:
        assert (lifetimes.lifetime(mass, torch.tensor(z, dtype=torch.float64)).diff() < 0).all()


def test_metal_free_stars_live_like_stars_of_z_1e_5():
    mass = torch.tensor([1.0, 5.0, 50.0])
    free = lifetimes.lifetime(mass, torch.tensor(0.0))
    assert_allclose(free, lifetimes.lifetime(mass, torch.tensor(1e-5)), rtol=1e-6)


@pytest.mark.parametrize("metallicity", METALLICITIES)
def test_turnoff_mass_is_the_interpolated_inverse_of_the_lifetimes(metallicity):
    age = np.geomspace(0.03, 13.8, 400)
    got = lifetimes.turnoff_mass(
        torch.as_tensor(age), torch.tensor(metallicity, dtype=torch.float64)
    )
    want = turnoff_by_interpolation(age, metallicity)
    above = want > imf.M_MIN_MSUN  # below the grid np.interp clips, and so do we
    assert_allclose(got.numpy()[above], want[above], rtol=1e-9)


@pytest.mark.parametrize("metallicity", METALLICITIES)
def test_grid_position_counts_points_below_the_turnoff_mass(metallicity):
    age = np.geomspace(0.03, 13.8, 400)
    z = torch.tensor(metallicity, dtype=torch.float64)
    log_z = lifetimes.log10_metallicity(z)
    index = lifetimes.turnoff_grid_position(torch.log10(torch.as_tensor(age)), log_z)
    want = imf.grid_index(turnoff_by_interpolation(age, metallicity))
    inside = want > 0
    assert_allclose(index.numpy()[inside], want[inside])


def test_everything_is_alive_at_age_zero():
    assert lifetimes.turnoff_mass(torch.tensor(0.0), torch.tensor(0.02)) == pytest.approx(100.0)


def test_age_of_a_turnoff_mass_is_consistent():
    log_z = torch.log10(torch.tensor([1e-4, 0.02], dtype=torch.float64))
    age = lifetimes.interpolated_lifetime(1.0, log_z)
    mass = lifetimes.turnoff_mass(age, 10**log_z)
    assert_allclose(mass, 1.0, rtol=1e-12)


def test_lifetimes_and_turnoff_masses_equal_those_of_the_original_code(chempy_data):
    with np.load(chempy_data / "stage_tng.npz") as stage:
        x, z = torch.as_tensor(stage["imf_x"]), torch.as_tensor(stage["ssp_Z"])
        tau = lifetimes.lifetime(x, z[:, None])
        assert_allclose(tau, stage["lifetime_of_x"], rtol=1e-10)
        mass = lifetimes.turnoff_mass(torch.as_tensor(stage["time"]), z[:, None])
        assert_allclose(mass, stage["ssp_inverse_imf"], rtol=1e-8)
