r"""A plugin whose posterior is known exactly: x_i = A Lambda + B Theta_i + eps.

Two global parameters Lambda, one local Theta, three observables. The estimator ``toy-exact``
needs no training, so that a whole run takes about a second. On its own path, because worker
processes and subprocesses import it, too.
"""

import builtins
import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from sbi_core import (
    Batch,
    ConfigError,
    Gaussian,
    MomentCombiner,
    MomentConfig,
    Observable,
    Parameter,
    ParameterSpace,
    Prior,
    Simulator,
    TrainingRecord,
    hookimpl,
    torch_generator,
)
from sbi_core.components import Estimator

LOC = np.array([1.0, -2.0])
SCALE = np.array([0.5, 2.0])
A = np.array([[1.0, 0.5], [-0.3, 0.8], [0.6, -0.2]])
B = np.array([0.7, 0.4, -0.5])
ERROR = 0.5

SPACE = ParameterSpace(
    (
        Parameter("slope", Prior("normal", {"loc": 1.0, "scale": 0.5}), "s", "", "global"),
        Parameter("offset", Prior("normal", {"loc": -2.0, "scale": 2.0}), "o", "dex", "global"),
        Parameter("size", Prior("normal", {"loc": 0.0, "scale": 1.0}), "r", "kpc", "local"),
    ),
    version="toy-1",
)

PIPELINE = """
[base]
simulator = { name = "toy" }
embedding = { name = "identity" }
estimator = { name = "toy-exact", parameters = "global" }
combiner = { name = "gaussian" }

[base.combine]
sizes = [1, 3, 10]
compare = ["toy-wrong"]

[presets.quick]
simulate = { n = 1200, shard_size = 200, executor = "serial" }
diagnose = { objects = 120, draws = 99 }
infer = { n_example = 20, draws = 100 }
combine = { calibration_groups = 0 }

[presets.standard]
simulate = { n = 5000, shard_size = 1000, executor = "serial" }
train = { epochs = 7 }
infer = { n_example = 50, draws = 200 }
"""


class ToyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    error: float = Field(ERROR, gt=0, description="standard deviation of the noise")
    failing: float = Field(0.0, ge=0, le=1, description="fraction of rows that fail")
    nothing: str | None = Field(None, description="an option that run.toml cannot hold")
    shift: float = Field(
        0.0, description="added to what is read", json_schema_extra={"reading": True}
    )


class ToySimulator(Simulator):
    name = "toy"
    version = "1"
    parameters = SPACE
    observables = tuple(Observable(n, n, "dex", aliases=(f"mag_{n}",)) for n in "abc")
    failures = {0: "ok", 3: "unlucky"}
    citations = ("Toy & Toy 2025",)

    def __init__(self, config=None):
        self.config = config or ToyConfig()
        self.default_error = self.config.error

    def simulate(self, theta, rng):
        # slowed down from outside where a test needs time to interrupt; no option, since it
        # must not change the identity
        time.sleep(float(os.environ.get("SBI_TOY_SIMULATE_SECONDS", "0")))
        if multiprocessing.parent_process() is not None and "SBI_TOY_PIDS" in os.environ:
            (Path(os.environ["SBI_TOY_PIDS"]) / f"{os.getpid()}.pid").touch()
            time.sleep(3600)
        theta = np.asarray(theta, float)
        x = torch.as_tensor(theta[:, :2] @ A.T + theta[:, 2:] * B)
        ok = torch.as_tensor(np.asarray(rng.random(len(theta)) >= self.config.failing))
        x = torch.where(ok[:, None], x, torch.nan)
        return Batch(x=x, theta=torch.as_tensor(theta), ok=ok, failure=torch.where(ok, 0, 3))

    def observe(self, batch, rng):
        time.sleep(float(os.environ.get("SBI_TOY_OBSERVE_SECONDS", "0")))
        gen = torch_generator(rng)
        err = torch.full_like(batch.x, self.config.error)
        noise = torch.randn(batch.x.shape, generator=gen, dtype=batch.x.dtype)
        return batch.with_(x=batch.x + err * noise, x_err=err)

    def observations_of(self, table, source):
        objects = super().observations_of(table, source)
        return replace(objects, batch=objects.batch.with_(x=objects.batch.x + self.config.shift))


class FragileConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    how: str = "mark"
    above: float = 1.5


class FragileSimulator(ToySimulator):
    """The toy with random numbers in ``simulate``; fails in some way where ``size`` is large."""

    name = "fragile"

    def __init__(self, config=None):
        super().__init__()
        self.fragile = config or FragileConfig()

    def simulate(self, theta, rng):
        theta = np.asarray(theta, float)
        bad = theta[:, 2] > self.fragile.above
        how = self.fragile.how if bad.any() else ""
        if how == "raise":
            raise ValueError("size is too large")
        if how == "stop":
            raise ConfigError("the table of sizes is missing")
        if how == "exit":
            os._exit(7)
        if how == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "hang":
            time.sleep(600)
        if how == "sysexit":
            raise SystemExit(5)
        if how == "interrupt":
            signal.raise_signal(signal.SIGINT)
        if how in ("KeyboardInterrupt", "GeneratorExit", "BaseException"):
            raise getattr(builtins, how)
        if how == "thread":
            threading.Thread(target=time.sleep, args=(600,)).start()
        if how == "memory" and len(theta) > 50:
            raise MemoryError
        if how == "once":  # dies the first time
            die_once(os.environ["SBI_TOY_TRACE"], None)
        x = theta[:, :2] @ A.T + theta[:, 2:] * B + rng.normal(size=(len(theta), 3))
        ok = ~bad if how in ("", "mark") else np.ones(len(theta), bool)
        return Batch.of_arrays(x=x, theta=theta, ok=ok, failure=np.where(ok, 0, 3))


def exact_moments(batch):
    """Mean (n, 2) and covariance (n, 2, 2) of Lambda given one x, in units of the prior."""
    x = batch.x.double().numpy()
    seen = batch.observed.numpy()
    err = np.where(seen, batch.x_err.double().numpy(), 1e6)  # 1e6: says nothing
    cov_x = err[:, :, None] ** 2 * np.eye(3) + np.outer(B, B)
    design = A * SCALE
    weighted = np.linalg.solve(cov_x, np.broadcast_to(design, (len(x), 3, 2)))
    cov = np.linalg.inv(np.eye(2) + design.T @ weighted)
    residual = np.where(seen, x - A @ LOC, 0.0)
    return np.einsum("nij,nkj,nk->ni", cov, weighted, residual), cov


class ExactEstimator(Estimator):
    name = "toy-exact"

    def fit(self, training, embedding, callbacks=()):
        self.space = training.space
        for epoch in range(2):
            for callback in callbacks:
                callback({"epoch": epoch, "val_loss": 0.0})
        return TrainingRecord(epochs=2, seconds=0.0, test_nll=0.0, best_epoch=1)

    def gaussian_moments(self, batch):
        return exact_moments(batch)

    def sample(self, batch, draws, rng):
        mean, cov = exact_moments(batch)
        rngs = rng if isinstance(rng, (list, tuple)) else [rng] * len(batch)
        noise = np.stack([g.standard_normal((draws, 2)) for g in rngs], 1)
        z = mean + np.einsum("sni,nji->snj", noise, np.linalg.cholesky(cov))
        return LOC + SCALE * z

    def log_prob(self, theta, batch):
        raise NotImplementedError

    def save(self, directory):
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {"estimator": self.name, "space": self.space.to_spec()}
        (directory / "config.json").write_text(json.dumps(config))

    @classmethod
    def load(cls, directory, *, registry=None):
        new = cls()
        config = json.loads((Path(directory) / "config.json").read_text())
        new.space = ParameterSpace.from_spec(config["space"])
        return new


class WrongSignCombiner(MomentCombiner):
    """Multiplies the prior in where Bayes' rule divides it out; never refuses any posterior."""

    name = "toy-wrong"
    comparison_only = True
    warning = "It has the wrong sign."

    def __init__(self, config=None):
        self.config = config or MomentConfig()

    def solve(self, objects):
        n = len(objects)
        cov = np.linalg.inv(objects.precision.sum(0) + abs(n - 1) * np.eye(2))
        return Gaussian(cov @ objects.information.sum(0), cov), {}, ()


@hookimpl
def register_simulators(register):
    register("toy", ToySimulator, config=ToyConfig, summary="linear and Gaussian")
    register("fragile", FragileSimulator, config=FragileConfig, summary="fails for some rows")


@hookimpl
def register_estimators(register):
    register("toy-exact", ExactEstimator, summary="the exact posterior")


@hookimpl
def register_combiners(register):
    register("toy-wrong", WrongSignCombiner, config=MomentConfig, summary="the wrong sign")


@hookimpl
def register_pipelines(register):
    register("toy", lambda: PIPELINE, summary="a pipeline of a second")


# -- what tests call in worker processes, which import this file but no test ----------------------


def parse(shared, item):
    return int(item)


def die(shared, code):
    os._exit(code)


def die_once(trace, item):
    """Kill this process unless an earlier one was killed."""
    try:
        Path(trace).touch(exist_ok=False)
    except FileExistsError:
        return item
    os._exit(9)


def ahead_result(context):
    from sbi_core.pipeline.stages import StageResult

    return StageResult({"n": context.config.simulate.n})


def ahead_fails(context):
    raise RuntimeError("no luck today")


def ahead_dies(context):
    os._exit(9)


def ahead_sleeps(context):
    Path(os.environ["SBI_TOY_PID"]).write_text(str(os.getpid()))
    time.sleep(600)
