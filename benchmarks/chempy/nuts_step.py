"""NUTS on 10 stars: gradients of the engine and of an emulator at work.

The joint posterior of 2 shared and 4 local parameters per star (42 variables for 10 stars). With an
emulator of the ``standard`` preset: a short chain with warm-up. With gradients of the engine, from
where that chain ended and with its masses and step: energy along paths, and a few transitions::

    python benchmarks/chempy/nuts_step.py --json nuts.json
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from emulator import CASES, simulate
from joint import JointPosterior, differentiable
from no_u_turn import energy, leapfrog, nuts, start

from sbi_core import get_simulator
from sbi_core.simulate.emulator import Emulator, EmulatorConfig


def seconds_per_gradient(posterior: JointPosterior, z: np.ndarray, n: int) -> float:
    posterior(z)
    begin = time.perf_counter()
    for _ in range(n):
        posterior(z)
    return (time.perf_counter() - begin) / n


def energy_error(posterior, z, step: float, steps: int, rng, inverse_mass) -> float:
    r = rng.standard_normal(len(z)) / np.sqrt(inverse_mass)
    state = start(posterior, z, r)
    h = [energy(state, inverse_mass)]
    for _ in range(steps):
        state = leapfrog(posterior, state, step, inverse_mass)
        h.append(energy(state, inverse_mass))
    return float(np.abs(np.array(h) - h[0]).max())


def chain(posterior, z, warmup: int, draws: int, rng, step: float, depth: int, inverse_mass=None):
    begin = time.perf_counter()
    made = nuts(
        posterior,
        z,
        draws=draws,
        warmup=warmup,
        rng=rng,
        target_accept=0.9,
        step=step,
        max_depth=depth,
        inverse_mass=inverse_mass,
    )
    wall = time.perf_counter() - begin
    shared = posterior.globals(made.draws)
    return made, {
        "warmup": warmup,
        "draws": draws,
        "seconds": wall,
        "gradients": made.gradients,
        "step": made.step,
        "accept": float(made.accept.mean()),
        "mean_depth": float(made.depth.mean()),
        "divergent": int(made.divergent.sum()),
        "alpha_imf": [float(shared[:, 0].mean()), float(shared[:, 0].std())],
        "log10_n_ia": [float(shared[:, 1].mean()), float(shared[:, 1].std())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", "--out", type=Path, help="write the numbers here")
    parser.add_argument("--stars", type=int, default=10)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--engine-draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    simulator = get_simulator("chempy")
    stars = simulator.example_observations(rng, options.stars).batch
    truth = stars.theta[0, :2].tolist()
    space = simulator.parameters

    by_engine = JointPosterior(stars, space, differentiable(simulator.engine))
    z = np.zeros(by_engine.dim)
    result = {"stars": options.stars, "variables": by_engine.dim, "truth": truth}
    result["engine_gradient_s"] = seconds_per_gradient(by_engine, z, 5)
    print(f"{options.stars} stars, {by_engine.dim} variables; truth {truth[0]:.2f}, {truth[1]:.2f}")
    print(f"engine: {1e3 * result['engine_gradient_s']:.1f} ms per log density and gradient")

    case = {**CASES["standard"]}
    prior = simulate(simulator, "prior", case.pop("rows"), options.seed)
    box = simulate(simulator, "box", case["box_rows"], options.seed + 1)
    emulator = Emulator(EmulatorConfig(**case))
    emulator.fit(simulator, prior, wide=box, seed=options.seed)
    rms = np.array([emulator.rms[name] for name in emulator.names])
    by_emulator = JointPosterior(stars, space, emulator.network, model_error=rms)
    result["emulator_gradient_s"] = seconds_per_gradient(by_emulator, z, 200)
    print(f"emulator: {1e3 * result['emulator_gradient_s']:.2f} ms per log density and gradient")

    made, result["emulator_chain"] = chain(
        by_emulator, z, options.draws, options.draws, rng, step=0.1, depth=8
    )
    report("emulator", result["emulator_chain"])
    z = made.draws[-1]
    for part in (1, 2, 4):
        step = made.step / part
        error = energy_error(by_engine, z, step, 10 * part, rng, made.inverse_mass)
        result.setdefault("engine_energy_error", {})[f"{step:.4f}"] = error
        print(
            f"engine: largest error of H over {10 * part} steps of {step:.4f}: {error:.4f}",
            flush=True,
        )
    _, result["engine_chain"] = chain(
        by_engine,
        z,
        0,
        options.engine_draws,
        rng,
        step=made.step,
        depth=4,
        inverse_mass=made.inverse_mass,
    )
    report("engine", result["engine_chain"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def report(name: str, c: dict) -> None:
    print(
        f"{name} NUTS: {c['warmup']} + {c['draws']} transitions, {c['gradients']} gradients in "
        f"{c['seconds']:.1f} s; step {c['step']:.3f}, acceptance {c['accept']:.2f}, depth "
        f"{c['mean_depth']:.1f}, {c['divergent']} divergent; alpha "
        f"{c['alpha_imf'][0]:.3f} +- {c['alpha_imf'][1]:.3f}, log10 N_Ia "
        f"{c['log10_n_ia'][0]:.3f} +- {c['log10_n_ia'][1]:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
