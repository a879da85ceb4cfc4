"""The four experiments of Buck et al. 2025, and ours beside the published rule and values.

    SBI_DATA_DIR=... python benchmarks/combiners/experiments.py --run runs/tng --json out.json

``--run`` is a finished run of chempy with the ``tng`` yields; ``recalibrated`` learns from
``--train`` groups simulated here (kept in ``--work``).
Experiments: ``same`` (truth -2.3, -2.89), ``alternative`` (other yields in the mock), ``galaxy``
(Mock_Data_TNG.npz), ``shifted`` (truth -2.1, -3.0). Birth times
U(2, 12.8) Gyr, locals from the prior, errors 0.05 dex. Per N: mean and standard deviation, and the
distance from the truth in sigma; for N < 1000 of the first N stars, and over disjoint subsets the
root mean square distance.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from calibration import observed, simulated

import sbi_core
from sbi_core import Batch, Observations
from sbi_core.pipeline.model_check import check_model, reference_objects
from sbi_core.rng import stream

SIZES = (1, 3, 10, 30, 100, 200, 300, 1000)
TRUTHS = {
    "same": (-2.3, -2.89),
    "alternative": (-2.3, -2.89),
    "galaxy": (-2.3, -2.89),
    "shifted": (-2.1, -3.0),
}
PRINTED = {  # as printed: alpha_IMF, its sigma, log10 N_Ia, its sigma
    "same": {
        "B25 abstract": (1000, -2.298, 0.002, -2.885, 0.003),
        "B25 plots": (200, -2.295, 0.005, -2.883, 0.007),
        "P&R19 HMC 1": (1, -2.29, 0.08, -2.87, 0.11),
        "P&R19 HMC 10": (10, -2.31, 0.02, -2.90, 0.03),
        "P&R19 HMC 100": (100, -2.31, 0.01, -2.90, 0.01),
    },
    "alternative": {
        "B25 plots (noise added twice)": (200, -2.358, 0.005, -2.975, 0.007),
        "P&R19 HMC 1": (1, -2.25, 0.10, -3.01, 0.15),
        "P&R19 HMC 10": (10, -2.21, 0.04, -2.96, 0.08),
        "P&R19 HMC 100": (100, -2.22, 0.02, -2.96, 0.03),
    },
    "galaxy": {
        "B25 plots": (200, -2.285, 0.005, -2.888, 0.007),
        "P&R19 HMC 1": (1, -2.27, 0.08, -2.86, 0.11),
        "P&R19 HMC 10": (10, -2.27, 0.03, -2.87, 0.04),
        "P&R19 HMC 100": (100, -2.28, 0.01, -2.89, 0.01),
    },
    "shifted": {"B25 plots": (200, -2.108, 0.006, -2.989, 0.008)},
}


def stars(name: str, simulator: object, truth: tuple[float, float], seed: int) -> Observations:
    """The 1000 stars of an experiment."""
    if name == "galaxy":
        path = Path(os.environ["SBI_DATA_DIR"]) / "chempy" / "Mock_Data_TNG.npz"
        found = simulator.read_observations(path)  # type: ignore[attr-defined]
        context = found.batch.context
        if context is not None:  # abundances alone
            found = Observations.from_batch(
                found.batch.with_(context=torch.zeros_like(context)),
                observables=found.observables,
            )
        return found
    maker = simulator
    if name == "alternative":
        maker = sbi_core.get_simulator("chempy", yields="alternative")
    rng = stream(seed, "experiment", name)
    theta = maker.parameters.sample(1100, rng)  # type: ignore[attr-defined]
    theta[:, 0], theta[:, 1] = truth
    theta[:, 5] = rng.uniform(2.0, 12.8, len(theta))
    batch = maker.simulate(theta, 0).succeeded[:1000]  # type: ignore[attr-defined]
    like = Batch(x=torch.zeros(1, 8), x_err=torch.full((1, 8), 0.05))
    return Observations.from_batch(
        maker.observe_like(batch, like, rng),  # type: ignore[attr-defined]
        observables=maker.observables,  # type: ignore[attr-defined]
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--experiments", nargs="+", default=list(TRUTHS))
    parser.add_argument("--work", default="runs/experiments")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    rules = {name: sbi_core.get_combiner(name) for name in ("gaussian", "published")}
    ours = sbi_core.get_combiner("recalibrated")
    data = simulated(Path(options.work), run.simulator, options.train, 1000, 1.25, 12)
    facts = ours.prepare(run.posterior, observed(data, "plain", 13, run.simulator))
    print(f"recalibrated: {dict(facts)}")
    rules = {"recalibrated": ours, **rules}
    record = []
    for name in options.experiments:
        truth = np.array(TRUTHS[name])
        data = stars(name, run.simulator, TRUTHS[name], options.seed)
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
        for label, (n, a, ea, b, eb) in PRINTED[name].items():
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
