r"""Time for many stars after training: 1000 draws of all parameters, and the joint posterior.

    sbi-run --plugin chempy --out runs/standard
    sbi-run --plugin chempy --out runs/all --set estimator.parameters=all \
        --set combiner.name=gaussian
    python benchmarks/combiners/speed.py --run runs/all --shared runs/standard

``--run``: an estimator of all parameters (draws are timed); ``--shared``: the run whose posterior
and emulator the combiners use. Medians of ``--repeats``, one call of slow rules; one thread. CPU
time is what counts on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_core.simulate.emulator import Emulator, EmulatorSimulator


def median_time(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and CPU seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        call()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = np.median(seconds, axis=0)
    return float(wall), float(cpu)


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--shared")
    parser.add_argument(
        "--rules", nargs="+", default=["gaussian", "simulated-moments", "product", "likelihood"]
    )
    parser.add_argument("--stars", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    stars = run.simulator.example_observations(1, options.stars)
    found = {
        f"{options.draws} draws of {run.posterior.space.dim} parameters": median_time(
            lambda: run.posterior.sample(stars, options.draws), options.repeats
        )
    }
    folder = Path(options.shared or options.run)
    shared = sbi_core.load_run(folder)
    for name in options.rules:
        rule = sbi_core.get_combiner(name)
        rule.attach(shared.simulator)
        if rule.takes_emulator and (folder / "emulator").exists():
            emulator = Emulator.load(folder / "emulator")
            rule.attach(EmulatorSimulator(shared.simulator, emulator, carry_error=True))
        if rule.groups_needed:
            if not (folder / "combiner" / name).exists():
                print(f"{name}: not stored in {folder}")
                continue
            rule.restore(folder / "combiner" / name)
        slow = rule.takes_emulator or name == "product"
        found[name] = median_time(
            lambda rule=rule: rule.combine(shared.posterior, stars), 1 if slow else options.repeats
        )
        print(name, *found[name], flush=True)
    print(f"{'':<32} {'wall s':>8} {'CPU s':>8}")
    for what, (wall, cpu) in found.items():
        print(f"{what:<32} {wall:8.3f} {cpu:8.3f}")
    if options.json:
        content = {what: {"wall": w, "cpu": c} for what, (w, c) in found.items()}
        Path(options.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
