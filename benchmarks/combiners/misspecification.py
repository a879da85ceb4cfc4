"""How often stars that the simulator does not make are flagged, and those that it makes.

    sbi-run --plugin chempy --out runs/chempy
    python benchmarks/combiners/misspecification.py --run runs/chempy --json out.json

Mock galaxies of N stars with shared parameters from the prior and errors of 0.05 dex, combined by
``simulated-moments``. ``own`` are stars of the run's simulator: every flag is a false alarm. The
others differ in one respect: another table of yields (any name of a yield set is a case),
``births`` (all between 1 and 4 Gyr), ``zero-point`` ([Mg/Fe] 0.02 dex too high) and ``outliers``
(5 % of the stars have five times the quoted errors). Also given: the rms error of the shared
parameters in combined standard deviations, and the tests that flag.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_core import Batch, Observations, Simulator
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.pipeline.model_check import check_model, reference_objects
from sbi_core.rng import stream

TABLES = {
    "sn1a-wdd2": "iwamoto99-wdd2+nomoto13-net+karakas10",
    "sn2-gross": "iwamoto99-w7+nomoto13-gross+karakas10",
    "agb-karakas16": "iwamoto99-w7+nomoto13-net+karakas16",
}
CASES = ("own", *TABLES, "births", "zero-point", "outliers")
ERROR = 0.05


def stars(
    maker: Simulator, case: str, n: int, rng: np.random.Generator
) -> tuple[Observations, np.ndarray]:
    """Return the stars of one galaxy, and its shared parameters."""
    k = len(maker.observables)
    like = Batch(x=torch.zeros(1, k), x_err=torch.full((1, k), ERROR))
    batch = GroupSimulator(maker, int(1.1 * n) + 5).draw(int(1.1 * n) + 5, rng)
    if case == "births":
        theta = batch.theta.numpy().copy()
        theta[:, maker.parameters.index(["t_birth"])] = rng.uniform(1, 4, (len(theta), 1))
        batch = maker.simulate(theta, rng)
    batch = batch.succeeded[:n]
    x = maker.observe_like(batch, like, rng)
    shift = torch.zeros(n, k)
    if case == "zero-point":
        shift[:, [o.name for o in maker.observables].index("mg_fe")] = 0.02
    if case == "outliers":  # 5 times the error together with the noise that is there
        wild = rng.random((n, 1)) < 0.05
        shift = torch.as_tensor(wild * rng.normal(0, ERROR * 24**0.5, (n, k)))
    x = x.with_(x=x.x + shift.to(x.x))
    return Observations.from_batch(x, observables=maker.observables), batch.theta[0].numpy()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--mocks", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    simulator, posterior, config = run.simulator, run.posterior, run.config
    combiner = sbi_core.get_combiner("simulated-moments")
    combiner.attach(simulator)
    record = []
    print(f"{'case':<16}{'N':>6} {'flagged':>9}   z-rms of each parameter; tests that flag")
    for case in options.cases:
        name = TABLES.get(case, case)
        other = case != "own" and name not in CASES
        maker = sbi_core.get_simulator("chempy", yields=name) if other else simulator
        for n in options.sizes:
            z, reasons, flagged = [], Counter[str](), 0
            start = time.process_time()
            for k in range(options.mocks):
                rng = stream(options.seed, "mock", case, n, k)
                objects, truth = stars(maker, case, n, rng)
                combined = combiner.combine(posterior, objects, rng=rng)
                z.append((combined.mean - truth[: len(combined.mean)]) / combined.sd)
                reference = reference_objects(
                    simulator, combined, objects.batch, config.combine.reference, k
                )
                checked = check_model(posterior, combined, objects, reference)
                assert checked is not None
                flagged += checked[1].level != "pass"
                reasons.update(c for c, p in checked[0]["comparisons"].items() if p < 0.001)
            z_rms = np.sqrt(np.square(z).mean(0))
            row = {
                "case": case,
                "n": n,
                "mocks": options.mocks,
                "flagged": flagged,
                "z_rms": z_rms.tolist(),
                "reasons": dict(reasons),
                "cpu_seconds_per_mock": (time.process_time() - start) / options.mocks,
            }
            record.append(row)
            print(
                f"{case:<16}{n:>6} {flagged:>4}/{options.mocks:<4}   "
                f"{', '.join(f'{v:.1f}' for v in z_rms)}; {dict(reasons)}",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
