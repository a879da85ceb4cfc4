import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.diagnostics import judge_ppc, ppc_chi2

B, S, M = 400, 100, 8


@pytest.fixture
def model(rng):
    """theta ~ N(0, 1), x_i = theta + 0.5 noise, 8 data; the exact posterior's predictions."""
    theta = rng.standard_normal(B)
    x = theta[:, None] + 0.5 * rng.standard_normal((B, M))
    variance = 1 / (1 + M / 0.25)
    mean = variance * x.sum(1) / 0.25
    draws = mean + np.sqrt(variance) * rng.standard_normal((S, B))
    return x, np.repeat(draws[..., None], M, axis=2), np.full((B, M), 0.5)


def test_well_specified_objects_are_rarely_flagged(model):
    x, predicted, err = model
    got = ppc_chi2(x, predicted, err)
    # p is conservative: its false alarms are below the nominal 5 %; 400 objects, 3 sigma
    assert (got.p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / B)
    assert judge_ppc(got.p).level == "pass"  # false alarms: below 1 %
    assert_allclose(got.median.mean(), M, rtol=0.1)  # M - 1 for the best draw, M on average
    assert (got.minimum <= got.median).all()


def test_an_outlying_element_and_underestimated_errors_are_seen(model):
    x, predicted, err = model
    broken = x.copy()
    broken[7, 3] += 6 * 0.5 * 2
    got = ppc_chi2(broken, predicted, err)
    assert got.p[7] < 1e-4
    assert judge_ppc(got.p).level == "warn"
    assert "rows 7" in judge_ppc(got.p).sentence
    assert (ppc_chi2(x, predicted, err / 3).p < 0.01).mean() > 0.9


def test_missing_elements_are_never_looked_at(model, rng):
    x, predicted, err = model
    mask = rng.random(x.shape) < 0.7
    mask[0] = False
    want = ppc_chi2(x, predicted, err, mask)
    got = ppc_chi2(
        np.where(mask, x, np.nan), np.where(mask, predicted, np.inf), np.where(mask, err, -1), mask
    )
    assert_array_equal(got.median, want.median)
    assert_array_equal(got.dof, mask.sum(1))
    assert np.isnan(got.p[0])
    assert np.isfinite(got.p[1:]).all()


def test_bad_input_is_named(model):
    x, predicted, err = model
    with pytest.raises(ValueError, match="must be"):
        ppc_chi2(x, predicted[:, :3], err)
    with pytest.raises(ValueError, match="mask must"):
        ppc_chi2(x, predicted, err, np.ones(3, bool))
    bad = err.copy()
    bad[5, 2] = 0.0
    with pytest.raises(ValueError, match=r"objects \[5\]"):
        ppc_chi2(x, predicted, bad)
