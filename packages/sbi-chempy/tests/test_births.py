"""Real stars that are drawn for simulated birth times."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from sbi_chempy import births
from sbi_chempy.births import StarsByBirth
from sbi_chempy.constants import T_END_GYR
from sbi_chempy.noise import observe_ages
from sbi_core import Prior, get_simulator

PRIOR = Prior("uniform", {"low": 1.0, "high": 13.797})


def stars(n, rng, error=None, aged=0.5):
    """True times and context columns; errors grow with age unless given."""
    t = rng.uniform(1.0, 13.797, n)
    relative = np.exp(rng.uniform(np.log(0.01), np.log(0.4), n))
    e = relative * (T_END_GYR - t) + 0.01 if error is None else np.full(n, error)
    seen, noise = rng.random(n) < aged, rng.standard_normal(n)
    return t, observe_ages(*(torch.as_tensor(v) for v in (t, e, seen, noise)))


def drawn(t, context, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return StarsByBirth.of(context, PRIOR).draw(torch.as_tensor(t), generator)


def test_precise_stars_are_drawn_near_their_time():
    rng = np.random.default_rng(1)
    _, context = stars(5000, rng, error=0.1)
    t = rng.uniform(1.0, 13.797, 2000)
    row, fits = drawn(t, context)
    seen = context[row]
    aged = (seen[:, 2] > 0).numpy()
    assert fits.all()
    assert aged.mean() == pytest.approx(0.5, abs=0.05)
    off = (seen[:, 0].numpy() - t)[aged]
    assert np.abs(off).max() < 0.6  # six sigma
    assert off.std() == pytest.approx(0.1, rel=0.15)


def means_of_true_times(t, context):
    """Mean true times of stars with errors in three ranges."""
    aged, e = context[:, 2].numpy() > 0, context[:, 1].numpy()
    ranges = ((0.3, 1.0), (1.0, 3.0), (3.0, 9.0))
    return np.array([t[aged & (e > low) & (e < high)].mean() for low, high in ranges])


def test_errors_that_grow_with_age_keep_the_distribution_of_true_times(monkeypatch):
    rng = np.random.default_rng(2)
    t, context = stars(10_000, rng)
    new = rng.uniform(1.0, 13.797, 20_000)
    true = means_of_true_times(t, context)
    off = np.abs(means_of_true_times(new, context[drawn(new, context)[0]]) - true)
    assert (off < [0.25, 0.25, 1.0]).all()  # Gyr
    monkeypatch.setattr(births, "_STEPS", 0)  # errors tell nothing about times
    plain = np.abs(means_of_true_times(new, context[drawn(new, context)[0]]) - true)
    assert (off[1:] < 0.5 * plain[1:]).all()


def test_times_that_no_star_has_are_known():
    rng = np.random.default_rng(3)
    _, context = stars(3000, rng, error=0.1, aged=1.0)
    young = context[context[:, 0] > 9.0]
    _, fits = drawn(np.array([3.0, 5.0, 11.0, 13.0]), young)
    assert fits.tolist() == [False, False, True, True]


@pytest.mark.parametrize("n", [1, 3, 30])
def test_few_stars_are_enough(n):
    rng = np.random.default_rng(4)
    _, context = stars(n, rng, aged=1.0)
    row, _ = drawn(rng.uniform(1.0, 13.797, 500), context)
    assert row.min() >= 0
    assert row.max() < n


def test_absurd_times_and_errors_are_drawn_from():
    context = torch.tensor([[-50.0, 0.1, 1.0], [5.0, 1e6, 1.0], [0.0, 0.0, 0.0], [7.0, 0.0, 1.0]])
    row, _ = drawn(np.linspace(1.0, 13.7, 400), context)
    assert set(row.tolist()) <= {0, 1, 2, 3}
    assert {1, 2} <= set(row.tolist())


def test_all_of_a_star_comes_from_one_real_star():
    simulator = get_simulator("chempy")
    rng = np.random.default_rng(5)
    theta = simulator.parameters.sample(400, rng)
    batch = simulator.simulate(theta, rng).succeeded
    like = simulator.observe(batch, rng).with_(theta=None)
    errors = torch.linspace(0.01, 0.2, len(like))[:, None].expand(-1, like.x.shape[1])
    like = like.with_(x_err=torch.where(like.observed, errors.to(like.x_err), torch.nan))
    seen = simulator.observe_like(batch, like, 6)
    by_error = {round(float(e), 5): c for e, c in zip(errors[:, 0], like.context, strict=True)}
    first = seen.x_err.nan_to_num(nan=0.0).max(1).values
    same = [
        bool((by_error[round(float(e), 5)] == c).all())
        for e, c in zip(first, seen.context, strict=True)
    ]
    assert np.mean(same) > 0.95  # others have no real star of their time
    again = pickle.loads(pickle.dumps(simulator)).observe_like(batch, like, 6)
    assert torch.equal(again.context, seen.context)


def test_errors_of_times_that_no_star_has_are_those_of_all_stars():
    simulator = get_simulator("chempy")
    rng = np.random.default_rng(7)
    theta = simulator.parameters.sample(500, rng)
    batch = simulator.simulate(theta, rng).succeeded
    cluster = torch.tensor([[5.0, 0.01, 1.0]]).expand(len(batch), -1)
    like = simulator.observe_like(batch, batch.with_(x_err=torch.full_like(batch.x, 0.1)), rng)
    errors = torch.linspace(0.01, 0.2, len(like))[:, None].expand(-1, like.x.shape[1])
    like = like.with_(theta=None, x_err=errors, context=cluster)
    seen = simulator.observe_like(batch, like, 8).x_err[:, 0]
    assert float(seen.mean()) == pytest.approx(0.105, abs=0.012)  # 5 sigma of 500 random ones
    assert len(seen.unique()) > 200


def test_stars_without_a_finite_error_do_not_spoil_the_others():
    rng = np.random.default_rng(7)
    _, context = stars(300, rng)
    context[0] = torch.tensor([5.0, torch.nan, 1.0])
    row, _ = drawn(rng.uniform(1.0, 13.797, 3000), context)
    assert len(np.unique(row)) > 200
