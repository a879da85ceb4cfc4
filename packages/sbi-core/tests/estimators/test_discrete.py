import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.errors import ConfigError
from sbi_core.estimators.discrete import Columns, swap_prior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream
from sbi_core.training.rows import snap_to_support

MIXED = ParameterSpace(
    (
        Parameter("a", Prior("normal", {"loc": 1.0, "scale": 2.0})),
        Parameter("n", Prior("integer", {"low": 3, "high": 9})),
        Parameter("b", Prior("uniform", {"low": 0.0, "high": 1.0})),
        Parameter("v", Prior("discrete", {"values": [0.3, -0.1, 0.7]})),
    )
)


def test_columns_go_there_and_back():
    theta = MIXED.sample(50, stream(1))
    columns = Columns(MIXED)
    values = columns.encode(theta)
    assert values.shape == (50, 4)
    assert set(np.unique(values[:, 1])) == {0.0, 1.0, 2.0}  # -0.1, 0.3, 0.7
    assert_allclose(columns.decode(values), theta, atol=1e-12)
    assert columns.inside(theta).all()


def test_discrete_values_rounded_to_float32_are_values():
    rounded = MIXED.sample(50, stream(1)).astype(np.float32).astype(float)
    assert not MIXED.inside(rounded).all()
    assert MIXED.inside(snap_to_support(rounded, MIXED)).all()


def test_swapping_the_prior_is_bayes_rule():
    old = Prior("integer", {"low": 0, "high": 3, "pmf": [0.1, 0.2, 0.3, 0.4]})
    new = Prior("integer", {"low": 1, "high": 2})
    likelihood = stream(1).random((5, 4))
    p = likelihood * np.array([0.1, 0.2, 0.3, 0.4])
    want = likelihood * np.array([0.0, 0.5, 0.5, 0.0])
    want /= want.sum(1, keepdims=True)
    assert_allclose(swap_prior(p / p.sum(1, keepdims=True), old, new), want)


def test_priors_that_do_not_fit_are_named():
    old = Prior("integer", {"low": 1, "high": 3})
    with pytest.raises(ConfigError, match="allows 4"):
        swap_prior(np.ones((1, 3)) / 3, old, Prior("integer", {"low": 2, "high": 4}))
    with pytest.raises(ConfigError, match=r"shape \(1, 2\)"):
        swap_prior(np.ones((1, 2)) / 2, old, old)
    with pytest.raises(ConfigError, match="not discrete"):
        Prior("normal", {"loc": 0.0, "scale": 1.0}).outcomes()
