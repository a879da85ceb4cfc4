"""Emulators of the chempy engine: accuracy per element and training time.

Trains the published architecture (6-100-40-8, tanh) and ours on draws from the prior plus draws
from the 5-sigma box, and measures absolute errors [dex] on fresh engine runs of both kinds that no
training saw::

    python benchmarks/chempy/emulator.py --json emulator.json

Rows: ``published`` is the architecture and optimiser of Buck et al. 2025 with our rows;
``standard`` are the settings of our preset, ``large`` those of ours with 3e5 prior rows and 30
epochs instead of 1e6 and 12. Times are wall clock on one thread; CPU
seconds beside them show how busy the machine was. ``--quick`` takes a tenth of the rows and epochs.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from sbi_core import Batch, get_simulator
from sbi_core.simulate.emulator import Emulator, EmulatorConfig, draw_box

SILU = {"activation": "silu", "optimizer": "adam-onecycle", "loss": "huber"}
CASES = {
    "published": {"rows": 100_000, "box_rows": 50_000, "epochs": 150},
    "standard": {
        "rows": 100_000,
        "box_rows": 30_000,
        "epochs": 24,
        "hidden": (128, 128, 128),
        "batch_size": 512,
        "learning_rate": 5e-3,
        **SILU,
    },
    "large": {
        "rows": 300_000,
        "box_rows": 300_000,
        "epochs": 30,
        "hidden": (256, 256, 256),
        "batch_size": 1024,
        "learning_rate": 3e-3,
        **SILU,
    },
}
LITERATURE = "Buck et al. 2025: 0.005-0.008 median, 0.02-0.03 p95, 200 s; P&R 2019: 0.007 median"
TARGETS = "targets: median <= 0.003, p95 <= 0.015 dex (stretch 0.0015, 0.008)"
TEST_ROWS = 20_000


def simulate(simulator, kind: str, n: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    space = simulator.parameters
    theta = space.sample(n, rng) if kind == "prior" else draw_box(space, n, rng)
    return simulator.simulate(theta, rng)


def errors(emulator: Emulator, batch: Batch) -> dict:
    good = batch.succeeded
    rows = good.theta.numpy()
    # what the emulator refuses is counted, not extrapolated
    taken = emulator.inside(rows) & (emulator.valid_probability(rows) >= 0.5)
    wrong = np.abs(emulator.predict(rows[taken]) - good.x.double().numpy()[taken])
    found = {
        level: dict(zip(emulator.names, np.percentile(wrong, p, axis=0).tolist(), strict=True))
        for level, p in (("median", 50), ("p95", 95), ("p99", 99))
    }
    rms = np.sqrt((wrong**2).mean(0)).tolist()
    failed = batch.theta.numpy()[~batch.ok.numpy()]
    refused = emulator.valid_probability(failed) < 0.5
    return {
        **found,
        "rms": dict(zip(emulator.names, rms, strict=True)),
        "rows": len(rows),
        "refused_good": float(1 - taken.mean()),
        "failed_rows": len(failed),
        "failed_refused": float(refused.mean()) if len(failed) else None,
    }


def run(name: str, simulator, seed: int, shrink: int) -> dict:
    case = {**CASES[name]}
    rows, box_rows = case.pop("rows") // shrink, case["box_rows"] // shrink
    case["epochs"] = max(2, case["epochs"] // shrink)
    start = time.perf_counter()
    prior = simulate(simulator, "prior", rows, seed)
    box = simulate(simulator, "box", box_rows, seed + 1)
    simulated = time.perf_counter() - start
    emulator = Emulator(EmulatorConfig(**case))
    start, cpu = time.perf_counter(), time.process_time()
    record = emulator.fit(simulator, prior, wide=box, seed=seed)
    result = {
        "case": name,
        "rows": rows,
        "box_rows": box_rows,
        "options": emulator.config.model_dump(mode="json"),
        "simulate_s": simulated,
        "train_s": record.seconds,
        "fit_s": time.perf_counter() - start,
        "fit_cpu_s": time.process_time() - cpu,
    }
    for kind, offset in (("prior", 2), ("box", 3)):
        result[kind] = errors(emulator, simulate(simulator, kind, TEST_ROWS, seed + offset))
    rows = torch.as_tensor(simulator.parameters.sample(10_000, seed))
    start = time.perf_counter()
    emulator.predict(rows)
    result["predictions_per_s"] = len(rows) / (time.perf_counter() - start)
    return result


def show(r: dict) -> None:
    hidden = "-".join(str(h) for h in r["options"]["hidden"])
    print(
        f"\n{r['case']}: 6-{hidden}-8 {r['options']['activation']}, {r['rows']} prior and "
        f"{r['box_rows']} box rows, {r['options']['epochs']} epochs; simulate "
        f"{r['simulate_s']:.1f} s, train {r['train_s']:.1f} s (with validity {r['fit_s']:.1f} s "
        f"wall, {r['fit_cpu_s']:.1f} s CPU), {r['predictions_per_s']:.0f} predictions/s"
    )
    names = list(r["prior"]["median"])
    print(f"{'':16}" + "".join(f"{n:>9}" for n in names) + f"{'largest':>9}")
    for kind in ("prior", "box"):
        for level in ("median", "p95", "rms"):
            values = [r[kind][level][n] for n in names]
            cells = "".join(f"{v:9.4f}" for v in [*values, max(values)])
            print(f"{kind + ' ' + level:16}{cells}")
        e = r[kind]
        holes = f"{e['failed_rows']} failed rows"
        if e["failed_rows"]:
            holes += f", {e['failed_refused']:.1%} of them refused"
        print(f"{kind + ' validity':16} {holes}; {e['refused_good']:.2%} of good rows refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", "--out", type=Path, help="write the numbers here")
    parser.add_argument("--yields", default="default")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulator = get_simulator("chempy", yields=options.yields)
    simulator.draw(10, 0)  # compile
    print(f"yields {options.yields}; {LITERATURE}; {TARGETS}")
    results = []
    for name in options.cases:
        results.append(run(name, simulator, options.seed, 10 if options.quick else 1))
        show(results[-1])
    if options.json:
        about = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "yields": options.yields,
            "literature": LITERATURE,
        }
        options.json.write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
