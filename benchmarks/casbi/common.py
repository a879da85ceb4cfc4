"""What the benchmarks of sbi-casbi share: training a posterior, blind rules, output."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from sbi_casbi.config import CasbiConfig
from sbi_casbi.embedding import MlpConfig, PlaneEmbedding
from sbi_casbi.estimator import SetEstimator
from sbi_casbi.sets import SetConfig
from sbi_casbi.simulator import CasbiSimulator
from sbi_core import Training

__all__ = ["blind_errors", "config_of", "train_posterior", "write"]


def config_of(population, counts, **more):
    """Return the options of the target table: errors 0.1 and 0.05 dex, 2e4 stars."""
    base = {
        "stems": 6000,
        "split_fractions": (0.75, 0.05, 0.20),
        "population": population,
        "counts": counts,
        "n_star": (2e4, 2e4),
        "sigma_fe": (0.10, 0.10),
        "sigma_o": (0.05, 0.05),
    }
    return CasbiConfig(**(base | more))


def train_posterior(config, halos, epochs, seed=1, library=None, quiet=False, **options):
    """Return simulator, trained estimator, training halos and CPU seconds."""
    torch.set_num_threads(1)
    start = time.process_time()
    simulator = CasbiSimulator(config, library)
    batch = simulator.draw(halos, seed)
    drawn = time.process_time() - start
    training = Training(
        batch=batch,
        space=simulator.parameters,
        columns=tuple(range(len(simulator.columns))),
        observe=simulator.observe,
        config={"epochs": epochs, "learning_rate": 2e-3, "weight_decay": 1e-2} | options,
        seed=seed,
    )
    estimator = SetEstimator(SetConfig())

    def show(line):
        if not quiet:
            print(
                f"  epoch {line['epoch']}: {line['train_loss']:.3f} {line['val_loss']:.3f}",
                flush=True,
            )

    record = estimator.fit(training, PlaneEmbedding(MlpConfig()), [show])
    seconds = {"draw_cpu_s": drawn, "train_cpu_s": time.process_time() - start - drawn}
    return simulator, estimator, batch, {**seconds, "test_nll": record.test_nll}


def blind_errors(truth, train, names, ks=(1, 2, 5)):
    """Return MAE of rules that know the rank only, or the rank and the true N.

    ``truth`` and ``train`` are batches; the rules are medians of the training halos.
    """
    found = {}
    sets, count = train.theta_set.numpy(), train.theta_mask.sum(1).numpy()
    true_sets, true_count = truth.theta_set.numpy(), truth.theta_mask.sum(1).numpy()
    for k in ks:
        there = true_count >= k
        value, n = true_sets[there, k - 1], true_count[there]
        mine = count >= k
        rank = np.abs(np.median(sets[mine, k - 1], 0) - value).mean(0)
        guess = np.array([np.median(sets[mine & (np.abs(count - m) <= 2), k - 1], 0) for m in n])
        both = np.abs(guess - value).mean(0)
        found[f"k={k}"] = {
            name: {"rank": float(rank[j]), "rank_and_n": float(both[j])}
            for j, name in enumerate(names)
        }
    return found


def write(path, found):
    """Write a JSON file and say so."""
    if path:
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path}")
