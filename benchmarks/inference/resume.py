"""A training that is killed in three random epochs ends with the same bits.

    OMP_NUM_THREADS=1 python benchmarks/inference/resume.py --out results/resume.json

The same training runs twice in processes of its own: once undisturbed, once killed (SIGKILL) as
soon as its metrics show a random epoch, three times, and started again each time. Weights, draws,
losses and learning rates are compared bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import Toy, one_thread, report

from sbi_core.api import get_estimator
from sbi_core.components import Training
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.estimators import load_estimator
from sbi_core.rng import stream
from sbi_core.training.config import TrainConfig


def job(folder, name, optimizer, n, epochs):
    """Train in that folder, continuing what is there, and save."""
    one_thread()
    made = Toy()
    config = TrainConfig(epochs=epochs, optimizer=optimizer)
    training = Training(
        made.simulate(n, 1), made.space, tuple(range(6)), made.observe, config, seed=3
    )
    estimator = get_estimator(name)
    estimator.fit(replace(training, directory=folder), MlpEmbedding())
    estimator.save(folder)


def lines(folder):
    """Return the metrics without the seconds."""
    path = folder / "metrics.jsonl"
    found = [json.loads(t) for t in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def run(folder, args, kill_at=()):
    """Run the job, killing it in those epochs; return the epochs it was really killed in."""
    command = [sys.executable, __file__, "--job", str(folder), "--estimator", args.estimator]
    command += ["--optimizer", args.optimizer, "--n", str(args.n), "--epochs", str(args.epochs)]
    killed = []
    for epoch in sorted(kill_at):
        child = subprocess.Popen(command)
        while child.poll() is None and len(complete(folder)) < epoch:
            time.sleep(0.01)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.wait()
        killed.append(len(complete(folder)))
    subprocess.run(command, check=True)
    return killed


def complete(folder):
    """Return the metrics lines that are whole; the file may be in the middle of a write."""
    path = folder / "metrics.jsonl"
    return [t for t in path.read_text().splitlines() if t.endswith("}")] if path.exists() else []


def facts(folder):
    """Return hashes of weights and draws, and the metrics."""
    made = Toy()
    estimator = load_estimator(folder)
    batch = made.observe(made.simulate(20, 5), stream(6))
    sha = hashlib.sha256()
    for name, value in sorted(estimator.network.state_dict().items()):
        sha.update(name.encode() + value.numpy().tobytes())
    draws = hashlib.sha256(estimator.sample(batch, 50, 1).tobytes()).hexdigest()
    return {"weights": sha.hexdigest(), "draws": draws, "metrics": lines(folder)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--job", type=Path, help="(internal) run the training in that folder")
    parser.add_argument("--estimator", default="maf")
    parser.add_argument("--optimizer", default="adam-onecycle")
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.job is not None:
        job(args.job, args.estimator, args.optimizer, args.n, args.epochs)
        return
    if args.quick:
        args.n, args.epochs = 2000, 12
    seed = time.time_ns() if args.seed is None else args.seed
    epochs = np.random.default_rng(seed).choice(args.epochs - 1, args.kills, replace=False) + 1
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        run(whole, args)
        killed = run(parts, args, epochs.tolist())
        a, b = facts(whole), facts(parts)
    same = {k: a[k] == b[k] for k in a}
    result = {"seed": seed, "asked": sorted(epochs.tolist()), "killed_in": killed, "same": same}
    report(args.out, result)
    sys.exit(0 if all(same.values()) else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
