"""Error floor and power posterior, against their equations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sbi_toy import SPACE

from sbi_core.combiners.remedies import error_floor, power_posterior
from sbi_core.posterior import combined_from_gaussian


@pytest.fixture
def combined(rng):
    space = SPACE.select("global")
    mean, cov = np.array([0.5, -1.0]), np.array([[0.02, 0.005], [0.005, 0.01]])
    facts = {"consistency_chi2": 36.0, "consistency_dof": 18.0}
    return combined_from_gaussian(
        "rule", space, 100, mean, cov, draws=50, rng=rng, diagnostics=facts
    )


def test_the_floor_is_the_error_of_one_object_that_does_not_average_out(combined):
    got = error_floor(combined, 0.1)
    assert got.combiner == "rule+tau"
    assert_allclose(got.z_mean, combined.z_mean)
    assert_allclose(got.z_cov, combined.z_cov * 2)  # 1 + 0.1**2 * 100
    assert_allclose(got.sd, combined.sd * np.sqrt(2))


def test_no_systematic_error_changes_nothing(combined):
    assert_allclose(error_floor(combined, 0.0).z_cov, combined.z_cov)


def test_the_power_posterior_halves_what_the_data_say(combined):
    got = power_posterior(combined)
    assert got.diagnostics["beta"] == 0.5
    p = np.linalg.inv(combined.z_cov)
    want = np.eye(2) + 0.5 * (p - np.eye(2))
    assert_allclose(np.linalg.inv(got.z_cov), want)
    assert_allclose(want @ got.z_mean, 0.5 * p @ combined.z_mean)


def test_parts_that_agree_leave_the_posterior_as_it_is(combined):
    combined.diagnostics["consistency_chi2"] = 10.0
    assert_allclose(power_posterior(combined).z_cov, combined.z_cov)


def test_without_a_test_of_consistency_there_is_no_power_posterior(combined):
    combined.diagnostics.clear()
    assert power_posterior(combined) is None
