"""Posteriors that are the prior are marked; those that the data narrow are not."""

import numpy as np
import pytest

from sbi_core import stream
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.priorwidth import PriorWidth


@pytest.fixture(scope="module")
def widths(toy):
    return PriorWidth(toy)


def drawn(toy, n=3000, z=0.08):
    """Draws of the prior of one galaxy, their derived quantities, its redshift."""
    theta = toy.parameters.sample(n, stream(5, "prior"))
    derived = toy.model.derived(theta, np.full(n, z))
    return theta[:, None], {k: derived[k][:, None] for k in DERIVED}, np.array([z])


def test_draws_of_the_prior_are_as_wide_as_the_prior(toy, widths):
    ratio, dominated = widths(*drawn(toy))
    np.testing.assert_allclose(ratio[:, 0], 1.0, atol=0.08)
    assert dominated.all()


def test_mass_does_not_matter(toy, widths):
    theta, derived, z = drawn(toy)
    theta[..., 0] += 1.0
    derived["sfr_1gyr"] = 10 * derived["sfr_1gyr"]
    np.testing.assert_allclose(widths(theta, derived, z)[0], widths(*drawn(toy))[0])


def part(toy, keep):
    theta, derived, z = drawn(toy, 30_000)
    rate = np.log10(derived["sfr_1gyr"][:, 0]) - theta[:, 0, 0]
    age, metallicity = derived["tage_mw"][:, 0], np.log10(derived["z_mw"][:, 0])
    rows = np.flatnonzero(keep(rate, age, metallicity))
    assert len(rows) > 30
    return theta[rows], {k: v[rows] for k, v in derived.items()}, z


def near(values, quantile):
    low, high = np.quantile(values, [quantile - 0.2, quantile + 0.2])
    return (values > low) & (values < high)


def test_a_posterior_that_the_data_narrow_is_not_marked(toy, widths):
    ratio, dominated = widths(
        *part(toy, lambda r, a, m: near(r, 0.5) & near(a, 0.5) & near(m, 0.5))
    )
    assert (ratio < 0.8).all()
    assert not dominated.any()


def test_a_rate_at_the_lower_end_of_the_prior_is_marked(toy, widths):
    lowest = lambda r, a, m: (r < np.quantile(r, 0.04)) & near(m, 0.5)  # noqa: E731
    ratio, dominated = widths(*part(toy, lowest))
    assert ratio[0] < 0.8
    assert dominated[:, 0].tolist() == [True, ratio[1] > 0.85, False]


def test_an_upper_limit_is_marked_although_it_is_narrower_than_the_prior(toy, widths):
    ratio, dominated = widths(*part(toy, lambda r, a, m: r < np.quantile(r, 0.55)))
    assert ratio[0] < 0.85
    assert dominated[0]


def test_a_rate_that_is_measured_in_the_lower_half_is_not_marked(toy, widths):
    ratio, dominated = widths(
        *part(toy, lambda r, a, m: (r > np.quantile(r, 0.3)) & (r < np.quantile(r, 0.55)))
    )
    assert ratio[0] < 0.85
    assert not dominated[0]
