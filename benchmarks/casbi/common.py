"""Common functions of the benchmarks of sbi-casbi: training, baselines, output."""

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from baselines import neighbour_pmf, neighbour_sets

from sbi_casbi.config import CasbiConfig
from sbi_casbi.embedding import PlaneEmbedding
from sbi_casbi.estimator import SetEstimator
from sbi_casbi.scores import prior_pmf, score_counts
from sbi_casbi.sets import SetConfig
from sbi_casbi.simulator import CasbiSimulator
from sbi_core import Training

__all__ = [
    "baseline_scores",
    "blind_errors",
    "config_of",
    "fit",
    "member_errors",
    "train_posterior",
    "write",
]


def config_of(population, counts, **more):
    """Return the options of the target table: errors 0.1 and 0.05 dex, 2e4 stars."""
    base = {
        "stems": 6000,
        # many test galaxies: a small sample deviates from the population, which looks like bias
        "split_fractions": (0.50, 0.05, 0.45),
        "population": population,
        "counts": counts,
        "n_star": (2e4, 2e4),
        "sigma_fe": (0.10, 0.10),
        "sigma_o": (0.05, 0.05),
    }
    return CasbiConfig(**(base | more))


def fit(simulator, batch, epochs, *, seed=1, quiet=False, sets=None, embedding=None, **options):
    """Return an estimator trained on halos, and its record."""
    training = Training(
        batch=batch,
        space=simulator.parameters,
        columns=tuple(range(len(simulator.columns))),
        observe=simulator.observe,
        config={"epochs": epochs, "learning_rate": 2e-3, "weight_decay": 1e-2, "batch_size": 256}
        | options,
        seed=seed,
    )
    estimator = SetEstimator(sets or SetConfig())

    def show(line):
        if not quiet:
            losses = f"{line['train_loss']:.3f} {line['val_loss']:.3f}"
            print(f"  epoch {line['epoch']}: {losses}", flush=True)

    return estimator, estimator.fit(training, embedding or PlaneEmbedding(), [show])


def train_posterior(config, halos, epochs, seed=1, library=None, **options):
    """Return simulator, trained estimator, training halos and CPU seconds."""
    torch.set_num_threads(1)
    start = time.process_time()
    simulator = CasbiSimulator(config, library)
    batch = simulator.draw(halos, seed)
    drawn = time.process_time() - start
    estimator, record = fit(simulator, batch, epochs, seed=seed, **options)
    seconds = {"draw_cpu_s": drawn, "train_cpu_s": time.process_time() - start - drawn}
    return simulator, estimator, batch, {**seconds, "test_nll": record.test_nll}


def member_errors(members, truth, count, ks=(1, 2, 5)):
    """Return the MAE of medians of the k-th member, among halos that have one."""
    results = {}
    for k in ks:
        there = count >= k
        value, exists = members.member(k)
        value = np.where(exists[..., None], value, np.nan)[:, there].astype(float)
        with np.errstate(all="ignore"):
            error = np.abs(np.nanmedian(value, axis=0) - truth[there, k - 1])
        results[f"k={k}"] = dict(
            zip(members.names, map(float, np.nanmean(error, axis=0)), strict=True)
        )
    return results


def blind_errors(truth, train, names, ks=(1, 2, 5)):
    """Return MAE of medians given the rank only, or the rank and the true N.

    ``truth`` and ``train`` are batches; medians are those of the training halos.
    """
    results = {}
    sets, count = train.theta_set.numpy(), train.theta_mask.sum(1).numpy()
    true_sets, true_count = truth.theta_set.numpy(), truth.theta_mask.sum(1).numpy()
    for k in ks:
        there = true_count >= k
        value, n = true_sets[there, k - 1], true_count[there]
        mine = count >= k
        rank = np.abs(np.median(sets[mine, k - 1], 0) - value).mean(0)
        guess = np.array([np.median(sets[mine & (np.abs(count - m) <= 2), k - 1], 0) for m in n])
        both = np.abs(guess - value).mean(0)
        results[f"k={k}"] = {
            name: {"rank": float(rank[j]), "rank_and_n": float(both[j])}
            for j, name in enumerate(names)
        }
    return results


def baseline_scores(simulator, train, test, rng, halos=20_000, k=50):
    """Return scores of N and of members of the nearest planes and of the number of stars."""
    known = simulator.observe(train[np.arange(min(halos, len(train)))], rng)
    names = simulator.member_names
    c = simulator.config
    counts = np.arange(c.n_min, c.n_max + 1)
    prior = prior_pmf(simulator, counts)
    count = test.theta_mask.sum(1).numpy()
    truth = test.theta_set.double().numpy()
    results = {}
    for rule in ("nearest", "count"):
        sets = neighbour_sets(known, test, names, rule=rule, k=k)
        scores = score_counts(neighbour_pmf(sets, counts, prior), count, counts, prior, rng)
        results[rule] = {"n_sub": scores, "members": member_errors(sets, truth, count)}
    return results


def write(path, results):
    """Write a JSON file with the results and the machine."""
    if path:
        machine = {"cpu": os.cpu_count(), "python": platform.python_version()}
        machine["torch"] = torch.__version__
        content = {"machine": machine, **results}
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path}")
