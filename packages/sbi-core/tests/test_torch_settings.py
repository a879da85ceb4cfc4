"""The caller's dtype, grad mode and threads decide about nothing."""

import threading
import time

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.embeddings.mlp import MlpConfig, MlpEmbedding
from sbi_core.estimators import load_estimator
from sbi_core.estimators.flows import MafConfig, MafEstimator
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.estimators.sbi import SbiNpseConfig, SbiNpseEstimator
from sbi_core.posterior import Posterior
from sbi_core.rng import seeded, stream, torch_defaults
from sbi_core.simulate.emulator import Emulator, EmulatorConfig

KINDS = {
    "maf": lambda: MafEstimator(MafConfig(transforms=2, hidden=(16,))),
    "mixture": lambda: MixtureEstimator(MixtureConfig(components=2, hidden=(16,))),
    "sbi-npse": lambda: SbiNpseEstimator(SbiNpseConfig(hidden=8, layers=2, steps=4)),
}


@pytest.fixture(autouse=True)
def own_settings():
    """A failing test leaves no setting to the others."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


class float64:  # noqa: N801
    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        assert torch.get_default_dtype() == torch.float64  # the caller's setting is restored
        torch.set_default_dtype(torch.float32)


CALLERS = {
    "default dtype float64": float64,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def fit(toy, kind, seed=1):
    space = toy.parameters.select("global")
    batch = toy.draw(300, stream(seed))
    config = {"epochs": 2, "batch_size": 64}
    training = Training(batch, space, (0, 1), toy.observe, config, seed=seed)
    estimator = KINDS[kind]()
    estimator.fit(training, MlpEmbedding(MlpConfig(hidden=(8,))))
    return estimator


def numbers(toy, kind, folder):
    """Everything that follows from a training, as arrays."""
    estimator = fit(toy, kind)
    estimator.save(folder)
    posterior = Posterior(load_estimator(folder), seed=3)
    objects = toy.example_observations(2, 5)
    samples = posterior.sample(objects, 20)
    weights = estimator.network.state_dict()
    return [
        *(v.numpy() for v in weights.values()),
        samples.values,
        posterior.log_prob(samples.values, objects),
        *posterior.gaussian_moments(objects.batch, draws=20)[:2],
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("caller", CALLERS)
def test_settings_of_the_caller_change_no_bit(kind, caller, toy, tmp_path):
    want = numbers(toy, kind, tmp_path / "a")
    with CALLERS[caller]():
        got = numbers(toy, kind, tmp_path / "b")
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.dtype
        assert_array_equal(a, b)


@pytest.mark.parametrize("caller", CALLERS)
def test_they_do_not_change_the_emulator_either(caller, toy, tmp_path):
    config = EmulatorConfig(epochs=2, hidden=(8,), batch_size=64)
    batch = toy.draw(300, stream(1))

    def made(folder):
        emulator = Emulator(config)
        emulator.fit(toy, batch, seed=1)
        emulator.save(folder)
        return Emulator.load(folder).predict(batch.theta)

    want = made(tmp_path / "a")
    with CALLERS[caller]():
        got = made(tmp_path / "b")
    assert_array_equal(want, got)


def test_a_run_has_the_same_numbers_whatever_the_caller_set(toy_run):
    small = ("simulate.n=400", "train.epochs=1", "diagnose.objects=50", "infer.n_example=5")
    options = {"stages": ("simulate", "emulate", "train", "diagnose", "infer")}
    small = (*small, "estimator.name=mixture", "estimator.hidden=[8]")
    runs = [toy_run(*small, out="a", **options)]
    objects = runs[0].simulator.example_observations(1, 5)
    draws = [runs[0].infer(objects, 10).values]
    with float64(), torch.inference_mode():
        runs.append(toy_run(*small, out="b", **options))
        draws.append(runs[1].infer(objects, 10).values)
    for name in ("estimator/weights.safetensors", "diagnostics.npz"):
        first, second = ((r.directory.root / name).read_bytes() for r in runs)
        assert first == second, name
    assert_array_equal(*draws)


def test_defaults_are_restored_after_an_error():
    @torch_defaults()
    def broken():
        assert torch.get_default_dtype() == torch.float32
        raise RuntimeError

    with float64(), pytest.raises(RuntimeError):
        broken()


# -- threads -------------------------------------------------------------------------------


def in_threads(*jobs):
    """Run functions at the same time; return their results."""
    results, barrier = [None] * len(jobs), threading.Barrier(len(jobs))

    def call(k, job):
        barrier.wait()
        results[k] = job()

    threads = [threading.Thread(target=call, args=(k, job)) for k, job in enumerate(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def drawn(seed):
    with seeded(stream(seed)):
        parts = []
        for _ in range(20):
            parts.append(torch.rand(3))
            time.sleep(1e-4)  # let other threads in
        return torch.cat(parts)


def test_two_threads_draw_the_numbers_of_one():
    want = [drawn(k) for k in range(2)]
    for _ in range(20):
        got = in_threads(lambda: drawn(0), lambda: drawn(1))
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_two_trainings_in_threads_end_with_the_same_bits(toy):
    want = [fit(toy, "mixture", seed).network.state_dict() for seed in (1, 2)]
    with float64():
        jobs = [lambda s=s: fit(toy, "mixture", s).network.state_dict() for s in (1, 2)]
        got = in_threads(*jobs)
    for a, b in zip(want, got, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_default_dtype_is_restored_when_the_last_thread_leaves():
    inside, leave = threading.Event(), threading.Event()

    def long():
        with torch_defaults():
            inside.set()
            leave.wait()
            return torch.get_default_dtype()

    def short():
        inside.wait()
        with torch_defaults():
            first = torch.get_default_dtype()
        leave.set()
        return first

    with float64():
        assert in_threads(long, short) == [torch.float32, torch.float32]


def test_seeding_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    want = torch.rand(2)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), want)
    with seeded(1):
        assert torch.equal(torch.rand(2), first)


def test_a_batch_of_float64_arrays_is_trained_in_float32(toy):
    batch = toy.draw(200, stream(1))
    wide = Batch(x=batch.x.double(), theta=batch.theta.double())
    space = toy.parameters.select("global")
    estimator = KINDS["mixture"]()
    training = Training(wide, space, (0, 1), toy.observe, {"epochs": 1}, seed=1)
    estimator.fit(training, MlpEmbedding(MlpConfig(hidden=(8,))))
    floats = [v for v in estimator.network.state_dict().values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float32}
    assert np.isfinite(estimator.record.test_nll)
