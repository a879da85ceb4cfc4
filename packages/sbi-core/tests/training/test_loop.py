"""The loop: schedule, exact resume, errors in one sentence.

Run as a script (``python test_train.py FOLDER``) it is the job that one of the tests kills.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import sbi_core.training.loop as module
from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, TrainingError
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import seeded, stream, torch_generator
from sbi_core.training.config import TrainConfig
from sbi_core.training.loop import Trainable, train_network
from sbi_core.training.optimizer import one_cycle

SPACE = ParameterSpace((Parameter("a", Prior("normal", {"loc": 0.0, "scale": 1.0})),))


class Regression(Trainable):
    """theta from x, with dropout: torch's own generator must be covered by resume, too."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def loss(self, targets, batch):
        return ((self.layers(batch.x) - targets) ** 2).sum(1)


def noisy(batch, rng):
    gen = torch_generator(rng)
    return batch.with_(x=batch.x + 0.1 * torch.randn(batch.x.shape, generator=gen))


def job(directory=None, *, n=600, seed=7, observe=noisy, **options):
    theta = stream(1).standard_normal((n, 1))
    x = torch.as_tensor(np.hstack([theta, theta**2])).float()
    config = TrainConfig(**{"epochs": 8, "batch_size": 64, **options})
    batch = Batch(x=x, theta=torch.as_tensor(theta))
    training = Training(batch, SPACE, (0,), observe, config, seed=seed, directory=directory)
    with seeded(stream(seed, "weights")):
        network = Regression()
    return network, training, batch.theta


def run(directory=None, callbacks=(), **options):
    network, training, targets = job(directory, **options)
    record, splits = train_network(network, training, targets, callbacks)
    return network, record, splits


def lines(record_or_path):
    if isinstance(record_or_path, Path):
        found = [json.loads(line) for line in record_or_path.read_text().splitlines()]
    else:
        found = [dict(line) for line in record_or_path.history]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# -- schedule and options ------------------------------------------------------------------


def test_one_cycle_rises_to_its_peak_and_ends_a_thousandth_of_it():
    rates = np.array([one_cycle(s, 1001, 2.0) for s in range(1001)])
    assert_allclose([rates[0], rates.max(), rates[-1]], [0.08, 2.0, 0.002], rtol=2e-2)
    assert rates.argmax() in (100, 101)


def test_patience_needs_an_optimizer_without_schedule():
    with pytest.raises(ValueError, match="schedulefree"):
        TrainConfig(patience=3)


def test_options_may_be_a_table_and_typing_errors_are_named():
    network, training, targets = job()
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        train_network(network, replace(training, config={"epoch": 3}), targets)


def test_a_time_budget_shortens_the_training():
    assert run(epochs=10_000, max_seconds=0.2)[1].epochs < 10_000


def test_patience_ends_a_training_that_does_not_improve():
    record = run(optimizer="schedulefree", learning_rate=1e-12, patience=2, epochs=50)[1]
    assert record.epochs == record.best_epoch + 2


# -- training ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam-onecycle", "schedulefree"])
def test_training_learns_and_reports(optimizer):
    seen = []
    _, record, splits = run(None, [seen.append], optimizer=optimizer, epochs=30, learning_rate=0.02)
    assert record.test_nll < 0.3  # prior variance is 1
    assert len(seen) == record.epochs == 30
    assert seen[0].keys() == {
        *("epoch", "epochs", "train_loss", "val_loss", "learning_rate", "skipped_steps", "seconds")
    }
    assert record.split["train"] == len(splits.train)
    assert record.split["hash"] == splits.hash


def test_the_weights_kept_are_those_of_the_best_epoch():
    network, record, _ = run(epochs=12, learning_rate=0.3)
    vals = [line["val_loss"] for line in record.history]
    assert record.best_epoch == 1 + int(np.argmin(vals))
    loop = module._Loop(*job(epochs=12, learning_rate=0.3))
    assert float(module.mean_loss(network, *loop.validation).mean()) == min(vals)


def still(batch, rng):
    return batch


def memorised(directory=None, callbacks=(), **options):
    """A job whose targets are noise: every epoch after the first few overfits."""
    sizes = {"n": 400, "batch_size": 16, "epochs": 12, "val_fraction": 0.4}
    network, training, _ = job(directory, observe=still, **sizes, **options)
    network.layers = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))
    with seeded(stream(3)):
        network.layers.apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)
    targets = torch.as_tensor(stream(2).standard_normal((400, 1)))
    return network, train_network(network, training, targets, callbacks)[0]


def test_overfitting_is_followed_by_cycles_with_more_weight_decay():
    seen = []
    network, record = memorised(None, [seen.append], learning_rate=0.03)
    once = memorised(learning_rate=0.03, retries=0)[1]
    assert once.epochs == 12
    assert once.best_epoch <= 6
    assert record.epochs == 36
    assert [line["epochs"] for line in seen[::12]] == [12, 24, 36]
    assert lines(record)[:12] == lines(once)
    rates = [line["learning_rate"] for line in record.history]
    assert rates[:12] == rates[12:24] == rates[24:]
    losses = [line["val_loss"] for line in record.history]
    assert min(losses[12:]) < min(losses[:12])
    assert record.best_epoch == 1 + int(np.argmin(losses))
    assert losses[35] < losses[11]  # the last cycle memorises less


def test_a_training_that_does_not_overfit_has_one_cycle():
    _, record, _ = run(epochs=12)
    assert record.best_epoch > 6
    assert record.epochs == 12


@pytest.mark.parametrize("epoch", [1, 100])
def test_a_training_of_default_length_is_resumed_to_the_same_bits(tmp_path, epoch):
    def stop(line):
        if line["epoch"] == epoch:
            raise Stop

    length = {"n": 80, "epochs": None, "batch_size": None, "val_fraction": 0.2}
    whole, record, _ = run(**length)
    assert record.epochs >= 300
    with pytest.raises(Stop):
        run(tmp_path, [stop], **length)
    resumed, again, _ = run(tmp_path, **length)
    assert lines(again) == lines(record)
    assert_same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("epoch", [12, 17, 24])
def test_a_cycle_added_after_overfitting_is_resumed_to_the_same_bits(tmp_path, epoch):
    def stop(line):
        if line["epoch"] == epoch:
            raise Stop

    whole, record = memorised(learning_rate=0.03)
    with pytest.raises(Stop):
        memorised(tmp_path, [stop], learning_rate=0.03)
    resumed, again = memorised(tmp_path, learning_rate=0.03)
    assert lines(again) == lines(record)
    assert_same(resumed.state_dict(), whole.state_dict())


def test_log_det_moves_the_test_loss_alone():
    network, training, targets = job()
    record, _ = train_network(
        network, training, targets, log_det=lambda b: torch.full((len(b),), 2.5)
    )
    assert_allclose(record.test_nll, run()[1].test_nll - 2.5)


def test_noise_is_fresh_every_epoch_and_fixed_for_validation():
    seen = []

    def observe(batch, rng):
        out = noisy(batch, rng)
        seen.append(out.x - batch.x)
        return out

    run(observe=observe, epochs=2, batch_size=600)
    validation, first, second, _ = seen
    assert not torch.equal(first, second)
    again = seen.copy()
    seen.clear()
    run(observe=observe, epochs=2, batch_size=600)
    assert torch.equal(seen[0], validation)
    assert torch.equal(seen[2], again[2])


def test_neither_global_generator_nor_threads_are_touched():
    torch.manual_seed(5)
    want, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    run(epochs=1)
    assert torch.equal(torch.rand(3), want)
    assert torch.get_num_threads() == threads


def test_weights_end_in_aligned_memory_of_their_own(tmp_path):
    """In training they are slices of one tensor; some processors round such products differently.

    A loaded network has aligned weights, and what it infers must have the same bits.
    """
    network, *_ = run()
    resumed, *_ = run(tmp_path)
    again, *_ = run(tmp_path)
    for made in (network, resumed, again):
        for parameter in made.parameters():
            assert parameter.data_ptr() % 64 == 0
            assert parameter.untyped_storage().nbytes() == parameter.nbytes
            assert parameter.grad is None
    assert_same(network.state_dict(), again.state_dict())


# -- resume --------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam-onecycle", "schedulefree"])
@pytest.mark.parametrize("epoch", [1, 4, 8])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, optimizer, epoch):
    whole, record, _ = run(tmp_path / "whole", optimizer=optimizer)

    def stop(line):
        if line["epoch"] == epoch:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "parts", [stop], optimizer=optimizer)
    resumed, second, _ = run(tmp_path / "parts", optimizer=optimizer)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert second.test_nll == record.test_nll
    assert lines(second) == lines(record)
    assert lines(tmp_path / "parts" / "metrics.jsonl") == lines(record)


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    whole, record, _ = run(tmp_path / "whole", epochs=40)
    parts = tmp_path / "parts"
    path = os.pathsep.join([str(Path(module.__file__).parents[1]), *sys.path])
    for wait in (2, 9):
        child = subprocess.Popen(
            [sys.executable, __file__, str(parts)], env={**os.environ, "PYTHONPATH": path}
        )
        metrics, deadline = parts / "metrics.jsonl", time.monotonic() + 600
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= wait):
            assert child.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    resumed, second, _ = run(parts, epochs=40)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert second.test_nll == record.test_nll
    assert lines(parts / "metrics.jsonl") == lines(record)


def test_metrics_beyond_the_checkpoint_are_cut(tmp_path):
    _, record, _ = run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"epoch": 9, "train_lo')
    run(tmp_path)
    assert lines(tmp_path / "metrics.jsonl") == lines(record)


def test_a_finished_training_is_not_repeated(tmp_path):
    first, record, _ = run(tmp_path)
    seen = []
    second, again, _ = run(tmp_path, [seen.append])
    assert seen == []
    assert again == record
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_recomputed(tmp_path, damage, caplog):
    first, record, _ = run(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-10] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    second, again, _ = run(tmp_path)
    assert "damaged" in caplog.text
    assert lines(again) == lines(record)
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0.01}, "learning_rate None -> 0.01"),
        ({"seed": 8}, "seed"),
        ({"n": 601}, "split"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, change, words):
    run(tmp_path)
    with pytest.raises(TrainingError, match=words):
        run(tmp_path, **change)


def test_other_simulations_or_another_network_are_refused(tmp_path):
    run(tmp_path)
    network, training, targets = job(tmp_path)
    with pytest.raises(TrainingError, match="simulations"):
        train_network(network, training, targets + 1)
    network.layers[1] = nn.SiLU()
    with pytest.raises(TrainingError, match="network"):
        train_network(network, training, targets)


# -- errors --------------------------------------------------------------------------------


def spoiled(calls, steps):
    """Noise that is not a number at the given steps of the given epochs (call 1: validation)."""
    bad = {1 + 8 * (epoch - 1) + step + 1 for epoch, step in steps}

    def observe(batch, rng):
        calls.append(len(batch))
        return batch.with_(x=batch.x * (np.nan if len(calls) in bad else 1))

    return observe


@pytest.mark.parametrize(("bad", "epoch", "step"), [([(1, 3)], 1, 3), ([(2, 1), (2, 6)], 2, 6)])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_rows(tmp_path, bad, epoch, step):
    calls = []
    with pytest.raises(TrainingError, match=rf"epoch {epoch}, step {step}") as caught:
        run(tmp_path, observe=spoiled(calls, bad))
    failed = json.loads((tmp_path / "failed_step.json").read_text())
    assert (failed["epoch"], failed["step"]) == (epoch, step)
    assert len(failed["rows"]) == calls[-1]
    assert "failed_step.json" in str(caught.value)


def test_a_single_step_that_is_not_finite_later_is_skipped_counted_and_said(tmp_path, caplog):
    network, record, _ = run(tmp_path, observe=spoiled([], [(2, 1)]), epochs=3)
    assert [line["skipped_steps"] for line in record.history] == [0, 1, 0]
    assert all(math.isfinite(line["train_loss"]) for line in record.history)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert "epoch 2, step 1: the step is skipped" in caplog.text


def test_a_gradient_that_overflows_alone_is_skipped_too():
    """The norm of float32 gradients above 2e19 is infinite though every loss is finite."""
    calls = []

    def observe(batch, rng):
        calls.append(1)
        return batch.with_(x=batch.x * (1e15 if len(calls) == 1 + 8 + 2 else 1))

    network, training, targets = job(observe=observe, epochs=2)
    network.layers = nn.Linear(2, 1)
    record, _ = train_network(network, training, targets)
    assert [line["skipped_steps"] for line in record.history] == [0, 1]
    assert all(torch.isfinite(p).all() for p in network.parameters())


if __name__ == "__main__":
    run(Path(sys.argv[1]), [lambda line: time.sleep(0.02)], epochs=40)
