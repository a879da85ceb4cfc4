"""Simulators that raise, crash or hang for some rows: found, recorded and left out."""

import multiprocessing
import pickle
import signal
from contextlib import closing

import numpy as np
import pytest
import sbi_toy
import torch
from sbi_toy import FragileConfig, FragileSimulator

from sbi_core import Batch
from sbi_core.data.writing import write_atomic
from sbi_core.errors import ConfigError, SimulationError
from sbi_core.rng import stream
from sbi_core.simulate.executors import SerialExecutor
from sbi_core.simulate.store import deliver_shard, plan, read_all, shard_image
from sbi_core.simulate.tolerance import REASONS, Tolerance

_CODES = {reason: code for code, reason in REASONS.items()}
RAISED, CRASHED, TOO_LONG = (
    _CODES[k] for k in ("raised an exception", "crashed", "exceeded the time limit")
)


def fragile(how, above=1.5):
    return FragileSimulator(FragileConfig(how=how, above=above))


def drawn(simulator, tolerance=None, n=60, seed=1):
    """Return n rows and what was caught."""
    with (tolerance or Tolerance(0.5)).active() as caught:
        return simulator.draw(n, stream(seed, "simulate", 0)), caught


def same(a, b, rows=slice(None)):
    return all(np.array_equal(v[rows], b.numpy()[k][rows], True) for k, v in a.numpy().items())


@pytest.fixture
def protected():
    tolerance = Tolerance(0.5, protect=True)
    with closing(tolerance):
        yield tolerance


def test_rows_that_raise_are_marked_and_the_others_keep_their_numbers():
    batch, caught = drawn(fragile("raise"))
    marked, nothing = drawn(fragile("mark"))
    bad = (marked.theta[:, 2] > 1.5).numpy()
    assert 2 <= bad.sum() < 10
    assert not nothing
    assert [c.row for c in caught] == np.flatnonzero(bad).tolist()
    assert {c.message for c in caught} == {"ValueError: size is too large"}
    assert np.allclose([c.theta for c in caught], marked.theta[bad])
    assert (batch.failure[bad] == RAISED).all()
    assert torch.isnan(batch.x[bad]).all()
    assert torch.equal(batch.ok, marked.ok)
    assert same(batch, marked, ~bad)
    assert torch.equal(batch.theta, marked.theta)


@pytest.mark.parametrize("how", ["exit", "segv"])
def test_rows_that_end_the_process_are_found(how, protected):
    batch, caught = drawn(fragile(how), protected)
    marked, _ = drawn(fragile("mark"))
    assert [c.row for c in caught] == np.flatnonzero(~marked.ok).tolist()
    message = {"exit": "ended its process with code 7", "segv": "crashed with SIGSEGV"}[how]
    assert {(c.code, c.message) for c in caught} == {(CRASHED, message)}
    assert same(batch, marked, marked.ok.numpy())


def test_a_row_that_hangs_is_ended_at_the_time_limit():
    tolerance = Tolerance(0.5, time_limit=0.3)
    with closing(tolerance):
        batch, caught = drawn(fragile("hang", 1.0), tolerance, n=8, seed=9)
    marked, _ = drawn(fragile("mark", 1.0), n=8, seed=9)
    assert [c.row for c in caught] == np.flatnonzero(~marked.ok).tolist() != []
    assert {(c.code, c.message) for c in caught} == {(TOO_LONG, "took longer than 0.3 s")}
    assert same(batch, marked, marked.ok.numpy())
    assert multiprocessing.active_children() == []


def test_a_crash_that_does_not_come_again_changes_nothing(protected, tmp_path, monkeypatch):
    monkeypatch.setenv("SBI_TOY_TRACE", str(tmp_path / "trace"))
    batch, caught = drawn(fragile("once", 1.0), protected)
    assert (tmp_path / "trace").exists()
    assert caught == []
    with Tolerance().active():
        expected = fragile("none", 1.0).draw(60, stream(1, "simulate", 0))
    assert same(batch, expected)


def test_rows_that_only_fail_together_are_kept():
    batch, caught = drawn(fragile("memory"))
    assert caught == []
    assert bool(batch.ok.all())


def test_an_exception_that_is_not_of_the_rows_uses_the_parts():
    class Unlucky(sbi_toy.ToySimulator):
        def simulate(self, theta, rng):
            batch = super().simulate(theta, rng)
            if len(theta) > 1 and rng.random() < 0.4:
                raise ValueError("unlucky")
            return batch

    first, _ = drawn(Unlucky(), Tolerance(1.0))
    again, _ = drawn(Unlucky(), Tolerance(1.0))
    assert same(first, again)
    with Tolerance(1.0).active():
        theta = sbi_toy.SPACE.sample(60, stream(1, "simulate", 0))
    assert np.allclose(first.theta, theta)


def test_the_generator_goes_on_as_if_nothing_had_failed():
    def after(how):
        rng = stream(3, "x")
        with Tolerance(0.5).active():
            fragile(how).draw(60, rng)
        return rng.random()

    assert after("raise") == after("mark")


@pytest.mark.parametrize(
    ("theta", "rng"),
    [(torch.randn(40, 3), torch.Generator().manual_seed(1)), (np.zeros((4, 3)).tolist(), 5)],
)
def test_theta_and_generator_may_be_of_any_kind(theta, rng):
    class Raises(sbi_toy.ToySimulator):
        calls = 0

        def simulate(self, theta, rng):
            Raises.calls += 1
            if Raises.calls == 1:
                raise ValueError("the first call")
            return Batch.of_arrays(x=np.asarray(theta), theta=np.asarray(theta))

    with Tolerance().active() as caught:
        batch = Raises().simulate(theta, rng=rng)
    assert caught == []
    assert np.allclose(batch.theta, theta)


def test_sys_exit_is_an_error_of_one_sentence(protected):
    for tolerance in (None, protected):
        with pytest.raises(SimulationError, match=r"'fragile' called sys.exit\(5\); let simulate"):
            drawn(fragile("sysexit"), tolerance)


def test_messages_for_the_user_pass(protected):
    for tolerance in (None, protected):
        with pytest.raises(ConfigError, match="the table of sizes is missing"):
            drawn(fragile("stop"), tolerance)


def test_an_interrupt_is_not_swallowed():
    # tests that were started in the background may ignore SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            drawn(fragile("interrupt"))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "GeneratorExit", "BaseException"])
def test_what_is_no_exception_is_recorded_like_one(how, protected):
    for tolerance in (None, protected):
        _, caught = drawn(fragile(how), tolerance)
        assert {(c.code, c.message) for c in caught} == {(RAISED, how)}


def test_outside_a_run_exceptions_are_those_of_the_simulator():
    with pytest.raises(ValueError, match="size is too large"):
        fragile("raise").draw(60, stream(1, "simulate", 0))


def test_a_simulator_that_always_raises_gives_up_early():
    calls = []

    class Always(sbi_toy.ToySimulator):
        def simulate(self, theta, rng):
            calls.append(len(theta))
            raise ValueError("never")

    with pytest.raises(SimulationError, match=r"failed for 30 of 30 rows, more than simulate.max"):
        drawn(Always(), Tolerance(0.05), n=5000)
    assert len(calls) < 100
    with pytest.raises(
        SimulationError, match=r"failed for every row .*4 rows.*never \(row 0, slope ="
    ):
        drawn(Always(), Tolerance(0.05), n=4)
    with pytest.raises(SimulationError, match="failed for 1 of 1 rows.*max_failed = 0 "):
        drawn(Always(), Tolerance(0.0), n=4)


def test_a_simulator_that_cannot_be_sent_is_named(protected):
    simulator = fragile("mark")
    simulator.lock = lambda: None
    with pytest.raises(SimulationError, match="cannot be sent to another process"):
        drawn(simulator, protected)


def test_an_exception_in_draw_is_one_sentence(tmp_path):
    class Draws(sbi_toy.ToySimulator):
        def draw(self, n, rng):
            raise KeyError("om")

    (shard,) = plan(tmp_path, 10, 10, 1, "x")
    with pytest.raises(SimulationError, match=r"draw raised KeyError: 'om' \[shard 0\]"):
        shard_image(Draws(), shard)


def test_a_tolerance_is_sent_without_its_process(protected):
    drawn(fragile("mark"), protected)
    assert pickle.loads(pickle.dumps(protected)) == protected


def shards_of(folder, executor, how, tolerance):
    shards = plan(folder, 120, 60, seed=1, identity="abc")
    for shard, _, image in executor.map(deliver_shard, (fragile(how), tolerance, ()), shards):
        write_atomic(shard.path, image)
    return read_all(shards)


def test_shards_hold_theta_of_failed_rows_and_the_messages(tmp_path):
    batch, reports = shards_of(tmp_path / "a", SerialExecutor(), "raise", Tolerance(0.5))
    assert sum(r.caught for r in reports) == int((~batch.ok).sum()) > 0
    assert (batch.theta[~batch.ok][:, 2] > 1.5).all()
    (message,) = reports[0].messages
    assert (message.text, message.code) == ("ValueError: size is too large", RAISED)
    assert message.rows == reports[0].caught == reports[0].failed
    assert message.theta[2] > 1.5
    with Tolerance().active():
        alone = fragile("mark").draw(60, stream(1, "simulate", 0))
    assert same(batch[:60], alone, alone.ok.numpy())


class Alters(sbi_toy.ToySimulator):
    """The toy with another theta in long calls only."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def simulate(self, theta, rng):
        batch = super().simulate(theta, rng)
        return self.change(batch, theta) if len(theta) > 50 else batch


def clipped_in_place(batch, theta):
    torch.as_tensor(theta)[17, 0] = 8.5
    return batch.with_(theta=torch.as_tensor(theta))


@pytest.mark.parametrize(
    ("change", "row"),
    [(clipped_in_place, 17), (lambda b, theta: b.with_(theta=b.theta.flip(0)), 0)],
)
def test_another_theta_is_refused_in_every_call(change, row, tmp_path):
    (shard,) = plan(tmp_path, 60, 60, 1, "x")
    message = rf"'toy': simulate returned theta .* in row {row}, but was given .* \[shard 0\]"
    with pytest.raises(SimulationError, match=message):
        shard_image(Alters(change), shard)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b, theta: Batch(b.x[1:], theta),
            "simulate: batch field 'theta' has 60 rows, x has 59",
        ),
        (lambda b, theta: None, "simulate returned NoneType"),
    ],
)
def test_a_fault_of_long_calls_names_simulator_and_method(change, message, tmp_path):
    (shard,) = plan(tmp_path, 60, 60, 1, "x")
    with pytest.raises(SimulationError, match=rf"simulator 'toy': {message}.* \[shard 0\]"):
        shard_image(Alters(change), shard)


def test_a_call_of_simulate_leaves_the_callers_theta_alone():
    theta = np.zeros((60, 3))
    with Tolerance().active(), pytest.raises(SimulationError):
        Alters(clipped_in_place).simulate(theta, stream(1, "x"))
    assert not theta.any()
