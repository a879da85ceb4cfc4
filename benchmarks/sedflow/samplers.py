"""Against emcee and nested sampling, on the same likelihood, prior, noise and galaxies.

Ten mocks and three NSA galaxies: means and standard deviations of the network, of the refined
posterior, of emcee and of nautilus, in units of nautilus' standard deviation; calls, seconds,
effective draws per second; number of galaxies from which training pays.

    SBI_DATA_DIR=... python benchmarks/sedflow/samplers.py runs/sedflow-standard --out s.json
"""

from __future__ import annotations

import numpy as np
import torch
from common import Clock, arguments, reference, write
from reference_samplers import run_emcee, run_nautilus
from sbi.utils.metrics import c2st

from sbi_core import load_run, stream
from sbi_sedflow import read_nsa
from sbi_sedflow.likelihood import Galaxies
from sbi_sedflow.refine import refine_galaxy
from sbi_sedflow.target import Target


def accuracy(space, reference, draws):
    """Return the accuracy of a classifier between two sets of draws; 0.5 if they are alike."""
    sets = (space.to_unconstrained(v) for v in (reference, draws))
    tensors = (torch.as_tensor(v, dtype=torch.float32) for v in sets)
    return float(c2st(*tensors, classifier="mlp"))


def compare(simulator, posterior, one, args):
    galaxy = Galaxies.of(one)
    rng = stream(args.seed, "samplers", str(one.id[0]))
    with Clock() as net:
        theta = posterior.sample(one, 4000).values[:, 0]
    target = Target(simulator, galaxy)
    with Clock() as refined:
        better = refine_galaxy(posterior, one, target, rng, draws=4000)
    chain = run_emcee(Target(simulator, galaxy), rng, steps=args.steps)
    options = {"n_live": args.live, "networks": args.networks}
    nested = run_nautilus(Target(simulator, galaxy), args.seed, **options)
    space, keep = posterior.space, [k for k in range(12) if k != 4]
    sd, mean = nested.theta.std(0)[keep], nested.theta.mean(0)[keep]
    rows = {}
    for name, t in (("npe", theta), ("refined", better.theta), ("emcee", chain.theta)):
        rows[name] = {
            "shift": ((t.mean(0)[keep] - mean) / sd).tolist(),
            "width": (t.std(0)[keep] / sd).tolist(),
            "c2st": accuracy(space, nested.theta[:2000], t[:2000]),
        }
    return rows | {
        "id": str(one.id[0]), "method": better.method, "refined_ess": better.ess,
        "efficiency": better.efficiency,
        "cpu": {"npe": net.cpu, "refined": refined.cpu, "emcee": chain.cpu_seconds,
                "nautilus": nested.cpu_seconds},
        "calls": {"refined": better.calls, "emcee": chain.calls, "nautilus": nested.calls},
        "ess": {"emcee": chain.ess, "nautilus": nested.ess},
    }  # fmt: skip


def main():
    args = arguments(__doc__, run=True, mocks={"type": int, "default": 10},
                     real={"type": int, "default": 3}, steps={"type": int, "default": 3000},
                     live={"type": int, "default": 1000},
                     networks={"type": int, "default": 4})  # fmt: skip
    run = load_run(args.run)
    simulator, posterior = run.simulator, run.posterior
    mocks = simulator.example_observations(stream(args.seed, "samplers"), args.mocks)
    real = read_nsa(reference() / "nsa_v0_1_2_excerpt.fits")
    rows = np.linspace(50, len(real) - 50, args.real).astype(int)
    ones = [mocks[k] for k in range(len(mocks))] + [real[int(k)] for k in rows]
    found = []
    for one in ones:
        r = compare(simulator, posterior, one, args)
        found.append(r)
        print(f"{r['id']}: refined by {r['method']}, calls {r['calls']}, ess {r['ess']}")
        for k in ("npe", "refined", "emcee"):
            shift, width = np.abs(r[k]["shift"]), r[k]["width"]
            print(
                f"    {k:>8} - nautilus: |shift| {shift.mean():.2f} (max {shift.max():.2f}) sd, "
                f"width {np.min(width):.2f}-{np.max(width):.2f}, C2ST {r[k]['c2st']:.2f}"
            )
        print("    processor seconds:", {k: round(v, 2) for k, v in r["cpu"].items()}, flush=True)
    training = run.report["training"]["seconds"] + run.report["timing"]["simulate_s"]
    per = {k: float(np.median([r["cpu"][k] for r in found])) for k in found[0]["cpu"]}
    even = {k: training / (per[k] - per["npe"]) for k in ("emcee", "nautilus")}
    print("median processor seconds per galaxy:", per, "break-even galaxies (training wall):", even)
    write(args, {"galaxies": found, "cpu_per_galaxy": per, "break_even": even})


if __name__ == "__main__":
    main()
