"""Objects against reference objects: false alarms at their rate, planted faults found."""

import numpy as np
import pytest
from scipy.stats import kstest

from sbi_core.diagnostics.misspecification import compare, residuals

K = 6


def draw(rng, n, shift=0.0, width=1.0, missing=0.0):
    root = np.linalg.cholesky(0.7 * np.ones((K, K)) + 0.3 * np.eye(K))
    err = np.exp(rng.uniform(np.log(0.05), np.log(0.5), (n, K)))
    x = shift + width * rng.standard_normal((n, K)) @ root.T + err * rng.standard_normal((n, K))
    mask = rng.random((n, K)) >= missing
    return np.where(mask, x, np.nan), np.where(mask, err, np.nan), mask


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_p_is_uniform_for_objects_of_the_same_kind(missing, rng):
    """KS at 1e-4."""
    p = []
    for _ in range(300):
        r = residuals(draw(rng, 100, missing=missing), draw(rng, 2000, missing=missing))
        p.append(compare("means", r.data, r.reference).p)
    assert kstest(p, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_shift_of_one_column_is_found_and_named(missing, rng):
    shift = np.zeros(K)
    shift[2] = 0.5
    r = residuals(draw(rng, 100, shift, missing=missing), draw(rng, 5000, missing=missing))
    found = compare("means", r.data, r.reference)
    assert found.p < 1e-4
    assert np.abs(found.sigma).argmax() == 2
    assert found.sigma[2] > 2


def test_a_wrong_spread_is_found(rng):
    r = residuals(draw(rng, 200, width=1.5), draw(rng, 5000))
    assert compare("spreads", r.data**2, r.reference**2).p < 1e-4


def test_one_wild_value_does_not_decide(rng):
    x, err, mask = draw(rng, 200)
    x[0, 0] = 1e6
    r = residuals((x, err, mask), draw(rng, 5000))
    assert compare("means", r.data, r.reference).p > 1e-4


def test_columns_that_do_not_vary_are_left_out(rng):
    data, reference = rng.standard_normal((50, 2)), rng.standard_normal((500, 2))
    data[:, 1] = reference[:, 1] = 3.0
    found = compare("x", data, reference)
    assert found.dof == 1
    assert found.sigma[1] == 0
    nothing = compare("x", data[:, 1:], reference[:, 1:])
    assert (nothing.dof, nothing.p) == (0, 1.0)


def test_what_the_parameters_absorb_is_left_out(rng):
    """A location fitted to the same objects: p is uniform, without the scores it is too large."""
    direction, cov = np.array([[1.0], [2.0], [0.0], [0.5]]), np.eye(4) + 0.3
    weight = np.linalg.solve(cov, direction)
    root = np.linalg.cholesky(cov)
    p = {True: [], False: []}
    for _ in range(200):
        x, reference = (rng.standard_normal((n, 4)) @ root.T for n in (100, 2000))
        fitted = np.linalg.solve(direction.T @ weight, (x @ weight).mean(0))
        x = x - fitted @ direction.T
        for sharp in p:
            scores = (x @ weight, reference @ weight) if sharp else None
            p[sharp].append(compare("means", x, reference, absorbed=scores).p)
    assert compare("means", x, reference, absorbed=(x @ weight, reference @ weight)).dof == 3
    assert kstest(p[True], "uniform").pvalue > 1e-3
    assert kstest(p[False], "uniform").pvalue < 1e-3


@pytest.mark.parametrize("grouped", [False, True])
def test_nothing_is_left_to_compare_where_the_parameters_absorb_all(grouped, rng):
    x, reference = rng.standard_normal((100, 1)), rng.standard_normal((2000, 1))
    group = np.repeat(np.arange(20), 100) if grouped else None
    found = compare("means", x, reference, absorbed=(x, reference), group=group)
    assert (found.dof, found.chi2, found.p) == (0, 0.0, 1.0)


def test_groups_that_differ_are_compared_as_groups(rng):
    """Groups scatter along one direction; a difference along another one is seen."""
    along, other = np.array([1.0, 0.0, 0.5]), np.array([0.0, 0.7, 0.0])
    group = np.repeat(np.arange(60), 50)
    p = {"same kind": [], "objects alone": [], "shifted": []}
    for _ in range(100):
        reference = rng.standard_normal((60, 1))[group] * along + rng.standard_normal((3000, 3))
        data = rng.standard_normal() * along + rng.standard_normal((50, 3))
        p["same kind"].append(compare("means", data, reference, group=group).p)
        p["objects alone"].append(compare("means", data, reference).p)
        p["shifted"].append(compare("means", data + other, reference, group=group).p)
    assert kstest(p["same kind"], "uniform").pvalue > 1e-3
    assert np.mean(np.array(p["objects alone"]) < 0.002) > 0.3
    assert np.mean(np.array(p["shifted"]) < 0.05) > 0.8
