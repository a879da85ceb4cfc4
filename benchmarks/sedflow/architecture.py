"""Which flow learns fastest, and what do the presets cost?

Validation loss (nats, unconstrained space) of several flows after the same number of epochs on the
same simulations, with processor seconds; then the time of a training step of the network of every
preset, and the processor hours that its training amounts to.

    python benchmarks/sedflow/architecture.py --out architecture.json
"""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files

import torch
from common import Clock, arguments, write

from sbi_core import Training, stream
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.embedding import SedConfig, SedEmbedding
from sbi_sedflow.estimator import SedFlowConfig, SedFlowEstimator
from sbi_sedflow.simulator import SedflowSimulator

FLOWS = {
    "coupling splines": {"splines": 3, "shifts": 0, "hidden": (64,), "passes": 2},
    "coupling": {"splines": 1, "shifts": 4, "hidden": (128, 128), "passes": 2},
    "autoregressive": {"splines": 1, "shifts": 4, "hidden": (128, 128), "passes": 0},
}


def learn(simulator, args, numbers):
    n, epochs = (10_000, 2) if args.quick else (50_000, 6)
    batch = simulator.draw(n, stream(args.seed, "architecture")).to("cpu", torch.float32)
    for name, options in FLOWS.items():
        estimator = SedFlowEstimator(SedFlowConfig(**options))
        training = Training(
            batch=batch, space=simulator.parameters, columns=tuple(range(12)),
            observe=simulator.observe, seed=args.seed,
            config={"epochs": epochs, "batch_size": 512, "learning_rate": 4e-3, "retries": 0},
        )  # fmt: skip
        with Clock() as clock:
            record = estimator.fit(training, SedEmbedding(SedConfig()))
        loss = min(line["val_loss"] for line in record.history)
        numbers[name] = {"val_loss": loss, "cpu_seconds": clock.cpu}
        print(f"{name:>18}: validation loss {loss:.3f} after {clock.cpu:.1f} s", flush=True)


def cost(simulator, numbers):
    text = files("sbi_sedflow").joinpath("pipeline.toml").read_text(encoding="utf-8")
    for preset, spec in tomllib.loads(text)["presets"].items():
        train = spec["train"]
        options = {k: v for k, v in spec["estimator"].items() if k not in ("name", "parameters")}
        estimator = SedFlowEstimator(SedFlowConfig(**options))
        hidden = tuple(spec["embedding"]["hidden"])
        size, steps = train["batch_size"], 12
        batch = simulator.draw(int(size * steps / 0.8) + 1, 1).to("cpu", torch.float32)
        training = Training(
            batch=batch, space=simulator.parameters, columns=tuple(range(12)),
            observe=simulator.observe, config={**train, "epochs": 2},
        )  # fmt: skip
        with Clock() as clock:
            estimator.fit(training, SedEmbedding(SedConfig(hidden=hidden)))
        per_step = clock.cpu / (2 * steps)  # validation and test included
        total = train["epochs"] * math.ceil(0.8 * spec["simulate"]["n"] / size)
        numbers[f"preset {preset}"] = {"step_s": per_step, "steps": total}
        print(f"{preset:>10}: {1e3 * per_step:.0f} ms of processor time per step, {total} steps, "
              f"{per_step * total / 3600:.2f} h", flush=True)  # fmt: skip


def main():
    args = arguments(__doc__)
    simulator = SedflowSimulator(SedflowConfig(pixels=512))
    numbers = {}
    cost(simulator, numbers)
    learn(simulator, args, numbers)
    write(args, numbers)


if __name__ == "__main__":
    main()
