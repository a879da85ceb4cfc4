"""The emulator of this model: accuracy inside, refusal outside and in the holes of the box."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core import Batch, get_simulator
from sbi_core.simulate.emulator import (
    INVALID,
    OUTSIDE,
    Emulator,
    EmulatorConfig,
    EmulatorSimulator,
    draw_box,
)

QUICK = {
    "hidden": (64, 64),
    "activation": "silu",
    "optimizer": "adam-onecycle",
    "learning_rate": 1e-2,
    "loss": "huber",
    "batch_size": 256,
    "epochs": 12,
}


@pytest.fixture(scope="module")
def chempy():
    return get_simulator("chempy")


@pytest.fixture(scope="module")
def box(chempy):
    return chempy.simulate(draw_box(chempy.parameters, 12_000, 2), 0)


@pytest.fixture(scope="module")
def emulator(chempy, box):
    torch.set_num_threads(1)
    made = Emulator(EmulatorConfig(**QUICK))
    made.fit(chempy, chempy.draw(12_000, 1), wide=box, seed=3)
    return made


def test_the_box_is_five_sigma_wide_and_ends_with_the_support(chempy):
    theta = draw_box(chempy.parameters, 20_000, 1)
    low, high = theta.min(0), theta.max(0)
    assert_allclose(low, [-3.8, -4.39, -1.8, 0.294, 0, 1.0], atol=5e-3)
    assert_allclose(high, [-0.8, -1.39, 1.2, 1.05, 1, 13.797], atol=1e-2)
    u = (theta - low) / (high - low)
    assert_allclose(u.mean(0), 0.5, atol=5 / np.sqrt(12 * 20_000))


def test_errors_of_prior_and_box_are_measured_apart(emulator):
    median, wide = emulator.errors["median"], emulator.wide_errors["median"]
    assert list(median) == list(wide) == list(emulator.names)
    assert max(median.values()) < 0.01  # dex; the presets reach 0.002 with ten times the rows
    assert np.mean(list(wide.values())) > np.mean(list(median.values()))
    assert all(emulator.rms[k] > median[k] for k in median)


def test_holes_of_the_box_are_refused(chempy, emulator, box):
    assert emulator.holes["found"] > 0.6
    assert emulator.holes["false_alarms"] < 0.01
    fresh = chempy.simulate(draw_box(chempy.parameters, 20_000, 9), 0)
    surrogate = EmulatorSimulator(chempy, emulator).simulate(fresh.theta, 0)
    bad = ~fresh.ok
    inside = surrogate.failure != OUTSIDE
    refused = surrogate.failure == INVALID
    assert float(refused[bad & inside].float().mean()) > 0.6
    assert float(refused[fresh.ok & inside].float().mean()) < 0.01
    assert torch.isnan(surrogate.x[refused]).all()


def test_prior_draws_are_hardly_refused(chempy, emulator):
    draws = EmulatorSimulator(chempy, emulator).draw(5000, 4)
    assert draws.ok.float().mean() > 0.995


def test_without_failures_nothing_is_refused(chempy):
    made = Emulator(EmulatorConfig(**{**QUICK, "epochs": 1}))
    made.fit(chempy, chempy.draw(1000, 1))
    assert made.validity is None
    assert made.holes == made.wide_errors == {}
    assert (made.valid_probability(np.zeros((3, 6))) == 1).all()


def test_validity_can_be_left_out(chempy, box):
    made = Emulator(EmulatorConfig(**{**QUICK, "epochs": 1}, validity=False))
    made.fit(chempy, box)
    assert made.validity is None


def test_a_saved_emulator_keeps_its_holes(emulator, tmp_path, box):
    emulator.save(tmp_path)
    loaded = Emulator.load(tmp_path)
    rows = box.theta[:200]
    assert_array_equal(loaded.valid_probability(rows), emulator.valid_probability(rows))
    assert_array_equal(loaded.predict(rows), emulator.predict(rows))
    assert (loaded.holes, loaded.rms, loaded.wide_errors) == (
        emulator.holes,
        emulator.rms,
        emulator.wide_errors,
    )


def test_validity_is_differentiable(emulator):
    theta = torch.tensor([[-2.3, -2.9, -0.3, 0.55, 0.5, 10.0]], dtype=torch.float64)
    theta.requires_grad_(True)
    (gradient,) = torch.autograd.grad(emulator.validity(theta).sum(), theta)
    assert torch.isfinite(gradient).all()


def test_the_emulators_error_can_be_carried_into_the_noise(chempy, emulator):
    n = 20_000
    theta = torch.tensor([[-2.3, -2.9, -0.3, 0.55, 0.5, 10.0]]).expand(n, 6)
    clean = Batch(x=torch.zeros(n, 8), theta=theta)
    fixed = get_simulator("chempy", noise="fixed", default_error=0.01)
    plain = EmulatorSimulator(fixed, emulator).observe(clean, 1)
    carried = EmulatorSimulator(fixed, emulator, carry_error=True).observe(clean, 1)
    assert_array_equal(carried.x_err, plain.x_err)  # what data claim does not change
    rms = np.array([emulator.rms[name] for name in emulator.names])
    tolerance = 5 / np.sqrt(2 * n)  # false alarm 1e-6
    assert_allclose(plain.x.std(0), 0.01, rtol=tolerance)
    assert_allclose(carried.x.std(0), np.hypot(0.01, rms), rtol=tolerance)
    like = Batch(x=torch.zeros(1, 8), x_err=torch.full((1, 8), 0.01))
    again = EmulatorSimulator(fixed, emulator, carry_error=True).observe_like(clean, like, 1)
    assert_allclose(again.x.std(0), np.hypot(0.01, rms), rtol=tolerance)


def test_identity_follows_both_networks(chempy, emulator, tmp_path):
    surrogate = EmulatorSimulator(chempy, emulator)
    emulator.save(tmp_path)
    other = Emulator.load(tmp_path)
    assert EmulatorSimulator(chempy, other).identity == surrogate.identity
    with torch.no_grad():
        next(iter(other.validity.parameters())).add_(1)
    assert EmulatorSimulator(chempy, other).identity != surrogate.identity
