"""Histories against exact answers: delayed tau in closed form, Gaussian-process growth curves.

python benchmarks/sfh/oracles.py [--json FILE]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from common import save, show

from sbi_core import stream
from sbi_sfh.config import SfhConfig
from sbi_sfh.constants import DECILES, T_UNIVERSE_GYR
from sbi_sfh.gaussian_process import draw_inputs, growth_curves
from sbi_sfh.percentiles import crossing_times
from sbi_sfh.populations import Synthesis
from sbi_sfh.simulator import SfhSimulator
from sbi_sfh.tau import cumulative_mass, percentile_times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = stream(1, "oracles")
    t0, tau = rng.uniform(0, 5, 2000), 10 ** rng.uniform(-0.5, 0.7, 2000)
    time_grid = np.linspace(0, 14, 1401)
    off = np.abs(
        crossing_times(cumulative_mass(t0, tau, time_grid), time_grid, DECILES)
        - percentile_times(t0, tau, DECILES, 14.0)
    ).max()
    numbers = {"delayed tau, largest error of a decile [Gyr]": float(off)}
    for prior in ("quenched", "iyer19"):
        start = time.process_time()
        curves = growth_curves(*draw_inputs(4000, prior, rng), T_UNIVERSE_GYR)
        seconds = time.process_time() - start
        steps = np.diff(curves.cumulative)
        numbers |= {
            f"{prior}: smallest step": float(steps.min()),
            f"{prior}: overshoot, median": float(np.median(curves.overshoot)),
            f"{prior}: overshoot, 90 %": float(np.quantile(curves.overshoot, 0.9)),
            f"{prior}: knots crossed": float(curves.knots_crossed.mean()),
            f"{prior}: histories per CPU second": 4000 / seconds,
        }
    simulator = SfhSimulator(SfhConfig())
    synthesis: Synthesis = simulator.synthesis
    weights, _ = synthesis.weights(curves.cumulative)
    numbers["largest error of the total mass"] = float(np.abs(weights.sum(1) - 1).max())
    start = time.process_time()
    batch = simulator.observe(simulator.draw(4000, 1), 2)
    numbers["spectra per CPU second"] = len(batch) / (time.process_time() - start)
    show("oracles", ["", "value"], list(numbers.items()))
    save(args.json, numbers)


if __name__ == "__main__":
    main()
