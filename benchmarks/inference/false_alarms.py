"""How often a test of coverage fails: posteriors of the right width, and of wrong ones.

    python benchmarks/inference/false_alarms.py --out results/false_alarms.json

Normal posteriors of d independent parameters whose widths are a factor times the right ones. The
fractions inside the intervals of four levels are judged as in the stage ``diagnose``, on 1000
simulations (the default of ``diagnose.objects``) or 5000. 100 000 runs each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import report
from scipy import stats

from sbi_core.diagnostics import LEVELS
from sbi_core.diagnostics.verdict import COVERAGE_SIGMAS

RUNS, OBJECTS = 100_000, (1000, 5000)
CASES = ((2, 1.0), (5, 1.0), (18, 1.0), (5, 0.98), (5, 0.95), (5, 0.9))


def failing_share(rng, width, d, objects):
    """Return the share of runs in which any test fails."""
    nominal = np.array(LEVELS)
    inside = 2 * stats.norm.cdf(width * stats.norm.ppf((1 + nominal) / 2)) - 1
    shells = np.diff(inside, prepend=0, append=1)
    covered = rng.multinomial(objects, shells, (RUNS, d)).cumsum(-1)[..., :-1] / objects
    sigma = np.sqrt(nominal * (1 - nominal) / objects)
    return float((np.abs(covered - nominal) >= COVERAGE_SIGMAS * sigma).any((1, 2)).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/false_alarms.json"))
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = []
    print("| parameters | width | " + " | ".join(f"{n} simulations" for n in OBJECTS) + " |")
    print("|---|---|" + "---|" * len(OBJECTS))
    for d, width in CASES:
        shares = {n: failing_share(rng, width, d, n) for n in OBJECTS}
        rows.append({"d": d, "width": width, "fails": shares})
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares.values())
        print(f"| {d} | {width} | {cells} |")
    report(args.out, {"rows": rows})


if __name__ == "__main__":
    main()
