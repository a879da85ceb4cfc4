"""Coverage for galaxies at redshifts other than that of the model.

    python benchmarks/sfh/own_age.py RUN [--redshift 0.05 0.15 0.3 0.5] [--galaxies 500]

RUN is a run in mode mock. Mock galaxies are simulated at each redshift, with the age of the
Universe there, and inferred with RUN: with times as the model has them, and counted to the age of
the Universe at the redshift of the galaxy, with draws of older stars replaced.
"""

import argparse
from pathlib import Path

import numpy as np
from common import save, show
from off_family import coverage

import sbi_core
from sbi_core import stream
from sbi_sfh.own_age import at_own_age, possible_draws
from sbi_sfh.simulator import SfhSimulator


def seen_at(values: np.ndarray, delay: float, times: int) -> tuple[np.ndarray, float]:
    """Return draws (S, n, d) of galaxies observed that much earlier, and the share replaced."""
    rows = [possible_draws(values[:, k, 0], delay) for k in range(values.shape[1])]
    made = [at_own_age(values[r, k], delay, times) for k, (r, _) in enumerate(rows)]
    return np.stack(made, axis=1), 1.0 - float(np.mean([share for _, share in rows]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="a run in mode mock")
    parser.add_argument("--redshift", nargs="+", type=float, default=[0.05, 0.15, 0.3, 0.5])
    parser.add_argument("--galaxies", type=int, default=500)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = sbi_core.load_run(args.run)
    config, rows = run.simulator.config, []
    for z in args.redshift:
        there = SfhSimulator(config.model_copy(update={"redshift": z}))
        mocks = there.example_observations(stream(args.seed, "own-age", z), args.galaxies)
        truth = np.stack([mocks.truth[name] for name in mocks.truth_names], axis=1)
        values = run.posterior.sample(mocks, args.draws).values
        delay = config.t_end - there.config.t_end
        own, replaced = seen_at(values, delay, len(run.simulator.recovery.fractions))
        for name, draws in (("of the model", values), ("own age", own)):
            covered = coverage(draws, truth)
            bias = float((np.median(draws, axis=0) - truth)[:, :9].mean())
            rows.append([z, f"{delay:.2f}", name, *(f"{c:.2f}" for c in covered),
                         f"{bias:+.2f}", f"{replaced:.3f}"])  # fmt: skip
    head = ["redshift", "delay", "times", *run.simulator.parameters.names, "bias", "replaced"]
    show("coverage of the central 68 %", head, rows)
    save(args.json, {"rows": rows})


if __name__ == "__main__":
    main()
