"""How long until our default is as good as sbi's default is at its own stop?

    OMP_NUM_THREADS=1 python benchmarks/inference/train_vs_sbi.py --out results/train_vs_sbi.json

Peer: sbi, ``NPE(prior, density_estimator="maf").append_simulations(theta, x).train()``, and the
same with the published 8 hidden units and 4 transforms (Buck et al. 2025). Both sides get the same
simulations, one thread, and are judged by -log q(theta | x) in physical space on the same test
rows that neither saw. sbi gets data with noise, since it has no fresh noise; ours gets noise-free
data and adds noise every epoch. Wall time is that of training alone: our network is measured on
the test rows between epochs, off the clock. Processor time is given beside it: with one thread it
is the same on a quiet machine, and the one to compare on a busy one. A single run per row.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import one_thread, problem, report

from sbi_core.components import Training
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.estimators.base import _log_normal
from sbi_core.estimators.flows import MafConfig, MafEstimator
from sbi_core.rng import stream
from sbi_core.training.config import TrainConfig
from sbi_core.training.loop import mean_loss


def sbi_prior(space):
    """Return a torch distribution for sbi: box or Gaussian."""
    from sbi.utils import BoxUniform

    low, high = space.support
    if np.isfinite(low).all():
        return BoxUniform(torch.as_tensor(low).float(), torch.as_tensor(high).float())
    mean, sd = (torch.as_tensor(v).float() for v in space.moments())
    return torch.distributions.Independent(torch.distributions.Normal(mean, sd), 1)


def run_sbi(made, train, test, seed, **network):
    """Train sbi to its own stop; return its line of the table."""
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn

    torch.manual_seed(seed)
    start, cpu = time.perf_counter(), time.process_time()
    model = posterior_nn(model="maf", **network) if network else "maf"
    inference = NPE(sbi_prior(made.space), model, show_progress_bars=False)
    q = inference.append_simulations(train.theta, train.x).train()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    epochs = inference.summary["epochs_trained"][-1]
    with torch.no_grad():
        rows = range(0, len(test), 2000)
        parts = [q.log_prob(test.theta[None, k : k + 2000], test.x[k : k + 2000])[0] for k in rows]
    nll = float(-torch.cat(parts).double().mean())
    weights = sum(p.numel() for p in q.parameters())
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "epochs": int(epochs),
        "test_nll": nll,
        "weights": weights,
    }


class Watched(MafEstimator):
    """Keeps the network at hand while it is trained."""

    def _build(self, *args):
        self.watched = super()._build(*args)
        return self.watched


def run_ours(made, simulations, test, seed, network, **options):
    """Train ours; return its line and the curve (processor seconds, test NLL)."""
    config = TrainConfig(**options)
    space = made.space
    estimator = Watched(network)
    training = Training(
        simulations, space, tuple(range(space.dim)), made.observe, config, seed=seed
    )
    theta = test.theta.double().numpy()
    z = space.to_unconstrained(theta)
    shift = float((space.log_prob(theta) - _log_normal(z)).mean())
    target, curve = torch.as_tensor(z).float(), []

    def watch(line):
        nonlocal last
        before = curve[-1][0] if curve else 0.0
        used = before + time.process_time() - last
        curve.append([used, float(mean_loss(estimator.watched, target, test).mean()) - shift])
        last = time.process_time()

    last = time.process_time()
    record = estimator.fit(training, IdentityEmbedding(), [watch])
    nll = float(-estimator.log_prob(theta, test).mean())
    weights = sum(p.numel() for p in estimator.network.parameters())
    return {
        "seconds": record.seconds,
        "cpu_seconds": curve[-1][0],
        "epochs": record.epochs,
        "test_nll": nll,
        "weights": weights,
        "curve": curve,
    }


def time_to(curve, nll):
    """Return the training time after which the test NLL was first reached; None if never."""
    return next((t for t, v in curve if v <= nll), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problem", choices=["toy", "chempy"], default="toy")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=None, help="ours; default: the default")
    parser.add_argument("--skip-sbi", action="store_true")
    parser.add_argument("--sbi", nargs="*", default=["default", "published"])
    parser.add_argument("--quick", action="store_true", help="2000 simulations")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.quick:
        args.n, args.test = 2000, 1000
    one_thread()
    warnings.filterwarnings("ignore")
    made = problem(args.problem)
    clean = made.simulate(args.n, args.seed)
    noisy = made.observe(clean, stream(args.seed, "sbi noise"))
    held_out = made.simulate(args.test, args.seed + 1)
    test = made.observe(held_out, stream(args.seed, "test noise"))
    made.observe(clean[:10], 1)
    options = {} if args.epochs is None else {"epochs": args.epochs}
    lines = {"ours maf (default)": run_ours(made, clean, test, args.seed, MafConfig(), **options)}
    report(args.out, {"problem": args.problem, "n": args.n, "lines": lines})
    frozen = replace_noise(made, noisy, test, args, options)
    lines["ours maf (default), frozen noise"] = frozen
    if not args.skip_sbi:
        if args.out:
            args.out = str(Path(args.out).resolve())
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # sbi writes its logs into the working directory
            networks = {"default": {}, "published": {"hidden_features": 8, "num_transforms": 4}}
            for name in args.sbi:
                line = run_sbi(made, noisy, test, args.seed, **networks[name])
                for ours in ("ours maf (default)", "ours maf (default), frozen noise"):
                    reached = time_to(lines[ours]["curve"], line["test_nll"])
                    key = "fresh" if "frozen" not in ours else "frozen"
                    line[f"ours_{key}_reached_it_after_cpu_seconds"] = reached
                    line[f"ours_{key}_times_faster"] = (
                        line["cpu_seconds"] / reached if reached else None
                    )
                lines[f"sbi {name}"] = line
                report(args.out, {"problem": args.problem, "n": args.n, "lines": lines})
            os.chdir("/")
    print(
        f"\n{'':34s} {'weights':>8s} {'epochs':>7s} {'seconds':>9s} {'cpu s':>8s} {'test NLL':>9s}"
    )
    for name, line in lines.items():
        print(
            f"{name:34s} {line['weights']:8d} {line['epochs']:7d} {line['seconds']:9.1f} "
            f"{line['cpu_seconds']:8.1f} {line['test_nll']:9.3f}"
        )


def replace_noise(made, noisy, test, args, options):
    """Return our line when the noise is drawn once, as sbi's is."""
    still = replace(made) if not hasattr(made, "simulator") else type(made)()
    still.observe = lambda batch, rng: batch
    return run_ours(still, noisy, test, args.seed, MafConfig(), **options)


if __name__ == "__main__":
    main()
