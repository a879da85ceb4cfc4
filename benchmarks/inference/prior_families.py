"""Prior families against frozen distributions of scipy.stats: speed, equal draws, tails.

    OMP_NUM_THREADS=1 python benchmarks/inference/prior_families.py --out results/families.json

Both sides draw from the same generator by the same method (normal numbers for `normal`, quantiles
of uniform ones for the others) and evaluate 10^6 values. The tail is the relative error of theta at
z = 8, where the quantile function of scipy has to pass through 1 - 6e-16.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import report
from scipy import special, stats

from sbi_core import Prior

FROZEN = {
    "uniform": ({"low": -2.0, "high": 5.0}, stats.uniform(-2, 7)),
    "loguniform": ({"low": 1e-3, "high": 1e2}, stats.loguniform(1e-3, 1e2)),
    "normal": ({"loc": -2.3, "scale": 0.3}, stats.norm(-2.3, 0.3)),
    "truncnormal": (
        {"loc": 0.55, "scale": 0.1, "low": 0.294},
        stats.truncnorm((0.294 - 0.55) / 0.1, np.inf, 0.55, 0.1),
    ),
    "halfnormal": ({"loc": 1.0, "scale": 2.0}, stats.halfnorm(1, 2)),
    "lognormal": ({"loc": -0.5, "scale": 0.8}, stats.lognorm(0.8, scale=np.exp(-0.5))),
    "beta": ({"a": 2.0, "b": 5.0, "low": -3.0, "high": 4.0}, stats.beta(2, 5, -3, 7)),
}
EXACT_AT_8 = {"normal": -2.3 + 0.3 * 8, "lognormal": np.exp(-0.5 + 0.8 * 8)}


def seconds(f, repeats=5):
    """Return the fastest of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(name, n):
    """Return ratios of time (scipy / ours), share of different draws, and errors at z = 8."""
    values, frozen = FROZEN[name]
    prior = Prior(name, values)
    theta = prior.sample(n, np.random.default_rng(1))
    z = np.random.default_rng(2).standard_normal((n, 1))

    def theirs():
        rng = np.random.default_rng(1)
        return frozen.rvs((n, 1), rng) if name == "normal" else frozen.ppf(rng.random((n, 1)))

    pairs = {
        "sample": (lambda: prior.sample(n, np.random.default_rng(1)), theirs),
        "log_prob": (lambda: prior.log_prob(theta), lambda: frozen.logpdf(theta[:, 0])),
        "to_z": (
            lambda: prior.to_unconstrained(theta),
            lambda: special.ndtri(frozen.cdf(theta).clip(1e-7, 1 - 1e-7)),
        ),
        "from_z": (lambda: prior.from_unconstrained(z), lambda: frozen.ppf(special.ndtr(z))),
    }
    row = {k: round(seconds(b) / seconds(a), 2) for k, (a, b) in pairs.items()}
    row["different_draws"] = float(np.mean(theta != theirs()))
    if name in EXACT_AT_8:
        want = EXACT_AT_8[name]
        got = prior.from_unconstrained([[8.0]])[0, 0], frozen.ppf(special.ndtr(8.0))
        row["tail_ours"], row["tail_scipy"] = (abs(g / want - 1) for g in got)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    n = 10**5 if options.quick else 10**6
    report(options.out, {"n": n, "families": {name: compare(name, n) for name in FROZEN}})


if __name__ == "__main__":
    main()
