import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import fit_error_law

N = np.array([1, 3, 10, 30, 100, 300, 1000])


@pytest.mark.parametrize("f", [0.0, 0.01, 0.05, 0.5])
def test_an_exact_law_is_recovered(f):
    law = fit_error_law(N, np.sqrt(1 + f**2 * N), np.full(len(N), 300))
    assert_allclose(law.f, f, atol=1e-6)
    assert_allclose(law.z_rms(N), np.sqrt(1 + f**2 * N), rtol=1e-6)


def test_a_five_per_cent_bias_is_found_in_simulated_groups(rng):
    f, repeats = 0.05, 400
    # A bias b per truth, b ~ N(0, f^2) single-object sigmas, common to the group's objects.
    bias = f * rng.standard_normal((len(N), repeats)) * np.sqrt(N)[:, None]
    z = bias + rng.standard_normal((len(N), repeats))
    law = fit_error_law(N, np.sqrt((z**2).mean(axis=1)), np.full(len(N), repeats))
    # 4 sigma: false alarms below 1e-4 of seeds.
    assert abs(law.f_squared - f**2) < 4 * law.f_squared_error
    assert law.f_squared > 4 * law.f_squared_error


def test_calibrated_groups_give_no_bias(rng):
    z = rng.standard_normal((len(N), 400))
    law = fit_error_law(N, np.sqrt((z**2).mean(axis=1)), np.full(len(N), 400))
    assert abs(law.f_squared) < 4 * law.f_squared_error  # false alarms below 1e-4
    assert law.f < 0.02
