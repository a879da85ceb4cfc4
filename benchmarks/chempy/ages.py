"""Combinations of stars with real ages: mock galaxies with the ages of a catalogue, truth known.

    SBI_DATA_DIR=... python benchmarks/chempy/ages.py --out runs/ages --json out.json

Trains on the 340 thin-disk stars of Bensby et al. 2014, then combines mock galaxies: true birth
times are the observed ones (kept within the model), errors of abundances and ages are those of the
same star. The combination learned its correction from groups with birth times of the prior, so
that this tests how mock errors of ages are chosen. Prints mean and RMS of the z-scores.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_chempy.noise import observe_ages
from sbi_core import Batch, Observations

TRUTH = np.array([-2.6, -2.75])  # alpha_IMF, log10 N_Ia; every galaxy 0.1 around it


def mock(
    simulator, real: Observations, rng: np.random.Generator
) -> tuple[Observations, np.ndarray]:
    """Return a galaxy of as many stars as ``real`` has, and its truth."""
    n = len(real)
    truth = TRUTH + 0.1 * rng.normal(size=2)
    theta = simulator.parameters.sample(2 * n, rng)
    star = rng.integers(n, size=2 * n)
    theta[:, :2] = truth
    theta[:, 5] = np.clip(real.batch.context[star, 0].numpy(), 1.0, 13.5)
    made = simulator.simulate(theta, rng)
    good = np.flatnonzero(made.ok.numpy())[:n]
    made, like = made[good], real.batch[star[good]]
    mask, time = like.observed, made.theta[:, 5].float()
    unit = torch.as_tensor(rng.normal(size=(n, made.x.shape[1] + 1)), dtype=torch.float32)
    x = torch.where(mask, made.x + like.x_err.nan_to_num() * unit[:, 1:], torch.nan)
    context = observe_ages(time, like.context[:, 1], like.context[:, 2] > 0, unit[:, 0])
    batch = Batch(x=x, x_err=like.x_err, mask=mask, context=context)
    names = {"observables": simulator.observables, "context_names": simulator.context_names}
    return Observations.from_batch(batch, **names), truth


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/ages")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--simulations", type=int, default=60000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--galaxies", type=int, default=40)
    parser.add_argument("--json")
    options = parser.parse_args()
    folder = Path(os.environ["SBI_DATA_DIR"]) / "cases" / "chempy"
    stars = folder / "bensby2014_thin_340stars_ages.ecsv"
    run = sbi_core.run(
        "chempy",
        preset=options.preset,
        observations=stars,
        out=options.out,
        overrides={"simulate.n": options.simulations, "train.epochs": options.epochs},
    )
    real = run.simulator.read_observations(stars)
    rng = np.random.default_rng(5)
    z: dict[str, list[np.ndarray]] = {"simulated-moments": [], "gaussian": []}
    for _ in range(options.galaxies):
        galaxy, truth = mock(run.simulator, real, rng)
        for rule, scores in z.items():
            combined = run.combine(galaxy, combiner=rule)
            scores.append((np.asarray(combined.mean) - truth) / np.asarray(combined.sd))
    record = {}
    for rule, scores in z.items():
        mean, rms = np.mean(scores, 0), np.sqrt(np.mean(np.square(scores), 0))
        record[rule] = {"mean": mean.tolist(), "rms": rms.tolist()}
        print(f"{rule:<13} mean z {mean.round(2)}, RMS z {rms.round(2)} (alpha_IMF, log10 N_Ia)")
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
