r"""C2ST to the reference posteriors of sbibm: ours against sbi's default NPE.

    python -m pip install --no-deps sbibm
    OMP_NUM_THREADS=1 python benchmarks/inference/sbibm.py --simulations 10000 --json out.json

Question: given the same simulations (their noise inside, so nothing is drawn afresh), how far are
draws from the reference posterior of the benchmark of Lueckmann et al. 2021? Peer: sbi 0.27
``NPE(prior).append_simulations().train()`` with all defaults (MAF 5x50, stops when validation does
not gain for 20 epochs). Ours: an estimator with its defaults and the default training, or as
``--train epochs=30`` etc. set it. Both get the same simulations, observations and draws; C2ST is
that of sbi (``sbi.utils.metrics``, a perceptron) with as many draws of the reference (0.5 is
perfect), the mean over the observations. One run per seed, one thread; seconds are those of the
processor. The posteriors shipped with sbibm are read from the installed package; its code is not
imported, so its pinned dependencies are not needed.

The simulators are written from the definitions in the appendix of arXiv:2101.04653.
"""

from __future__ import annotations

import argparse
import bz2
import json
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import numpy as np
import torch
from sbi.utils.metrics import c2st

from sbi_core.api import get_embedding, get_estimator
from sbi_core.components import Simulator, Training
from sbi_core.data.batch import Batch
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.training.config import TrainConfig

# ------------------------------------------------------------------------------------ the tasks


@dataclass(frozen=True)
class Task:
    """A prior and a simulator x(theta, rng)."""

    priors: tuple[Prior, ...]
    simulate: object

    @property
    def space(self) -> ParameterSpace:
        return ParameterSpace(tuple(Parameter(f"t{k}", p) for k, p in enumerate(self.priors)))


def _box(d, bound):
    return (Prior("uniform", {"low": -bound, "high": bound}),) * d


def two_moons(theta, rng):
    n = len(theta)
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    moon = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)
    total, difference = theta.sum(1), theta[:, 1] - theta[:, 0]
    return moon + np.stack([-np.abs(total), difference], axis=1) / np.sqrt(2)


def slcp(theta, rng):
    s1, s2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    u = rng.standard_normal((len(theta), 4, 2))
    first = s1[:, None] * u[..., 0]
    second = s2[:, None] * (rho[:, None] * u[..., 0] + np.sqrt(1 - rho**2)[:, None] * u[..., 1])
    return (np.stack([first, second], axis=2) + theta[:, None, :2]).reshape(len(theta), 8)


def gaussian_linear(theta, rng):
    return theta + np.sqrt(0.1) * rng.standard_normal(theta.shape)


def gaussian_mixture(theta, rng):
    sd = np.where(rng.random(len(theta)) < 0.5, 1.0, 0.1)
    return theta + sd[:, None] * rng.standard_normal(theta.shape)


def bernoulli_glm(theta, rng):
    folder = _files("bernoulli_glm")
    design = torch.load(folder / "design_matrix.pt", weights_only=True).double().numpy()
    current = torch.load(folder / "stimulus_I.pt", weights_only=True).double().numpy()
    spikes = rng.random((len(theta), len(design))) < 1 / (1 + np.exp(-theta @ design.T))
    # spike-triggered sums of the current at lags 0 to 8, after the number of spikes
    padded = np.concatenate([np.zeros(8), current])
    lagged = np.stack([padded[8 - k : 8 - k + len(current)] for k in range(9)], axis=1)
    return np.concatenate([spikes.sum(1, keepdims=True), spikes @ lagged], axis=1)


def _smoothing_prior():
    m = 9
    d = np.eye(m) - np.diag(np.ones(m - 1), -1)
    f = d @ d + np.diag(np.sqrt(np.arange(m) / m))
    precision = np.zeros((m + 1, m + 1))
    precision[0, 0], precision[1:, 1:] = 0.5, f.T @ f
    cov = np.linalg.inv(precision)
    values = {"mean": np.zeros(m + 1).tolist(), "cov": ((cov + cov.T) / 2).tolist()}
    return (Prior("mvnormal", values),)


def _rk4(slope, state, span, times, substeps):
    """States (times, n, k) of an autonomous system, in logarithms of its (positive) variables."""
    out, h = [state], span / (times - 1) / substeps
    for _ in range(times - 1):
        for _ in range(substeps):
            a = slope(state)
            b = slope(state + h / 2 * a)
            c = slope(state + h / 2 * b)
            state = state + h / 6 * (a + 2 * b + 2 * c + slope(state + h * c))
        out.append(state)
    return np.stack(out)


def sir(theta, rng):
    beta, gamma = theta.T

    def slope(s):
        infection = beta * s[:, 0] * s[:, 1] / 1e6
        return np.stack([-infection, infection - gamma * s[:, 1]], axis=1)

    start = np.tile([1e6 - 1.0, 1.0], (len(theta), 1))
    infected = _rk4(slope, start, 153.0, 10, 68)[:, :, 1].T  # every 17 days up to day 153
    return rng.binomial(1000, np.clip(infected / 1e6, 0, 1)).astype(float)


def lotka_volterra(theta, rng):
    alpha, beta, gamma, delta = theta.T

    def slope(log):  # of the logarithms: nothing becomes negative
        prey, hunter = np.exp(np.minimum(log, 20.0)).T
        return np.stack([alpha - beta * hunter, -gamma + delta * prey], axis=1)

    start = np.tile(np.log([30.0, 1.0]), (len(theta), 1))
    logs = _rk4(slope, start, 18.9, 10, 105).transpose(1, 2, 0).reshape(len(theta), 20)
    logs = np.clip(np.nan_to_num(logs, nan=np.log(1e-10)), np.log(1e-10), np.log(1e4))
    return np.exp(logs + 0.1 * rng.standard_normal(logs.shape))


def _lognormal(*pairs):
    return tuple(Prior("lognormal", {"loc": float(m), "scale": s}) for m, s in pairs)


TASKS = {
    "two_moons": lambda: Task(_box(2, 1.0), two_moons),
    "slcp": lambda: Task(_box(5, 3.0), slcp),
    "gaussian_linear": lambda: Task(
        (Prior("normal", {"loc": 0.0, "scale": float(np.sqrt(0.1))}),) * 10, gaussian_linear
    ),
    "gaussian_linear_uniform": lambda: Task(_box(10, 1.0), gaussian_linear),
    "gaussian_mixture": lambda: Task(_box(2, 10.0), gaussian_mixture),
    "bernoulli_glm": lambda: Task(_smoothing_prior(), bernoulli_glm),
    "sir": lambda: Task(_lognormal((np.log(0.4), 0.5), (np.log(0.125), 0.2)), sir),
    "lotka_volterra": lambda: Task(
        _lognormal((-0.125, 0.5), (-3.0, 0.5), (-0.125, 0.5), (-3.0, 0.5)), lotka_volterra
    ),
}


def _files(task):
    try:
        root = Path(str(distribution("sbibm").locate_file("sbibm")))
    except PackageNotFoundError:
        sys.exit("needs the files of sbibm: python -m pip install --no-deps sbibm")
    return root / "tasks" / task / "files"


def _csv(path):
    raw = path.read_bytes()
    text = (bz2.decompress(raw) if path.suffix == ".bz2" else raw).decode()
    rows = text.splitlines()[1:]
    return np.array([[float(v) for v in row.split(",")] for row in rows])


def observation(task, k):
    """x_o (1, m) and the draws of the reference posterior (10000, d)."""
    folder = _files(task) / f"num_observation_{k}"
    reference = _csv(folder / "reference_posterior_samples.csv.bz2")
    return _csv(folder / "observation.csv"), reference


# ---------------------------------------------------------------------------------- the methods


class _Simulator(Simulator):
    observables = ()
    default_error = None


def ours(task, name, theta, x, options, seed):
    """Train an estimator of ours; return (draw(x_o, n), record)."""
    batch = Batch(x=torch.as_tensor(x), theta=torch.as_tensor(theta))
    embedding = get_embedding(options["embedding"])
    estimator = get_estimator(name)
    training = Training(
        batch=batch,
        space=task.space,
        columns=tuple(range(theta.shape[1])),
        observe=lambda b, rng: b,
        config=TrainConfig(**options["train"]),
        seed=seed,
    )
    record = estimator.fit(training, embedding)

    def draw(x_o, n):
        return estimator.sample(Batch(x=torch.as_tensor(x_o)), n, seed)[:, 0]

    return draw, {"epochs": record.epochs, "best_epoch": record.best_epoch}


def peer(task, theta, x, seed):
    """sbi's default; its prior is the same density."""
    from sbi.inference import NPE

    torch.manual_seed(seed)
    prior = _torch_prior(task)
    trainer = NPE(prior=prior, show_progress_bars=False)
    trainer.append_simulations(
        torch.as_tensor(theta, dtype=torch.float32), torch.as_tensor(x, dtype=torch.float32)
    ).train()
    posterior = trainer.build_posterior()
    epochs = trainer.summary["epochs_trained"][-1]

    def draw(x_o, n):
        kept = posterior.sample(
            (n,), x=torch.as_tensor(x_o, dtype=torch.float32), show_progress_bars=False
        )
        return kept.double().numpy()

    return draw, {"epochs": int(epochs)}


def _torch_prior(task):
    from sbi.utils import BoxUniform, MultipleIndependent

    p = task.priors[0]
    v = p.values
    if p.family == "uniform":
        ones = torch.ones(len(task.priors))
        return BoxUniform(v["low"] * ones, v["high"] * ones)
    if p.family == "normal":
        eye = torch.eye(len(task.priors))
        return torch.distributions.MultivariateNormal(torch.zeros(len(eye)), v["scale"] ** 2 * eye)
    if p.family == "mvnormal":
        mean, cov = (torch.tensor(v[k], dtype=torch.float32) for k in ("mean", "cov"))
        return torch.distributions.MultivariateNormal(mean, cov)
    one = torch.ones(1)
    return MultipleIndependent(
        [
            torch.distributions.LogNormal(q.values["loc"] * one, q.values["scale"] * one)
            for q in task.priors
        ]
    )


# --------------------------------------------------------------------------------------- tables


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default="sbi,nsf,maf", help="sbi, or estimators of ours")
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=3, help="of the ten of each task")
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--embedding", default="identity")
    parser.add_argument(
        "--train", action="append", default=[], metavar="KEY=VALUE", help="options of our training"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a minute: one task, 1000 simulations")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.simulations, options.observations = "two_moons", 1000, 1
    torch.set_num_threads(1)
    train = {k: json.loads(v) for k, v in (word.split("=", 1) for word in options.train)}
    settings = {"embedding": options.embedding, "train": train}
    rows = []
    for task_name in options.tasks.split(","):
        task = TASKS[task_name]()
        rng = np.random.default_rng(options.seed)
        theta = task.space.sample(options.simulations, rng)
        x = task.simulate(theta, rng)
        for method in options.methods.split(","):
            start = time.process_time()
            if method == "sbi":
                draw, record = peer(task, theta, x, options.seed)
            else:
                draw, record = ours(task, method, theta, x, settings, options.seed)
            seconds = time.process_time() - start
            accuracies = []
            for k in range(1, options.observations + 1):
                x_o, reference = observation(task_name, k)
                sets = reference[: options.draws], draw(x_o, options.draws)
                tensors = (torch.as_tensor(v, dtype=torch.float32) for v in sets)
                accuracies.append(float(c2st(*tensors, classifier="mlp")))
            rows.append(
                {
                    "task": task_name, "method": method, "c2st": float(np.mean(accuracies)),
                    "each": accuracies, "train_s": seconds, **record,
                }
            )  # fmt: skip
            print(
                f"{task_name:<24} {method:<9} C2ST {np.mean(accuracies):.3f}  "
                f"({' '.join(f'{v:.3f}' for v in accuracies)})  {seconds:7.1f} s  "
                f"{record['epochs']} epochs",
                flush=True,
            )
            if options.json:
                _write(Path(options.json), options, rows)
    for method in options.methods.split(","):
        mean = np.mean([r["c2st"] for r in rows if r["method"] == method])
        print(f"mean over tasks {method:<9} {mean:.3f}")


def _write(path, options, rows):
    content = {
        "command": " ".join(sys.argv),
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": 1},
        "versions": {n: version(n) for n in ("sbi-core", "sbi", "torch", "zuko", "numpy")},
        "options": vars(options),
        "rows": rows,
    }
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
