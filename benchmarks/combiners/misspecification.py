"""How often stars are said not to be what the simulator makes: right and wrong yields.

    SBI_DATA_DIR=... sbi-run --plugin chempy --set simulator.yields=tng --out runs/tng
    SBI_DATA_DIR=... python benchmarks/combiners/misspecification.py --run runs/tng --json out.json

Mock galaxies of N stars, shared parameters from the prior, errors of 0.05 dex, simulated with the
yields of the run (any flag is a false alarm) and with ``--other`` yields (a flag is right). Also
counted: objects that disagree according to ten random parts (p < 0.01), the older check.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch

import sbi_core
from sbi_core import Batch, Observations
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.pipeline.model_check import check_model, reference_objects
from sbi_core.rng import stream


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--other", default="alternative")
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100])
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    simulator, posterior = run.simulator, run.posterior
    own = str(simulator.config.yields)
    wrong = sbi_core.get_simulator("chempy", yields=options.other)
    combiner = sbi_core.get_combiner("gaussian")
    like = Batch(x=torch.zeros(1, 8), x_err=torch.full((1, 8), 0.05))
    record = []
    print(f"{'yields':<14}{'N':>6} {'flagged':>8} {'by parts':>9}   checks that flag; a verdict")
    for name, maker in ((own, simulator), (options.other, wrong)):
        for n in options.sizes:
            flagged = by_parts = 0
            reasons: Counter[str] = Counter()
            sentence, start = "", time.monotonic()
            for k in range(options.mocks):
                rng = stream(21, "mock", name, n, k)
                batch = GroupSimulator(maker, int(1.1 * n) + 5).draw(int(1.1 * n) + 5, rng)
                stars = maker.observe_like(batch.succeeded[:n], like, rng)
                objects = Observations.from_batch(stars, observables=maker.observables)
                combined = combiner.combine(posterior, objects)
                reference = reference_objects(
                    simulator, combined, objects.batch, options.reference, k
                )
                found = check_model(posterior, combined, objects, reference)
                assert found is not None
                entry, verdict = found
                by_parts += combined.diagnostics.get("consistency_p", 1.0) < 0.01
                if not verdict.ok or verdict.level == "warn":
                    flagged += 1
                    sentence = verdict.sentence
                    reasons.update(c for c, p in entry["comparisons"].items() if p < 0.002)
            row = {
                "yields": name,
                "n": n,
                "mocks": options.mocks,
                "flagged": flagged,
                "flagged_by_parts": by_parts,
                "reasons": dict(reasons),
                "example": sentence,
                "seconds_per_mock": (time.monotonic() - start) / options.mocks,
            }
            record.append(row)
            print(
                f"{name:<14}{n:>6} {flagged / options.mocks:>8.2f} "
                f"{by_parts / options.mocks:>9.2f}   {dict(reasons)}; {sentence}",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
