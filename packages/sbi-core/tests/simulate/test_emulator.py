import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable
from sbi_core.errors import ConfigError, DataFileError, SimulationError, TrainingError
from sbi_core.priors.space import Parameter, ParameterSpace, Prior, as_float64
from sbi_core.rng import stream
from sbi_core.simulate.emulator import OUTSIDE, Emulator, EmulatorConfig, EmulatorSimulator


class Waves(Simulator):
    """Three smooth outputs of two parameters; fails where the first one is negative."""

    name, version = "waves", "1"
    parameters = ParameterSpace(
        (
            Parameter("a", Prior("uniform", {"low": -0.2, "high": 2.0})),
            Parameter("b", Prior("normal", {"loc": 10.0, "scale": 3.0})),
        )
    )
    observables = (Observable("sin"), Observable("sum"), Observable("large"))
    failures = {0: "ok", 1: "negative"}
    default_error = 0.05

    def simulate(self, theta, rng):
        theta = as_float64(theta)
        a, b = theta[:, 0], (theta[:, 1] - 10) / 3
        x = np.stack([np.sin(2 * a), a + 0.3 * b, 1e4 * (1 + 0.1 * a * b)], 1)
        ok = a >= 0
        x[~ok] = np.nan
        return Batch(x=torch.as_tensor(x), theta=torch.as_tensor(theta), ok=ok, failure=~ok)


QUICK = {"hidden": (32, 32), "optimizer": "adam-onecycle", "learning_rate": 1e-2, "batch_size": 128}


@pytest.fixture(scope="module")
def simulations():
    return Waves().draw(6000, stream(1))


@pytest.fixture(scope="module")
def emulator(simulations):
    made = Emulator(EmulatorConfig(**QUICK, epochs=25))
    made.fit(Waves(), simulations, seed=2)
    return made


def test_its_weights_are_aligned_after_training_and_loading(emulator, tmp_path):
    assert emulator.validity is not None
    emulator.save(tmp_path)
    for made in (emulator, Emulator.load(tmp_path)):
        for network in (made.network, made.validity):
            tensors = (*network.parameters(), *network.buffers())
            assert all(t.data_ptr() % 64 == 0 for t in tensors)


def test_the_default_is_the_published_network():
    config = EmulatorConfig()
    assert (config.hidden, config.activation) == ((100, 40), "tanh")
    assert (config.optimizer, config.learning_rate) == ("schedulefree", 1e-3)
    assert config.batch_size == 1024


def test_errors_are_measured_per_output_on_rows_it_never_saw(emulator):
    assert list(emulator.errors) == ["median", "p95", "p99"]
    assert list(emulator.errors["median"]) == ["sin", "sum", "large"]
    fresh = Waves().draw(4000, stream(9)).succeeded
    inside = emulator.inside(fresh.theta)
    wrong = np.abs(emulator.predict(fresh.theta) - fresh.x.numpy())[inside]
    # a median over ~550 test rows is good to some ten per cent
    got = list(emulator.errors["median"].values())
    assert_allclose(got, np.median(wrong, axis=0), rtol=0.4)
    scale = np.nanstd(fresh.x.numpy(), axis=0)
    assert (np.array(got) < 0.02 * scale).all()
    for output in emulator.names:
        e = {k: v[output] for k, v in emulator.errors.items()}
        assert e["median"] < e["p95"] < e["p99"]


def test_a_saved_emulator_predicts_the_same_bits(emulator, tmp_path):
    emulator.save(tmp_path)
    loaded = Emulator.load(tmp_path)
    theta = Waves.parameters.sample(50, 1)
    assert_array_equal(loaded.predict(theta), emulator.predict(theta))
    assert (loaded.errors, loaded.record) == (emulator.errors, emulator.record)
    assert_array_equal(loaded.box, emulator.box)
    assert repr(loaded) == "Emulator(32-32 tanh; 3 outputs)"


def test_damaged_files_are_named(emulator, tmp_path):
    emulator.save(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "kind": "estimator"}))
    with pytest.raises(DataFileError, match="does not describe an emulator"):
        Emulator.load(tmp_path)
    path.write_text(json.dumps({**content, "options": {"hidden": [32, 31]}}))
    with pytest.raises(DataFileError, match="shape"):
        Emulator.load(tmp_path)
    path.write_text(json.dumps({**content, "options": {"widths": [32, 31]}}))
    with pytest.raises(DataFileError, match="incomplete or was altered"):
        Emulator.load(tmp_path)


def test_an_interrupted_training_ends_with_the_same_bits(simulations, tmp_path):
    def stop(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    made = [Emulator(EmulatorConfig(epochs=4, patience=3)) for _ in range(3)]
    made[0].fit(Waves(), simulations)
    with pytest.raises(KeyboardInterrupt):
        made[1].fit(Waves(), simulations, directory=tmp_path, callbacks=[stop])
    made[2].fit(Waves(), simulations, directory=tmp_path)
    theta = Waves.parameters.sample(50, 1)
    assert_array_equal(made[2].predict(theta), made[0].predict(theta))


def test_it_is_differentiable(emulator):
    theta = torch.tensor([[0.7, 11.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(emulator.network(theta)[0, 1], theta)
    assert_allclose(grad[0], [1.0, 0.1], atol=0.05)


def test_the_surrogate_is_a_simulator_that_refuses_to_extrapolate(emulator):
    simulator = EmulatorSimulator(Waves(), emulator)
    theta = np.array([[1.0, 10.0], [1.0, 60.0], [-0.1, 10.0], [1.9, 12.0]])
    batch = simulator.simulate(theta, 1)
    assert batch.ok.tolist() == [True, False, False, True]
    assert batch.failure.tolist() == [0, OUTSIDE, OUTSIDE, 0]
    assert torch.isnan(batch.x[1:3]).all()
    assert simulator.failures[OUTSIDE] == "outside the emulator's training box"
    assert simulator.failures[1] == "negative"
    want = Waves().simulate(theta, 1).x[[0, 3]]
    assert_allclose(batch.x[[0, 3]] / want, 1, atol=0.1)
    with pytest.raises(SimulationError, match=r"\(n, 2\)"):
        simulator.simulate(theta[:, :1], 1)


def test_noise_is_that_of_the_original(emulator):
    simulator = EmulatorSimulator(Waves(), emulator)
    batch = simulator.draw(50, 3).succeeded
    a, b = simulator.observe(batch, 4), Waves().observe(batch, 4)
    assert torch.equal(a.x, b.x)
    assert simulator.example_observations(1, 20).truth_names == ("a", "b")
    assert simulator.identity["emulator"] != Waves().identity
    assert simulator.identity == EmulatorSimulator(Waves(), emulator).identity


def test_images_keep_their_shape():
    theta = torch.rand(300, 1)
    x = theta[:, :, None] * torch.ones(300, 2, 3) + torch.arange(3.0)

    class Images(Waves):
        parameters = ParameterSpace((Parameter("a", Prior("uniform", {"low": 0, "high": 1})),))
        observables = ()

    made = Emulator(EmulatorConfig(**QUICK, epochs=2))
    made.fit(Images(), Batch(x=x, theta=theta))
    assert made.predict(theta[:4]).shape == (4, 2, 3)
    assert made.names[-1] == "x6"


def test_what_it_cannot_learn_is_said_in_one_sentence(simulations):
    good = simulations.succeeded
    cases = [
        (good[:0], "all of them failed"),
        (good.with_(x=good.x * torch.nan), "x is not finite in simulation 0"),
        (good.with_(x=torch.ones_like(good.x)), "same outputs"),
        (good.with_(context=good.x), "mask or context"),
        (good.with_(theta=None), "theta"),
    ]
    for batch, words in cases:
        with pytest.raises(TrainingError, match=words):
            Emulator().fit(Waves(), batch)
    with pytest.raises(ConfigError, match="not trained"):
        Emulator().predict(np.zeros((1, 2)))


def test_the_likelihood_is_that_of_the_original(emulator):
    class Late(Waves):
        def log_likelihood(self, simulated, observed):
            return super().log_likelihood(simulated, observed) + 7.0

    batch = Late().draw(30, 3).succeeded
    data = Late().observe(batch, 4)
    plain = EmulatorSimulator(Late(), emulator).log_likelihood(batch, data)
    assert_array_equal(plain, Late().log_likelihood(batch, data))
    carried = EmulatorSimulator(Late(), emulator, carry_error=True).log_likelihood(batch, data)
    err = (data.x_err**2 + torch.tensor([emulator.rms[k] for k in emulator.names]) ** 2).sqrt()
    assert_allclose(carried, Late().log_likelihood(batch, data.with_(x_err=err)), rtol=1e-6)
    assert (carried > plain).any()
