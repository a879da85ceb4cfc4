"""Gradients of the engine: automatic against finite differences.

For every parameter, d(abundances)/d(parameter) by autograd and by central differences of the same
engine (float64, ``smooth=True``) at prior draws away from the edges of the prior::

    python benchmarks/chempy/gradients.py --json gradients.json

The model has kinks (infall starved or capped, last AGB step, cells of the mass grid), where the
two sides differ; central differences at two step sizes find them, and they are counted apart. The
relative difference is |automatic - finite| / max(|finite|, 1e-3 of the parameter's median size).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from joint import differentiable

from sbi_chempy.constants import PARAMETERS
from sbi_core import get_simulator

STEPS = (1e-6, 2e-6)


def finite(engine, theta: torch.Tensor, column: int, step: float) -> np.ndarray:
    shift = torch.zeros_like(theta)
    shift[:, column] = step
    with torch.no_grad():
        ahead, behind = engine(theta + shift)[0], engine(theta - shift)[0]
    return ((ahead - behind) / (2 * step)).numpy()


def automatic(engine, theta: torch.Tensor) -> tuple[np.ndarray, float]:
    theta = theta.clone().requires_grad_(True)
    start = time.perf_counter()
    x, _ = engine(theta)
    parts = [torch.autograd.grad(x[:, k].sum(), theta, retain_graph=True)[0] for k in range(8)]
    return torch.stack(parts, 1).numpy(), time.perf_counter() - start  # (n, 8, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", "--out", type=Path, help="write the numbers here")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--yields", default="default")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulator = get_simulator("chempy", yields=options.yields, dtype="float64")
    engine = differentiable(simulator.engine)
    theta = torch.as_tensor(simulator.parameters.sample(options.rows, options.seed))
    theta[:, 5] = theta[:, 5].clamp(1.01, 13.79)
    theta = theta[simulator.simulate(theta).ok]
    gradient, seconds = automatic(engine, theta)
    print(f"{len(theta)} prior draws, yields {options.yields}, central differences of {STEPS[0]:g}")
    print(f"8 x 6 derivatives of {len(theta)} rows in {seconds:.2f} s")
    head = ("parameter", "size", "rel. median", "rel. p95", "rel. p99", "kinks")
    print(f"{head[0]:16}" + "".join(f"{h:>13}" for h in head[1:]))
    table = {}
    for k, name in enumerate(PARAMETERS):
        one, two = (finite(engine, theta, k, step) for step in STEPS)
        size = float(np.median(np.abs(one)))
        scale = np.maximum(np.abs(one), 1e-3 * size)
        kink = (np.abs(one - two) / scale > 1e-4).any(1)
        relative = (np.abs(gradient[:, :, k] - one) / scale)[~kink]
        levels = np.percentile(relative, [50, 95, 99]).tolist()
        table[name] = {
            "median_abs_derivative": size,
            "relative_median": levels[0],
            "relative_p95": levels[1],
            "relative_p99": levels[2],
            "relative_max": float(relative.max()),
            "rows_at_kinks": int(kink.sum()),
        }
        cells = "".join(f"{v:13.2e}" for v in (size, *levels))
        print(f"{name:16}{cells}{int(kink.sum()):8d}/{len(theta)}")
    if options.json:
        about = {"rows": len(theta), "yields": options.yields, "seconds": seconds}
        options.json.write_text(json.dumps({"about": about, "parameters": table}, indent=1))


if __name__ == "__main__":
    main()
