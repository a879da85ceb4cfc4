"""N up to 3 against the exact posterior: all sets of a small library are enumerated.

    python benchmarks/casbi/ground_truth.py --out ground-truth.json

50 stars, errors of 0.10 and 0.05 dex, a library of 60 snapshots, the estimator trained with that
same library. Compared: p(N) by its total variation distance, and the most massive member by its
means and by a classifier two-sample test. The library is discrete, the estimator is
continuous: its draws are moved to the nearest snapshots, as in the simulator. Halos whose exact
posterior has fewer than 50 effective sets are skipped and counted.
"""

import argparse

import numpy as np
import torch
from common import write
from exact import enumerate_sets, exact_posterior, unit_planes
from sbi.utils.metrics import c2st

from sbi_casbi.config import CasbiConfig
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.embedding import MlpConfig, PlaneEmbedding
from sbi_casbi.estimator import SetEstimator
from sbi_casbi.sets import SetConfig
from sbi_casbi.simulator import CasbiSimulator
from sbi_core import Training


def dequantised(library, rows, rng):
    """Return theta of snapshots (n,), infall times spread over their step."""
    theta = library.theta[rows]
    theta[:, 2] += library.tau_width * rng.uniform(-0.5, 0.5, len(rows))
    return theta


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snapshots", type=int, default=60)
    parser.add_argument("--stars", type=int, default=50)
    parser.add_argument("--halos", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pool", type=int, default=2, help="pixels of the plane summed")
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--out")
    a = parser.parse_args()
    torch.set_num_threads(1)
    whole = build_dwarfs(DwarfConfig(stems=100 + a.snapshots, cuts=1))
    some = np.concatenate([whole.rows("train")[: a.snapshots]])
    rest = [whole.rows(s)[:1] for s in ("val", "test")]
    config = CasbiConfig(
        counts="shape",
        n_min=1,
        n_max=3,
        n_star=(a.stars, a.stars),
        sigma_fe=(0.10, 0.10),
        sigma_o=(0.05, 0.05),
    )
    simulator = CasbiSimulator(config, whole.take(np.concatenate([some, *rest])))
    rows = simulator.library.rows("train")
    simulator._all_weights["train"] = (rows, np.full(len(rows), 1 / len(rows)))
    batch = simulator.draw_from(a.halos, 1, "train").with_(split_key=None)
    training = Training(
        batch=batch,
        space=simulator.parameters,
        columns=tuple(range(len(simulator.columns))),
        observe=simulator.observe,
        config={"epochs": a.epochs, "learning_rate": 2e-3},
        seed=1,
    )
    estimator = SetEstimator(SetConfig(hidden=64, bins=12))
    estimator.fit(training, PlaneEmbedding(MlpConfig(hidden=(256, 128), pool=a.pool)))
    rng = np.random.default_rng(2)
    test = simulator.observe(simulator.draw_from(a.test, rng, "train"), rng)
    sets = enumerate_sets(rows, simulator.library.log_mstar, 1, 3)
    planes = unit_planes(simulator, 0.10, 0.05)
    pmf = estimator.pmf(test)
    drawn = estimator.sample_members(test, 400, rng)
    variation, skipped, accuracies, off = [], 0, [], []
    for k, x in enumerate(test.x.numpy()):
        exact = exact_posterior(simulator, x, sets, planes)
        if exact.ess < 50:
            skipped += 1
            continue
        variation.append(0.5 * np.abs(exact.pmf(estimator.counts) - pmf[k]).sum())
        near = simulator.nearest(drawn.values[:, k].astype(float), drawn.count[:, k])
        mine, true = (
            dequantised(simulator.library, rows, rng)
            for rows in (near.rows[:, 0], exact.sample(400, rng)[:, 0])
        )
        off.append((mine.mean(0) - true.mean(0)) / np.maximum(true.std(0), 0.05))
        if len(accuracies) < 15:
            sets = (torch.as_tensor(v, dtype=torch.float32) for v in (true, mine))
            accuracies.append(float(c2st(*sets, classifier="mlp")))
    results = {
        "sets": len(sets),
        "compared": len(variation),
        "skipped_small_ess": skipped,
        "total_variation_n": float(np.mean(variation)),
        "mean_offset_sigma_rms": np.sqrt(np.mean(np.square(off), axis=0)).tolist(),
        "c2st_first_member": float(np.mean(accuracies)),
    }
    print(results)
    write(a.out, results)


if __name__ == "__main__":
    main()
