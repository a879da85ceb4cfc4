"""The observation model: widths, gaps and birth times are distributed as described."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sbi_chempy.noise import (
    ERROR_RANGE,
    add_noise,
    draw_errors,
    draw_mask,
    observe_ages,
    training_ages,
)
from sbi_core import Batch

N = 20_000


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


def test_half_of_the_rows_have_the_default_error(generator):
    err = draw_errors(torch.zeros(N, 8), 0.05, generator).numpy()
    default = (err == np.float32(0.05)).all(1)
    assert abs(default.mean() - 0.5) < 5 * 0.5 / np.sqrt(N)  # false alarm 1e-6


def test_the_other_errors_are_log_uniform_per_row_or_per_element(generator):
    err = draw_errors(torch.zeros(N, 8), 0.05, generator).double().numpy()
    low, high = ERROR_RANGE
    assert err.min() > low * (1 - 1e-5)
    assert err.max() < high * (1 + 1e-5)
    free = err[(err != np.float32(0.05)).any(1)]
    same = np.ptp(free, axis=1) == 0
    assert abs(same.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(free))
    u = np.log(free[:, 0] / low) / np.log(high / low)
    assert stats.kstest(u, "uniform").pvalue > 1e-4  # false alarm


def test_half_of_the_rows_are_complete_and_no_row_is_empty(generator):
    mask = draw_mask(torch.zeros(N, 8), generator).numpy()
    assert mask.any(1).all()
    # complete by choice, or by chance: 1/2 + 1/2 E[(1-p)^8], p ~ U(0, 1/2), one kept for sure
    p = np.linspace(0, 0.5, 10_001)
    want = 0.5 + 0.5 * ((1 - p) ** 7).mean()
    assert abs(mask.all(1).mean() - want) < 5 * 0.5 / np.sqrt(N)
    gaps = ~mask[~mask.all(1)]
    assert abs(gaps.mean(0) - gaps.mean()).max() < 0.02  # no element is special


def test_noise_has_the_width_it_claims(generator):
    err = torch.full((N, 3), 0.1)
    err[:, 1] = 0.3
    mask = torch.ones(N, 3, dtype=torch.bool)
    got = add_noise(Batch(x=torch.ones(N, 3)), err, mask, generator)
    z = ((got.x - 1) / err).double().numpy()
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4  # false alarm
    assert np.abs(np.corrcoef(z.T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(N)
    assert_array_equal(got.x_err, err)


def test_what_is_not_observed_is_nan(generator):
    mask = torch.tensor([[True, False], [False, True]])
    got = add_noise(Batch(x=torch.zeros(2, 2)), torch.full((2, 2), 0.1), mask, generator)
    assert_array_equal(torch.isnan(got.x), ~mask)
    assert_array_equal(torch.isnan(got.x_err), ~mask)
    assert_array_equal(got.mask, mask)


def test_birth_times_have_the_width_they_claim(generator):
    time = torch.full((N,), 6.0)
    context = training_ages(time, generator).double().numpy()
    seen = context[:, 2] == 1
    assert abs(seen.mean() - 0.5) < 5 * 0.5 / np.sqrt(N)
    assert_array_equal(context[~seen], 0)
    relative = context[seen, 1] / 6
    assert stats.kstest(np.log(relative / 0.01) / np.log(40), "uniform").pvalue > 1e-4
    assert stats.kstest((context[seen, 0] - 6) / context[seen, 1], "norm").pvalue > 1e-4


def test_ages_that_are_not_observed_are_zeros():
    got = observe_ages(
        torch.tensor([5.0, 6.0]),
        torch.tensor([1.0, 2.0]),
        torch.tensor([True, False]),
        torch.tensor([1.0, 1.0]),
    )
    assert_allclose(got, [[6.0, 1.0, 1.0], [0.0, 0.0, 0.0]])


def test_the_same_generator_gives_the_same_noise():
    one, two = (
        draw_errors(torch.zeros(9, 8), 0.05, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert_array_equal(one, two)


def test_double_precision_is_kept(generator):
    x = torch.zeros(5, 8, dtype=torch.float64)
    assert draw_errors(x, 0.05, generator).dtype == torch.float64
    got = add_noise(Batch(x=x), torch.ones_like(x), draw_mask(x, generator), generator)
    assert got.x.dtype == torch.float64
