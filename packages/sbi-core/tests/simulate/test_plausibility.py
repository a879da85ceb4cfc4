"""A fixed set is told if it is not what it is taken for."""

import numpy as np
import pytest

from sbi_core import Parameter, ParameterSpace, Prior
from sbi_core.errors import ObservationError
from sbi_core.simulate.plausibility import Digits, PriorFollowed

N = 3000


def notes_of(theta, units=None, **priors):
    space = ParameterSpace(tuple(Parameter(n, Prior(*p)) for n, p in priors.items()))
    followed = PriorFollowed(space, len(theta))
    for start in range(0, len(theta), 700):
        followed.add(theta[start : start + 700], start)
    return followed.notes(np.arange(len(theta)) if units is None else units)


def test_a_prior_that_is_not_that_of_the_simulations_is_told(rng):
    theta = np.c_[rng.uniform(0, 3, N), rng.normal(1, 2, N)]
    right = {"a": ("uniform", {"low": 0, "high": 3}), "b": ("normal", {"loc": 1, "scale": 2})}
    assert notes_of(theta, **right) == []
    (note,) = notes_of(theta, **right | {"a": ("uniform", {"low": 0, "high": 30})})
    assert "do not follow the prior of 'a': 68 % lie in 0.5" in note
    assert "of the prior in 4.76 ... 25.24" in note
    (note,) = notes_of(theta, **right | {"b": ("normal", {"loc": 1, "scale": 3})})
    assert "'b'" in note


def test_groups_and_parameters_without_coordinate_are_not_compared(rng):
    few = rng.uniform(size=12).repeat(N // 12)[:, None]
    assert notes_of(few, a=("uniform", {"low": 0, "high": 2})) == []
    jittered, group = few + 1e-7 * rng.uniform(size=(N, 1)), np.arange(N) // (N // 12)
    assert notes_of(jittered, group, a=("uniform", {"low": 0, "high": 2})) == []
    assert notes_of(jittered, a=("uniform", {"low": 0, "high": 2})) != []
    ones = np.ones((N, 1))
    assert notes_of(ones, k=("integer", {"low": 0, "high": 4})) == []


def test_a_joint_prior_is_compared_and_large_sets_by_a_part_of_their_rows(rng):
    cov = [[1.0, 0.9], [0.9, 1.0]]
    theta = rng.multivariate_normal([0, 0], cov, 50_000)
    assert notes_of(theta, v=("mvnormal", {"mean": [0, 0], "cov": cov})) == []
    (note,) = notes_of(theta, v=("mvnormal", {"mean": [0, 0], "cov": [[1.0, 0.9], [0.9, 2.0]]}))
    assert "of 'v'; give" in note


def digits_of(x, names=()):
    digits = Digits()
    for part in np.array_split(x, 3):
        digits.add(part)
    return digits.notes("mine.csv", names)


def test_a_column_that_single_precision_cannot_hold_is_refused(rng):
    x = np.c_[rng.uniform(size=N), 2460000.5 + rng.uniform(size=N)]
    with pytest.raises(ObservationError, match=r"mine.csv: 't' of x .* steps of 0.25.* 2460001,"):
        digits_of(x, ("u", "t"))


def test_a_column_that_is_rounded_is_told(rng):
    x = np.c_[rng.uniform(size=N), 2459000 + 1000 * rng.uniform(size=N)]
    (note,) = digits_of(x)
    assert note.startswith("number 1 of x lies between")
    assert "subtract 2459" in note


@pytest.mark.parametrize(
    "column",
    [
        np.full(N, 2460000.3),  # constant
        1e6 + np.arange(N) % 2,  # exact
        np.full(N, np.nan),
        np.linspace(2000.0, 2020.0, N),
        np.linspace(0.0, 1e-30, N),
    ],
)
def test_columns_that_lose_nothing_are_taken(column):
    assert digits_of(column[:, None]) == []
