"""N up to 3 against the exact posterior: all sets of a small library are enumerated.

    python benchmarks/casbi/ground_truth.py --out ground-truth.json

50 stars, errors of 0.10 and 0.05 dex, a library of 60 snapshots, the estimator trained with that
same library. Compared: p(N) by its total variation distance, and the most massive member by its
means and by a classifier two-sample test. The library is discrete, the estimator is continuous. The
test is therefore made in two ways: with draws of the estimator moved to the nearest snapshots, and
at the resolution of the library, where both samples are blurred by the same Gaussian, whose
standard deviation in every parameter is the rms distance of a snapshot from the nearest other
one. The blur only removes structure on scales that the library does not resolve. Halos whose
exact posterior has fewer than 50 effective sets are skipped and counted.
"""

import argparse

import numpy as np
import torch
from common import write
from exact import enumerate_sets, exact_posterior, unit_planes
from sbi.utils.metrics import c2st
from scipy.spatial import cKDTree

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


def resolution(theta):
    """Return the rms distance (d,) of snapshots (n, d) from their nearest neighbours."""
    scaled = theta / theta.std(0)
    _, near = cKDTree(scaled).query(scaled, k=2)
    return np.sqrt(np.square(theta - theta[near[:, 1]]).mean(0))


def classified(true, mine, blur, rng):
    """Return the accuracy of a classifier of two samples (n, d), both blurred."""
    samples = (v + blur * rng.standard_normal(v.shape) for v in (true, mine))
    true, mine = (torch.as_tensor(v, dtype=torch.float32) for v in samples)
    return float(c2st(true, mine, classifier="mlp"))


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
    variation, skipped, moved, blurred, same, off = [], 0, [], [], [], []
    blur = resolution(simulator.library.theta[rows])
    for k, x in enumerate(test.x.numpy()):
        exact = exact_posterior(simulator, x, sets, planes)
        if exact.ess < 50:
            skipped += 1
            continue
        variation.append(0.5 * np.abs(exact.pmf(estimator.counts) - pmf[k]).sum())
        near = simulator.nearest(drawn.values[:, k].astype(float), drawn.count[:, k])
        mine, true, again = (
            dequantised(simulator.library, snapshots, rng)
            for snapshots in (near.rows[:, 0], *(exact.sample(400, rng)[:, 0] for _ in range(2)))
        )
        off.append((mine.mean(0) - true.mean(0)) / np.maximum(true.std(0), 0.05))
        if len(moved) < 15:
            free = drawn.values[:, k, 0].astype(float)
            moved.append(classified(true, mine, 0.0, rng))
            blurred.append(classified(true, free, blur, rng))
            same.append(classified(true, again, blur, rng))
    results = {
        "sets": len(sets),
        "compared": len(variation),
        "skipped_small_ess": skipped,
        "total_variation_n": float(np.mean(variation)),
        "mean_offset_sigma_rms": np.sqrt(np.mean(np.square(off), axis=0)).tolist(),
        "resolution": blur.tolist(),
        "c2st_first_member_moved_to_snapshots": float(np.mean(moved)),
        "c2st_first_member_at_resolution": float(np.mean(blurred)),
        "c2st_of_two_exact_samples": float(np.mean(same)),
    }
    print(results)
    write(a.out, results)


if __name__ == "__main__":
    main()
