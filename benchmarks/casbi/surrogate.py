"""The surrogate on held-out stems, against the scatter between snapshots; and in use.

    python benchmarks/casbi/surrogate.py --out surrogate.json

Jensen-Shannon divergence [nat] of smoothed templates: surrogate given (theta, s); surrogate given
theta only; the nearest snapshot in theta; and the scatter ratio of the mean [Fe/H] at fixed theta.
In use: the estimator is trained twice, on halos of snapshots and on halos of as many galaxies of
the surrogate; both infer the same halos of held-out snapshots.
"""

import argparse
import tempfile
import time

import numpy as np
import torch
from common import config_of, fit, member_errors, write
from scipy.spatial import cKDTree

from sbi_casbi.library import FINE, make_templates
from sbi_casbi.scores import prior_pmf, score_counts
from sbi_casbi.simulator import CasbiSimulator
from sbi_casbi.smoothing import kernel, smooth
from sbi_casbi.surrogate import SurrogateConfig, shape_of, surrogate_library, train_surrogate


def planes(library, templates):
    """Return smoothed shares (n, 4096), with the mixing of the library."""
    n = templates.shape[0]
    fine = templates.toarray().reshape(n, FINE, FINE)
    a = [
        kernel(np.full(n, s), np.zeros(n), w)
        for s, w in zip(library.mixing, library.plane.pixel, strict=True)
    ]
    p = np.maximum(smooth(fine, *a).reshape(n, -1), 0) + 1e-12
    return p / p.sum(1, keepdims=True)


def jensen_shannon(p, q):
    """Return the divergence of rows [nat]."""
    m = 0.5 * (p + q)
    return 0.5 * (p * np.log(p / m) + q * np.log(q / m)).sum(1)


def in_use(simulator, made, halos, epochs):
    """Return scores of estimators trained on snapshots and on the surrogate, by name."""
    config = simulator.config
    with tempfile.TemporaryDirectory() as folder:
        made.save(folder)
        options = config.model_copy(update={"surrogate_file": folder})
        smooth_one = CasbiSimulator(config, surrogate_library(simulator.library, options))
    rng = np.random.default_rng(5)
    test = simulator.observe(simulator.draw_from(1000, rng, "test"), rng)
    count, truth = test.theta_mask.sum(1).numpy(), test.theta_set.double().numpy()
    results = {}
    for name, source in (("snapshots", simulator), ("surrogate", smooth_one)):
        estimator, _ = fit(source, source.draw(halos, 1), epochs, quiet=True)
        prior = prior_pmf(simulator, estimator.counts)
        scores = score_counts(estimator.pmf(test), count, estimator.counts, prior, rng)
        members = member_errors(estimator.sample_members(test, 60, rng), truth, count)
        results[name] = {"n_sub": scores, "members": members}
        print(name, {k: round(v, 3) for k, v in scores.items()}, members, flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stems", type=int, default=6000)
    parser.add_argument("--stars", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--halos", type=int, default=20_000, help="training halos, in use")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out")
    a = parser.parse_args()
    torch.set_num_threads(1)
    simulator = CasbiSimulator(config_of("uniform", "absolute", stems=a.stems))
    library = simulator.library
    start = time.process_time()
    made = train_surrogate(library, SurrogateConfig())
    trained = time.process_time() - start
    train, test = library.rows("train"), library.rows("test")[: a.test]
    inside = made.hull.find_simplex(library.theta[test]) >= 0
    test = test[inside]
    theta, shape = library.theta[test], shape_of(library)[test]
    true = planes(library, library.templates[test])
    weight = np.full((len(test), a.stars), 1 / a.stars)

    def of(s, seed):
        fe, o = made.stars_of(theta, s, a.stars, seed)
        return planes(library, make_templates(library.plane, fe, o, weight))

    drawn = made.draw_shapes(theta, 3)
    scale = library.theta[train].std(0)
    tree = cKDTree(library.theta[train] / scale)
    near = train[tree.query(theta / scale)[1]]
    several = np.stack([made.draw_shapes(theta, 10 + k)[:, 0] for k in range(20)])
    residual = shape[:, 0] - several.mean(0)
    results = {
        "train_cpu_s": trained,
        "held_out": len(test),
        "refused_outside_hull": int((~inside).sum()),
        "js_given_theta_and_s": float(jensen_shannon(true, of(shape, 1)).mean()),
        "js_given_theta": float(jensen_shannon(true, of(drawn, 2)).mean()),
        "js_nearest_snapshot": float(
            jensen_shannon(true, planes(library, library.templates[near])).mean()
        ),
        # one for a perfect surrogate: the mean of k draws adds 1/k of their variance
        "scatter_ratio_mean_fe_h": float(
            np.sqrt(
                several.var(0, ddof=1).mean() * (1 + 1 / len(several)) / np.square(residual).mean()
            )
        ),
    }
    print({k: round(v, 4) for k, v in results.items()}, flush=True)
    results["in_use"] = in_use(simulator, made, a.halos, a.epochs)
    write(a.out, results)


if __name__ == "__main__":
    main()
