import numpy as np
import pytest
import torch
from scipy import stats

from sbi_casbi.sets.total_mass import (
    draw_truncated_normal,
    quadrature_nodes,
    truncated_normal_log_prob,
)


def full(value, n=4000):
    return torch.full((n,), float(value), dtype=torch.float64)


def uniform(n=4000, seed=1):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("low", "high"), [(8.0, 10.0), (8.9, 8.95), (9.2, 9.6), (5.0, 8.7)])
def test_draws_follow_the_truncated_normal_distribution(low, high):
    t = draw_truncated_normal(full(9.0), full(0.1), full(low), full(high), uniform()).numpy()
    a, b = (low - 9) / 0.1, (high - 9) / 0.1
    assert t.min() >= low
    assert t.max() <= high
    assert stats.kstest(t, stats.truncnorm(a, b, loc=9, scale=0.1).cdf).pvalue > 1e-3
    want = stats.truncnorm.logpdf(t, a, b, loc=9, scale=0.1)
    got = truncated_normal_log_prob(torch.as_tensor(t), full(9.0), full(0.1), full(low), full(high))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_draws_far_from_the_estimate_stay_inside():
    t = draw_truncated_normal(full(9.0), full(0.003), full(9.5), full(9.6), uniform())
    assert (t >= 9.5).all()
    assert (t <= 9.6).all()
    assert t.isfinite().all()


def test_the_integral_over_the_drawn_mass_is_normalised():
    """The density of drawn masses is four times as wide as the estimate."""
    low, high, centre, sd, wide = (full(v, 1) for v in (8.0, 9.3, 9.0, 0.05, 0.2))
    place, log_w = quadrature_nodes(centre, sd, low, high)
    before = truncated_normal_log_prob(place, centre, wide, low, high)
    assert abs(float((before + log_w).exp().sum()) - 1) < 1e-3
