"""The four experiments of Buck et al. 2025, and ours beside the published rule and values.

    SBI_DATA_DIR=... python benchmarks/combiners/experiments.py --run runs/tng --json out.json

``--run`` is a finished run of chempy with the ``tng`` yields.
Experiments: ``same`` (truth -2.3, -2.89), ``alternative`` (other yields in the mock), ``galaxy``
(Mock_Data_TNG.npz), ``shifted`` (truth -2.1, -3.0). Birth times
U(2, 12.8) Gyr, locals from the prior, errors 0.05 dex. Per N: mean and standard deviation, and the
distance from the truth in sigma; for N < 1000 of the first N stars, and over disjoint subsets the
root mean square distance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_chempy.experiments import PUBLISHED, SIZES, TRUTHS, stars
from sbi_core.pipeline.model_check import check_model, reference_objects


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--experiments", nargs="+", default=list(TRUTHS))
    parser.add_argument("--work", default="runs/experiments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    names = ("simulated-moments", "gaussian", "published")
    rules = {name: sbi_core.get_combiner(name) for name in names}
    rules["simulated-moments"].attach(run.simulator)
    record = []
    for name in options.experiments:
        truth = np.array(TRUTHS[name])
        data = stars(name, run.simulator, seed=options.seed)
        sizes = [n for n in SIZES if n <= len(data)]
        print(f"\n{name}: truth {truth[0]}, {truth[1]}")
        print(f"{'':<30}{'N':>5} {'alpha_IMF':>18} {'log10 N_Ia':>18}   off by sigma   rms")
        for rule, combiner in rules.items():
            for n in sizes:
                subsets = [slice(k * n, (k + 1) * n) for k in range(min(50, len(data) // n))]
                found = combiner.combine_subsets(run.posterior, data, subsets)
                z = np.array([(c.mean - truth) / c.sd for c in found])
                first, rms = found[0], np.sqrt((z**2).mean())
                record.append(
                    {
                        "experiment": name,
                        "combiner": rule,
                        "n": n,
                        "mean": first.mean.tolist(),
                        "sd": first.sd.tolist(),
                        "z": z[0].tolist(),
                        "z_rms": float(rms),
                        "subsets": len(z),
                    }
                )
                print(
                    f"{rule:<30}{n:>5} {first.mean[0]:+.4f} +- {first.sd[0]:.4f}  "
                    f"{first.mean[1]:+.4f} +- {first.sd[1]:.4f}   {z[0, 0]:+5.1f} {z[0, 1]:+5.1f}"
                    f"   {rms:5.2f}",
                    flush=True,
                )
        for label, (n, a, ea, b, eb) in PUBLISHED[name].items():
            print(f"{label:<30}{n:>5} {a:+.3f}  +- {ea:.3f}   {b:+.3f}  +- {eb:.3f}")
        best = next(iter(rules.values())).combine(run.posterior, data)
        reference = reference_objects(run.simulator, best, data.batch, 10_000, options.seed)
        checked = check_model(run.posterior, best, data, reference)
        if checked is not None:
            print(checked[1].sentence)
            record.append({"experiment": name, "verdict": checked[1].sentence, **checked[0]})
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
