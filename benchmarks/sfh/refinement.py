"""Refined posteriors against exact ones of the same mocks.

    pip install -c constraints.txt emcee
    python benchmarks/sfh/refinement.py [--run RUN] [--mocks 10] [--snr 100] [--json FILE]
    python benchmarks/sfh/refinement.py --weights 300000 --snr 10

With ``--weights``: all simulations of the prior, weighted with their likelihoods, for spectra of
low signal to noise. Without: emcee, which samples Gaussian-process histories (family ``gp``, mode
``mock``) in coordinates of its own. Shifts of means are in standard deviations of the exact
posterior, widths over those of it. With RUN, a run with that prior, its own posterior is compared
in the same way.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.baselines import emcee_posterior
from sbi_sfh.config import SfhConfig
from sbi_sfh.refine import Refiner, target_of
from sbi_sfh.simulator import SfhSimulator


def compared(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and ratios of widths (d,) of draws (n, d) with respect to others."""
    sd = theirs.std(0)
    return (ours.mean(0) - theirs.mean(0)) / sd, ours.std(0) / sd


class WeightedPrior:
    """Simulations of the prior, weighted with the likelihoods of several spectra at once.

    They are made ten thousand at a time; those whose weight is less than exp(-15) of the largest
    one are forgotten.
    """

    def __init__(self, simulator: SfhSimulator, targets: list, n: int, rng) -> None:
        start = time.process_time()
        self.kept = [(np.empty((0, simulator.parameters.dim)), np.empty(0)) for _ in targets]
        for _ in range(0, n, 10_000):
            batch = simulator.draw(10_000, rng).succeeded
            theta, x = batch.theta.double().numpy(), batch.x.double().numpy()
            for k, target in enumerate(targets):
                log_l = np.concatenate([self.kept[k][1], target(x)])
                close = log_l > log_l.max() - 15.0
                both = np.concatenate([self.kept[k][0], theta])
                self.kept[k] = both[close], log_l[close]
        self.seconds = (time.process_time() - start) / len(targets)

    def __call__(self, k: int, rng) -> tuple[np.ndarray, float]:
        """Return 4000 draws (4000, d) of one posterior, and the effective number behind them."""
        theta, log_l = self.kept[k]
        weight = np.exp(log_l - log_l.max())
        weight /= weight.sum()
        return theta[rng.choice(len(weight), 4000, p=weight)], 1.0 / (weight**2).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="a trained run of family gp, mode mock")
    parser.add_argument("--mocks", type=int, default=10)
    parser.add_argument("--snr", type=float, default=100.0, help="without --run")
    parser.add_argument("--weights", type=int, help="simulations of the prior, in place of emcee")
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--burn", type=int, default=800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = sbi_core.load_run(args.run) if args.run else None
    simulator = (
        run.simulator
        if run
        else SfhSimulator(SfhConfig(family="mixture" if args.weights else "gp", snr=args.snr))
    )
    assert isinstance(simulator, SfhSimulator)
    refiner = Refiner(simulator)
    mocks = simulator.example_observations(stream(args.seed, "refinement"), args.mocks)
    targets = [target_of(simulator, mocks, k, np.zeros(10)) for k in range(args.mocks)]
    prior = args.weights and WeightedPrior(
        simulator, targets, args.weights, stream(args.seed, "refinement", "prior")
    )
    network = run.posterior.sample(mocks, 4000).values if run else None
    rows, shifts, widths = [], {}, {}
    for k in range(args.mocks):
        rng = stream(args.seed, "refinement", k)
        start = time.process_time()
        refined = refiner(targets[k], rng, particles=args.particles)
        ours = time.process_time() - start
        start = time.process_time()
        if prior:
            exact, effective = prior(k, rng)
        else:
            flux = mocks.batch.x[k].double().numpy()
            chain = emcee_posterior(simulator, flux, rng, steps=args.steps, burn=args.burn)
            exact, effective = chain.theta, 64 * chain.steps / chain.autocorrelation
        theirs = prior.seconds if prior else time.process_time() - start
        found = {"refined": refined.theta}
        if network is not None:
            found["network"] = network[:, k]
        cells = []
        for name, draws in found.items():
            shift, width = compared(draws, exact)
            shifts.setdefault(name, []).append(shift)
            widths.setdefault(name, []).append(width)
            cells += [float(np.median(np.abs(shift))), float(np.abs(shift).max()),
                      float(width.min()), float(width.max())]  # fmt: skip
        rows.append([k, *cells, refined.efficiency, refined.difference, refined.evaluations, ours,
                     theirs, effective])  # fmt: skip
        print(rows[-1], flush=True)
    names = [f"{n} {c}" for n in shifts for c in ("|shift|", "largest", "width", "to")]
    head = ["mock", *names, "efficiency", "difference", "spectra", "CPU s", "exact CPU s"]
    show("Against the exact posterior", [*head, "effective"], rows)
    numbers = {}
    for name in shifts:
        s, w = np.abs(shifts[name]).ravel(), np.ravel(widths[name])
        numbers[name] = {
            "median |shift|": float(np.median(s)), "within 0.3": float((s <= 0.3).mean()),
            "largest": float(s.max()), "median width": float(np.median(w)),
            "width 0.8-1.25": float(((w >= 0.8) & (w <= 1.25)).mean()),
        }  # fmt: skip
        show(name, list(numbers[name]), [list(numbers[name].values())])
    save(args.json, {**numbers, "rows": rows})


if __name__ == "__main__":
    main()
