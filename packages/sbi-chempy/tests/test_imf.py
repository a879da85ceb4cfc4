"""The IMF is a set of 5000 weights; every integral is a plain sum."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy import imf

ALPHAS = torch.tensor([-3.8, -2.3, -2.0, -1.0], dtype=torch.float64)


def test_weights_are_positive_and_sum_to_one():
    weights = imf.mass_weights(ALPHAS)
    assert (weights > 0).all()
    assert_allclose(weights.sum(1), 1.0, rtol=1e-14)


def test_imf_is_continuous_at_one_solar_mass():
    mass = torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=torch.float64)
    low, high = imf.chabrier(mass, ALPHAS[:1])[0]
    assert_allclose(low, high, rtol=1e-5)


def test_slope_above_one_solar_mass_is_alpha():
    mass = torch.tensor([2.0, 20.0], dtype=torch.float64)
    phi = imf.chabrier(mass, ALPHAS)
    assert_allclose(torch.log10(phi[:, 1] / phi[:, 0]), ALPHAS, atol=1e-12)


def test_cumulative_counts_points_strictly_below_a_mass():
    x = imf.mass_grid()
    weights = imf.mass_weights(ALPHAS)[1].numpy()
    cumulative = imf.cumulative_mass(ALPHAS)[1].numpy()
    for mass in (1.0, 8.0, float(x[700]), 100.0):
        assert_allclose(cumulative[imf.grid_index(mass)], weights[x < mass].sum(), rtol=1e-12)


def test_the_point_at_100_solar_masses_never_counts():
    assert imf.grid_index(100.0) == imf.N_GRID - 1


def test_steeper_slope_means_fewer_massive_stars():
    cumulative = imf.cumulative_mass(ALPHAS)
    massive = 1 - cumulative[:, int(imf.grid_index(8.0))]
    assert (massive.diff() > 0).all()


def test_gradient_with_respect_to_the_slope_matches_finite_differences():
    alpha = torch.tensor([-2.3], dtype=torch.float64, requires_grad=True)
    index = int(imf.grid_index(8.0))
    (gradient,) = torch.autograd.grad(imf.cumulative_mass(alpha)[0, index], alpha)
    low, high = (
        imf.cumulative_mass(torch.tensor([a], dtype=torch.float64))[0, index]
        for a in (-2.3 - 1e-5, -2.3 + 1e-5)
    )
    assert_allclose(gradient[0], (high - low) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("name", ["tng", "alternative"])
def test_weights_equal_those_of_the_original_code(chempy_data, name):
    with np.load(chempy_data / f"stage_{name}.npz") as stage:
        alpha = torch.tensor([float(stage["params"][0])], dtype=torch.float64)
        assert_allclose(imf.mass_grid(), stage["imf_x"], rtol=1e-15)
        dm = imf.mass_weights(alpha)[0].numpy()
        assert_allclose(dm, stage["imf_dm"] / stage["imf_dm"].sum(), rtol=1e-11)
