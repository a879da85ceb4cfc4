import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.diagnostics import references_from_data, tarp

DRAWS = 500


def test_the_exact_posterior_is_accepted_by_both_kinds_of_references(problem, rng):
    samples = problem.draw(DRAWS, rng)
    data = references_from_data(problem.x, problem.theta, rng)
    for references in (None, data):
        result = tarp(samples, problem.theta, rng, references=references)
        # False alarms: 1e-4 each; a deviation of 0.07 at B = 1000 has p = 1e-4.
        assert result.p > 1e-4
        assert result.max_deviation < 0.07


@pytest.mark.parametrize("width", [0.7, 1.4])
def test_wrong_widths_are_rejected(problem, rng, width):
    samples = problem.draw(DRAWS, rng, width=width)
    assert tarp(samples, problem.theta, rng).p < 1e-3
    data = references_from_data(problem.x, problem.theta, rng)
    assert tarp(samples, problem.theta, rng, references=data).p < 1e-6


def test_a_shift_is_rejected(problem, rng):
    # Random points lie on all sides, so a shift partly averages out: points on one side see it.
    samples = problem.draw(DRAWS, rng, shift=0.3)
    corner = np.broadcast_to(problem.theta.max(axis=0), problem.theta.shape)
    assert tarp(samples, problem.theta, rng, references=corner).p < 1e-3


def test_the_prior_returned_as_posterior_is_rejected_only_by_looking_at_the_data(problem, rng):
    prior_draws = rng.standard_normal((DRAWS, *problem.theta.shape))
    assert tarp(prior_draws, problem.theta, rng).p > 1e-4  # false alarms: 1e-4
    data = references_from_data(problem.x, problem.theta, rng)
    result = tarp(prior_draws, problem.theta, rng, references=data)
    assert result.p < 1e-10
    assert result.max_deviation > 0.2


def test_references_never_see_the_objects_own_truth(problem, rng):
    # Replacing one truth must not move that object's reference.
    changed = problem.theta.copy()
    changed[17] += 100.0
    first = references_from_data(problem.x, problem.theta, np.random.default_rng(3))
    second = references_from_data(problem.x, changed, np.random.default_rng(3))
    assert_array_equal(first[17], second[17])
    assert not np.allclose(first, second)


def test_references_from_useless_wide_masked_data_accept_the_prior_as_the_posterior(rng):
    # x says nothing: the prior *is* the posterior, even with more columns than objects.
    theta = rng.standard_normal((400, 2))
    x = rng.standard_normal((400, 500))
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 0] = np.nan
    x[:, 1] = 7.0
    references = references_from_data(x, theta, rng)
    samples = rng.standard_normal((200, 400, 2))
    assert np.isfinite(references).all()
    assert tarp(samples, theta, rng, references=references).p > 1e-4  # false alarms: 1e-4


def test_units_and_the_order_of_parameters_and_draws_do_not_matter(problem, rng):
    samples = problem.draw(100, rng)
    references = references_from_data(problem.x, problem.theta, rng)
    want = tarp(samples, problem.theta, rng, references=references)
    scale = np.array([1e-3, 1.0, 4096.0])
    scaled = tarp(samples * scale, problem.theta * scale, rng, references=references * scale)
    assert_allclose(scaled.ecp, want.ecp, atol=1e-12)
    turned = tarp(
        samples[::-1, :, ::-1], problem.theta[:, ::-1], rng, references=references[:, ::-1]
    )
    assert_allclose(turned.ecp, want.ecp, atol=1e-12)


def test_ties_of_integer_parameters_are_broken_evenly(rng):
    theta = rng.integers(0, 3, size=(2000, 1)).astype(float)
    samples = rng.integers(0, 3, size=(50, 2000, 1)).astype(float)
    references = np.ones_like(theta)
    assert tarp(samples, theta, rng, references=references).p > 1e-4  # false alarms: 1e-4


def test_a_parameter_that_never_varies_does_no_harm(rng):
    theta = np.column_stack([rng.standard_normal(300), np.full(300, 2.0)])
    samples = np.stack([rng.standard_normal((80, 300)), np.full((80, 300), 2.0)], axis=-1)
    assert tarp(samples, theta, rng).p > 1e-4  # false alarms: 1e-4


def test_the_curve_runs_from_zero_to_one(problem, rng):
    result = tarp(problem.draw(20, rng), problem.theta, rng, points=11)
    assert_allclose(result.ecp[[0, -1]], [0.0, 1.0], atol=1e-12)
    assert np.all(np.diff(result.ecp) >= 0)


def test_bad_input_is_named(problem, rng):
    with pytest.raises(ValueError, match="references must be"):
        tarp(problem.draw(5, rng), problem.theta, rng, references=problem.theta[:3])
    with pytest.raises(ValueError, match="observations for"):
        references_from_data(problem.x[:3], problem.theta, rng)
    with pytest.raises(ValueError, match="folds"):
        references_from_data(problem.x, problem.theta, rng, folds=1)
