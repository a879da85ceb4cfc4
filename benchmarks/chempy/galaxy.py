"""The 1000 stars of an IllustrisTNG galaxy: our combination beside the published ones.

    SBI_DATA_DIR=... python benchmarks/chempy/galaxy.py --out runs/galaxy --json out.json

Runs ``standard`` with the ``tng`` yields on Mock_Data_TNG.npz (with and without birth times) and
prints alpha_IMF and log10 N_Ia for N = 1, 10, 100, 1000 beside the published values (Buck et al.
2025; Philcox & Rybizki 2019). The truth of the simulation is -2.3 and -2.89.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import sbi_core

PUBLISHED = {
    "Philcox & Rybizki 2019, HMC": {
        1: (-2.27, 0.08, -2.86, 0.11),
        10: (-2.27, 0.03, -2.87, 0.04),
        100: (-2.28, 0.01, -2.89, 0.01),
    },
    "Buck et al. 2025, N = 200": {200: (-2.285, 0.005, -2.888, 0.007)},
}
SIZES = [1, 10, 100, 200, 1000]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/galaxy")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--json")
    options = parser.parse_args()
    stars = Path(os.environ["SBI_DATA_DIR"]) / "chempy" / "Mock_Data_TNG.npz"
    record = {}
    print(f"{'':<28} {'N':>5}  {'alpha_IMF':>18}  {'log10 N_Ia':>18}   parts agree: p")
    for ages in (False, True):
        run = sbi_core.run(
            "chempy",
            preset=options.preset,
            observations=stars,
            out=f"{options.out}-{'ages' if ages else 'plain'}",
            overrides={
                "simulator.yields": "tng",
                "simulator.ages": ages,
                "combine.sizes": SIZES,
            },
        )
        label = "with birth times" if ages else "abundances alone"
        report = run.report
        record[label] = report["combined"]
        for c in report["combined"]:
            a, b = (c["parameters"][k] for k in ("alpha_imf", "log10_n_ia"))
            p = f"{c['consistency_p']:.1e}" if "consistency_p" in c else ""
            print(
                f"{c['combiner'] + ', ' + label:<28} {c['n']:>5}  {a['mean']:+.4f} +- "
                f"{a['sd']:.4f}  {b['mean']:+.4f} +- {b['sd']:.4f}   {p}"
            )
        calibrated = ", ".join(
            f"N={c['n']}: {c['z_rms']:.2f}" for c in report["combined_calibration"]
        )
        print(f"    z-rms on simulated groups observed like these stars: {calibrated}")
    for name, values in PUBLISHED.items():
        for n, (a, ea, b, eb) in values.items():
            print(f"{name:<28} {n:>5}  {a:+.4f} +- {ea:.4f}  {b:+.4f} +- {eb:.4f}")
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
