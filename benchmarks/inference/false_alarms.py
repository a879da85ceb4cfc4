"""How often the tests of coverage fail: posteriors of the right width, and of wrong ones.

    python benchmarks/inference/false_alarms.py --out results/false_alarms.json

Normal posteriors of d independent parameters whose widths are a factor times the right ones. The
fractions inside the intervals of four levels are judged as in the stage ``diagnose``: on 1000
simulations, and with the second tests of what failed on 4000 others. 100 000 runs each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import report
from scipy import stats

from sbi_core.diagnostics import LEVELS
from sbi_core.diagnostics.verdict import COVERAGE_SIGMAS

RUNS, OBJECTS, SECOND = 100_000, 1000, 4000


def failed(rng, width, d, objects):
    """Return which tests fail in every run, (runs, d, levels)."""
    nominal = np.array(LEVELS)
    inside = 2 * stats.norm.cdf(width * stats.norm.ppf((1 + nominal) / 2)) - 1
    shells = np.diff(inside, prepend=0, append=1)
    covered = rng.multinomial(objects, shells, (RUNS, d)).cumsum(-1)[..., :-1] / objects
    sigma = np.sqrt(nominal * (1 - nominal) / objects)
    return np.abs(covered - nominal) >= COVERAGE_SIGMAS * sigma


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/false_alarms.json"))
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = []
    print("| parameters | width | once | with the second test |\n|---|---|---|---|")
    for d, width in ((2, 1.0), (5, 1.0), (18, 1.0), (5, 0.98), (5, 0.95), (5, 0.9), (5, 0.85)):
        first = failed(rng, width, d, OBJECTS)
        again = first & failed(rng, width, d, SECOND)
        once, twice = (float(f.any((1, 2)).mean()) for f in (first, again))
        rows.append({"d": d, "width": width, "once": once, "twice": twice})
        print(f"| {d} | {width} | {100 * once:.1f} % | {100 * twice:.2f} % |")
    report(args.out, {"rows": rows})


if __name__ == "__main__":
    main()
