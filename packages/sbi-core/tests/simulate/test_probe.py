"""Faults of simulators and embeddings are found on a few rows, before the simulations of a run."""

import numpy as np
import pytest
import sbi_toy
import torch
from torch import nn

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observable
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.errors import ConfigError, SimulationError
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import execute
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.registry import Registry
from sbi_core.rng import as_generator
from sbi_core.simulate.probe import check_copies, check_description, observed, try_components

MLP = MlpEmbedding()


class Breaks(sbi_toy.ToySimulator):
    """The toy with another result of ``simulate`` or ``observe``."""

    def __init__(self, simulate=None, observe=None):
        super().__init__()
        self.simulated, self.observed = simulate, observe

    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return self.simulated(batch, theta) if self.simulated else batch

    def observe(self, batch, rng):
        seen = super().observe(batch, rng)
        return self.observed(seen) if self.observed else seen


def shifted_in_place(batch, theta):
    theta[:, 0] += 3.0
    return batch.with_(theta=theta)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda b, theta: b.x, "simulate returned Tensor; return sbi_core.Batch"),
        (lambda b, theta: b.x.numpy(), "simulate returned ndarray"),
        (lambda b, theta: b.with_(x=b.x[:, 0]), r"x of shape \(8,\); return \(rows, columns\)"),
        (lambda b, theta: b.with_(x=torch.cat([b.x, b.x], 1)), "x with 6 columns, .* names 3"),
        (lambda b, theta: b[1:], "returned 7 rows for 8"),
        (lambda b, theta: b.with_(theta=b.theta[:, :2]), r"theta of shape \(8, 2\), not \(8, 3\)"),
        (lambda b, theta: b.with_(theta=b.theta.flip(0)), r"simulate returned theta \[.*in row 0"),
        (shifted_in_place, "but was given .*; return theta=theta and assign nothing into it"),
    ],
)
def test_a_fault_of_simulate(how, message):
    with pytest.raises(SimulationError, match=f"simulator 'toy': .*{message}"):
        try_components(Breaks(simulate=how), MLP, 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda b: b.x, "observe returned Tensor for a Batch of 8 rows"),
        (lambda b: b[:3], r"observe returned 3 rows for a Batch of 8 rows; return batch.with_"),
        (lambda b: Batch(b.x[:, :2], b.theta), "observe returned x with 2 columns, .* names 3"),
        (lambda b: b.with_(x=b.x * torch.nan), "observe returned x that is not finite"),
        (
            lambda b: b.with_(x=b.x.double() * 1e300),
            r"x up to .*e\+30\d, but networks take at most 3",
        ),
        (lambda b: b.with_(x=b.x.cfloat()), "'x' is complex; give real and imaginary parts as col"),
        (lambda b: b.with_(x_err=-b.x.abs()), "observe returned x_err that is not positive"),
        (lambda b: b.with_(theta=b.theta + 1), "observe changed theta"),
        (lambda b: b.with_(mask=b.x > 1e9), "all values of all rows are masked"),
        (lambda b: 1 / 0, "observe raised ZeroDivisionError: division by zero for a Batch of 8"),
    ],
)
def test_a_fault_of_observe(how, message):
    with pytest.raises(SimulationError, match=message):
        try_components(Breaks(observe=how), MLP, 1)


def test_a_fault_of_observe_in_long_batches_names_simulator_method_and_rows(toy, rng, finished):
    short = Breaks(observe=lambda b: b if len(b) <= 8 else b.with_(x=b.x[:8]))
    clean = toy.draw(40, rng)
    short.observe(clean[:8], rng)
    message = "^simulator 'toy': observe: batch field 'theta' has 40 rows, x has 8"
    for call in (short.observe, lambda b, rng: observed(short, b, rng)):
        with pytest.raises(SimulationError, match=message):
            call(clean, rng)
    finished._context.simulator = Breaks(observe=lambda b: 1 / 0)
    message = "^simulator 'toy': observe raised ZeroDivisionError: .* for a Batch of 40 rows"
    with pytest.raises(SimulationError, match=message):
        finished._context.training.observe(clean, rng)


def test_a_fault_of_draw_names_simulator_and_method(rng):
    class Draws(sbi_toy.ToySimulator):
        def draw(self, n, rng):
            return Batch(x=np.ones((n - 1, 3)), theta=np.ones((n, 3)))

    with pytest.raises(SimulationError, match="^simulator 'toy': draw: batch field 'theta' has 9"):
        Draws().draw(9, rng)


class Fixed(MlpEmbedding):
    """An embedding for vectors of one length."""

    def build(self, shape):
        module = nn.Linear(5, 2)
        module.forward = lambda x, x_err=None, mask=None, context=None: nn.Linear(5, 2)(x)
        module.out_features = 2
        return module


class Lying(MlpEmbedding):
    def build(self, shape):
        module = super().build(shape)
        module.out_features += 1
        return module


class Returns(MlpEmbedding):
    """An embedding whose module returns something else."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def build(self, shape):
        module = super().build(shape)
        forward = module.forward
        module.forward = lambda *inputs: self.change(forward(*inputs))
        return module


def test_a_fault_of_the_embedding(toy):
    with pytest.raises(ConfigError, match="'mlp' returns NoneType; return a torch tensor"):
        try_components(toy, Returns(lambda h: None), 1)
    with pytest.raises(ConfigError, match="'mlp' returns ndarray; return a torch tensor"):
        try_components(toy, Returns(lambda h: h.numpy()), 1)
    with pytest.raises(ConfigError, match=r"'mlp' does not work with InputShape\(x=\(3,\).*5x2"):
        try_components(toy, Fixed(), 1)
    with pytest.raises(ConfigError, match=r"'mlp' returns \(8, \d+\) for 8 rows"):
        try_components(toy, Lying(), 1)


def test_implicit_priors_are_tried_by_draw():
    class Drawn(sbi_toy.ToySimulator):
        parameters = ParameterSpace((Parameter("a", Prior("implicit", {"sampler": "mine"})),))

        def draw(self, n, rng):
            return Batch(x=np.ones((n, 3)), theta=np.ones((n, 2)))

    with pytest.raises(SimulationError, match=r"draw returned theta of shape \(8, 2\)"):
        try_components(Drawn(), MLP, 1)


def test_the_global_generators_are_left_alone(toy):
    before = torch.get_rng_state()
    try_components(toy, MLP, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_stops_before_it_simulates(tmp_path, monkeypatch):
    monkeypatch.setattr(sbi_toy.ToySimulator, "observables", sbi_toy.ToySimulator.observables[:2])
    registry = Registry(["toy"], extra={"toy": sbi_toy})
    with pytest.raises(SimulationError, match="x with 3 columns, but `observables` names 2"):
        execute(resolve(registry, "toy", preset="quick"), tmp_path / "run", registry)
    assert not list((tmp_path / "run").rglob("part-*.h5"))


# -- descriptions and copies ----------------------------------------------------------------------


def with_attributes(**attributes):
    return type("Odd", (sbi_toy.ToySimulator,), attributes)()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": ""}, "simulator Odd: 'name' is ''; write name = '...'"),
        ({"version": 2}, "simulator Odd: 'version' is 2"),
        ({"parameters": ()}, r"`parameters` is tuple; write parameters = ParameterSpace\("),
        ({"observables": ("a", "b")}, r"`observables` must be a tuple of Observable\(...\)"),
        (
            {"parameters": ParameterSpace((Parameter("a", Prior("fixed", {"value": 1})),))},
            "all parameters are fixed; nothing can be inferred",
        ),
    ],
)
def test_a_description_that_is_wrong(attributes, message):
    with pytest.raises(SimulationError, match=message):
        check_description(with_attributes(**attributes))


def test_observables_may_be_left_out():
    class Spectra(Simulator):
        name, version, parameters = "spectra", "1", sbi_toy.SPACE

        def simulate(self, theta, rng):
            return Batch.of_arrays(x=np.ones((len(theta), 1, 40)), theta=np.asarray(theta))

    assert Spectra().observables == ()
    check_description(Spectra())
    try_components(Spectra(), MLP, 1)


class Stored(sbi_toy.ToySimulator):
    """A fixed set of simulations, and no simulator."""

    keys = False

    def simulate(self, theta, rng):
        raise ConfigError("there are only stored simulations")

    def draw(self, n, rng):
        rows = as_generator(rng).permutation(2000)[:n]
        theta = self.parameters.sample(2000, 1)
        x = theta @ np.ones((3, 3))
        key = rows if self.keys else None
        return Batch.of_arrays(x=x[rows], theta=theta[rows], split_key=key)


def test_copies_of_stored_simulations_are_found_before_the_run():
    with pytest.raises(SimulationError, match=r"of \d+ simulations are copies .*split_key"):
        try_components(Stored(), MLP, 1)


def test_copies_on_one_side_of_the_split_are_right():
    class Keyed(Stored):
        keys = True

    try_components(Keyed(), MLP, 1)
    try_components(Stored(), MLP, 1, shards=1)  # every simulation once


def test_copies_within_a_shard_are_found():
    class Repeats(Stored):
        def draw(self, n, rng):
            return super().draw(n, rng)[np.arange(n) // 2]

    with pytest.raises(SimulationError, match="are copies"):
        try_components(Repeats(), MLP, 1, shards=1)


def test_a_prior_that_repeats_its_draws_is_found():
    class Few:
        def sample(self, n, rng):
            return rng.choice(np.linspace(0, 1, 50), (n, 2))

        def log_prob(self, x):
            return np.zeros(len(x))

    simulator = with_attributes(parameters=ParameterSpace((Parameter("a", Prior.of(Few())),)))
    with pytest.raises(SimulationError, match="are copies"):
        check_copies(simulator)


def test_draws_from_continuous_and_discrete_priors_are_no_copies(toy):
    check_copies(toy)
    coin = ParameterSpace((Parameter("a", Prior("integer", {"low": 0, "high": 1})),))
    check_copies(with_attributes(parameters=coin, draw=lambda self, n, rng: 1 / 0))


def test_nothing_to_learn_from():
    with pytest.raises(SimulationError, match=r"x of shape \(8, 0\): there is nothing to learn"):
        try_components(Breaks(simulate=lambda b, theta: b.with_(x=b.x[:, :0])), MLP, 1)


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        (("m", "n", "m"), "observables must have different names; more than once: m"),
        (("m", "magg"), "observable 'magg': 'magg' is not a unit of astropy"),
    ],
)
def test_a_fault_of_the_columns_of_the_data(observables, message):
    simulator = sbi_toy.ToySimulator()
    units = {"magg": "magg"}
    simulator.observables = tuple(Observable(o, unit=units.get(o, "")) for o in observables)
    with pytest.raises(SimulationError, match=message):
        check_description(simulator)
