"""1000 draws for each of 1000 observations: ours, sbi in a loop, sbi batched.

    OMP_NUM_THREADS=1 python benchmarks/inference/sampling.py --out results/sampling.json

Peer: sbi, ``posterior.sample((draws,), x=x_i)`` for every object and
``posterior.sample_batched((draws,), x=x)``, which reject what leaves the prior. Both sides train
their default masked autoregressive flow on the same simulations of a uniform prior (long enough to
concentrate; calibration is another benchmark's question). Ours has no draw outside by construction;
the share is measured all the same. ``--chunks`` measures how many draws times objects one network
call should have, for every head. sbi's loop and batch run on ``--peers`` objects and are scaled to
all of them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from common import Toy, one_thread, report

from sbi_core.api import get_estimator
from sbi_core.components import Training
from sbi_core.data.observations import Observations
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.posterior import Posterior
from sbi_core.rng import stream
from sbi_core.training.config import TrainConfig


def trained(name, made, batch, epochs, **options):
    """Return one of our estimators after a training."""
    estimator = get_estimator(name, **options)
    config = TrainConfig(epochs=epochs)
    columns = tuple(range(made.space.dim))
    estimator.fit(Training(batch, made.space, columns, made.observe, config), IdentityEmbedding())
    return estimator


def timed(function, repeats):
    """Return the seconds and processor seconds of the fastest call, and its result."""
    best = None
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        took = (time.perf_counter() - wall, time.process_time() - cpu)
        best = took if best is None or took[1] < best[1] else best
    return {"seconds": best[0], "cpu_seconds": best[1]}, result


def chunks(estimators, objects, draws):
    """Return processor seconds per million draws for sizes of one network call."""
    table = {}
    for name, estimator in estimators.items():
        posterior, head = Posterior(estimator), estimator.network.head
        for size in (1024, 2048, 4096, 8192, 16384, 32768, 65536, 262144):
            head.rows_per_call = size
            took, _ = timed(lambda: posterior.sample(objects, draws), 3)  # noqa: B023
            scale = 1e6 / (draws * len(objects))
            table.setdefault(name, {})[size] = round(took["cpu_seconds"] * scale, 3)
        del head.rows_per_call
    return table


def peers(made, batch, objects, args):
    """Return sbi's lines."""
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    low, high = (torch.as_tensor(v).float() for v in made.space.support)
    torch.manual_seed(args.seed)
    inference = NPE(BoxUniform(low, high), "maf", show_progress_bars=False)
    noisy = made.observe(batch, stream(args.seed, "sbi noise"))
    q = inference.append_simulations(noisy.theta, noisy.x).train(max_num_epochs=args.epochs)
    posterior = inference.build_posterior(q)
    x = objects.batch.x[: args.peers]
    scale = args.objects / len(x)
    quiet = {"show_progress_bars": False}

    def loop():
        return torch.stack([posterior.sample((args.draws,), x=xi, **quiet) for xi in x], 1)

    lines = {}
    for name, call in (
        ("sbi posterior.sample loop", loop),
        ("sbi sample_batched", lambda: posterior.sample_batched((args.draws,), x=x, **quiet)),
    ):
        took, draws = timed(call, 1)
        outside = ((draws < low) | (draws > high)).any(-1).float().mean()
        lines[name] = {k: v * scale for k, v in took.items()}
        lines[name] |= {"outside": float(outside), "measured_on_objects": len(x)}
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=30_000, help="simulations of the training")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunks", action="store_true", help="also measure sizes of calls")
    parser.add_argument("--skip-sbi", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.quick:
        args.n, args.epochs, args.objects, args.draws, args.peers = 2000, 2, 50, 200, 10
    one_thread()
    warnings.filterwarnings("ignore")
    made = Toy()
    batch = made.simulate(args.n, args.seed)
    objects = Observations.from_batch(
        made.observe(made.simulate(args.objects, args.seed + 1), stream(args.seed, "objects"))
    )
    estimators = {
        "maf": trained("maf", made, batch, args.epochs),
        "nsf": trained("nsf", made, batch, args.epochs),
        "nsf autoregressive": trained("nsf", made, batch, args.epochs, passes=0),
        "mixture": trained("mixture", made, batch, args.epochs),
    }
    lines = {}
    for name, estimator in estimators.items():
        posterior = Posterior(estimator)
        took, samples = timed(lambda: posterior.sample(objects, args.draws), 3)  # noqa: B023
        inside = made.space.inside(samples.values.reshape(-1, made.space.dim))
        lines[f"ours {name}"] = {**took, "outside": float(1 - np.mean(inside))}
    result = {"objects": args.objects, "draws": args.draws, "lines": lines}
    if args.chunks:
        result["cpu_seconds_per_million_draws"] = chunks(estimators, objects, args.draws)
    if args.out:
        args.out = str(Path(args.out).resolve())
    if not args.skip_sbi:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # sbi writes its logs into the working directory
            lines |= peers(made, batch, objects, args)
            os.chdir("/")
    report(args.out, result)
    print(f"\n{'':28s} {'seconds':>9s} {'cpu s':>9s} {'outside':>8s}")
    for name, line in lines.items():
        print(
            f"{name:28s} {line['seconds']:9.2f} {line['cpu_seconds']:9.2f} {line['outside']:8.4f}"
        )


if __name__ == "__main__":
    main()
