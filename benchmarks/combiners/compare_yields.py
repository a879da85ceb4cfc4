r"""Which yields made the stars? Recognition and calibration of the model posterior for chempy.

    python benchmarks/combiners/compare_yields.py --sets default iwamoto99-w7+woosley95+karakas10

A classifier is trained on simulated galaxies of every yield set (errors 0.05 dex, all elements, no
ages, shared parameters from the prior), then asked about new ones. Per number of stars: share
recognised, mean of -log p of the right set, and stated against true probability: among the galaxies
whose best set has a probability of at least 0.9, and among the others.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_core import Batch, ModelComparison, Observations
from sbi_core.combiners.comparison import CompareConfig
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sets", nargs="+", default=["default", "iwamoto99-w7+limongi18-v150+karakas10"]
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--mocks", type=int, default=100, help="per yield set and size")
    parser.add_argument("--simulations", type=int, default=100_000, help="stars per yield set")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {name: sbi_core.get_simulator("chempy", yields=name) for name in options.sets}
    config = CompareConfig(
        max_objects=max(options.sizes), simulations=options.simulations, steps=options.steps
    )
    comparison = ModelComparison(models, config)
    k = len(next(iter(models.values())).observables)
    like = Batch(
        x=torch.zeros(1, k),
        x_err=torch.full((1, k), 0.05),
        mask=torch.ones(1, k, dtype=torch.bool),
        context=torch.zeros(1, 3),
    )
    start = time.process_time()
    facts = comparison.fit(like, seed=1)
    print(f"trained in {time.process_time() - start:.0f} CPU s: {dict(facts)}\n")
    print(f"{'N':>5} {'recognised':>11} {'-log p':>8}   stated / true, p >= 0.9 and below")
    rows = []
    for n in options.sizes:
        p, right = [], []
        for number, (name, simulator) in enumerate(models.items()):
            for mock in range(options.mocks):
                rng = stream(5, name, n, mock)
                many = n + n // 5 + 5
                batch = GroupSimulator(simulator, many).draw(many, rng).succeeded[:n]
                stars = Observations.from_batch(simulator.observe_like(batch, like, rng))
                found = comparison.probabilities(stars).probability
                p.append(found)
                right.append(number)
        probability, label = np.array(p), np.array(right)
        best = probability.argmax(1) == label
        stated = probability.max(1)
        row = {
            "n": n,
            "recognised": float(best.mean()),
            "loss": float(-np.log(probability[np.arange(len(label)), label]).mean()),
            "bins": [
                {
                    "galaxies": int(w.sum()),
                    "stated": float(stated[w].mean()),
                    "true": float(best[w].mean()),
                }
                for w in (stated >= 0.9, stated < 0.9)
                if w.any()
            ],
        }
        rows.append(row)
        listed = "; ".join(
            f"{b['stated']:.3f} / {b['true']:.3f} ({b['galaxies']})" for b in row["bins"]
        )
        print(f"{n:>5} {row['recognised']:>11.3f} {row['loss']:>8.3f}   {listed}", flush=True)
    if options.json:
        content = {"facts": dict(facts), "sets": options.sets, "rows": rows}
        Path(options.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
