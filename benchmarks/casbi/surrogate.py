"""The surrogate on held-out stems, against the scatter between snapshots.

    python benchmarks/casbi/surrogate.py --out surrogate.json

Jensen-Shannon divergence [nat] of smoothed templates: surrogate given (theta, s); surrogate given
theta only; the nearest snapshot in theta; and the scatter ratio of the mean [Fe/H] at fixed theta.
"""

import argparse
import time

import numpy as np
from common import write
from scipy.spatial import cKDTree

from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.library import FINE, make_templates
from sbi_casbi.smoothing import kernel, smooth
from sbi_casbi.surrogate import SurrogateConfig, shape_of, train_surrogate


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stems", type=int, default=2000)
    parser.add_argument("--stars", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--out")
    a = parser.parse_args()
    library = build_dwarfs(DwarfConfig(stems=a.stems))
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
        fe, o = made.draw_stars(theta, s, a.stars, seed)
        return planes(library, make_templates(library.plane, fe, o, weight))

    drawn = made.draw_shapes(theta, 3)
    scale = library.theta[train].std(0)
    tree = cKDTree(library.theta[train] / scale)
    near = train[tree.query(theta / scale)[1]]
    several = np.stack([made.draw_shapes(theta, 10 + k)[:, 0] for k in range(20)])
    residual = shape[:, 0] - several.mean(0)
    found = {
        "train_cpu_s": trained,
        "held_out": len(test),
        "refused_outside_hull": int((~inside).sum()),
        "js_given_theta_and_s": float(jensen_shannon(true, of(shape, 1)).mean()),
        "js_given_theta": float(jensen_shannon(true, of(drawn, 2)).mean()),
        "js_nearest_snapshot": float(
            jensen_shannon(true, planes(library, library.templates[near])).mean()
        ),
        "scatter_ratio_mean_fe_h": float(several.std(0).mean() / residual.std()),
    }
    print({k: round(v, 4) for k, v in found.items()})
    write(a.out, found)


if __name__ == "__main__":
    main()
