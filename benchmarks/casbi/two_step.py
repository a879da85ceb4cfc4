"""The joint estimator and both two-step designs on the same halos.

    python benchmarks/casbi/two_step.py --out two-step.json

``joint``: one summary, logistics for N. ``two_step, flow``: N by neural posterior estimation of
dequantised N, members given N from a separate network. ``two_step, classes``: N by a
classifier. Scored: N, and members in two ways, with N drawn and with N at its most probable value
(what the two-step design conditions on).
"""

import argparse
import time

import numpy as np
import torch
from common import config_of, fit, member_errors, write

from sbi_casbi.embedding import CnnEmbedding, PlaneEmbedding
from sbi_casbi.scores import prior_pmf, score_counts
from sbi_casbi.sets import SetConfig
from sbi_casbi.simulator import CasbiSimulator

DESIGNS = {
    "joint": {"design": "joint", "number": "ordinal"},
    "two_step, flow": {"design": "two_step", "number": "flow"},
    "two_step, classes": {"design": "two_step", "number": "classes"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", default="uniform")
    parser.add_argument("--counts", default="absolute")
    parser.add_argument("--halos", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--cnn", action="store_true", help="convolutional networks, as published")
    parser.add_argument("--out")
    a = parser.parse_args()
    torch.set_num_threads(1)
    simulator = CasbiSimulator(config_of(a.population, a.counts))
    batch = simulator.draw(a.halos, 1)
    test = simulator.observe(simulator.draw_from(a.test, 5, "test"), 6)
    count, truth = test.theta_mask.sum(1).numpy(), test.theta_set.double().numpy()
    results = {"halos": a.halos, "epochs": a.epochs, "cnn": a.cnn}
    for name, options in DESIGNS.items():
        start = time.process_time()
        embedding = CnnEmbedding() if a.cnn else PlaneEmbedding()
        estimator, _ = fit(
            simulator, batch, a.epochs, quiet=True, sets=SetConfig(**options), embedding=embedding
        )
        seconds = time.process_time() - start
        pmf = estimator.pmf(test)
        rng = np.random.default_rng(7)
        prior = prior_pmf(simulator, estimator.counts)
        mode = estimator.counts[pmf.argmax(1)]
        drawn = estimator.sample_members(test, a.draws, rng, most=10)
        fixed = estimator.sample_members(test, a.draws, rng, count=mode, most=10)
        results[name] = {
            "train_cpu_s": seconds,
            "n_sub": score_counts(pmf, count, estimator.counts, prior, rng),
            "exact": float((mode == count).mean()),
            "members": member_errors(drawn, truth, count),
            "members_given_mode": member_errors(fixed, truth, count),
        }
        n, m = results[name]["n_sub"], results[name]["members"]
        print(
            f"{name}: {seconds:.0f} CPU s, N gain {n['nll_gain']:.2f}, MAE {n['mae']:.1f}, "
            f"90 % set {n['coverage_90']:.3f}, exact {results[name]['exact']:.3f}; log M_star "
            + ", ".join(f"{k} {v['log_mstar']:.3f}" for k, v in m.items()),
            flush=True,
        )
    write(a.out, results)


if __name__ == "__main__":
    main()
