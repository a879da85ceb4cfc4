"""Exact posteriors of quiescent and star-forming mocks under several priors of the history.

The mocks of ``quiescent.py``, at z = 0.05. The posterior is that of importance weights: of many
simulations of a prior, each scaled to the mass that fits the fluxes best (the prior of log M is
flat, and its posterior a few per cent wide at a given history). No network is involved: what is
off here is due to the prior. The form of ``sfh_prior = "ssfr"`` was chosen with --seed 11.

    python benchmarks/sedflow/priors.py --seed 3 --simulations 80000
"""

from __future__ import annotations

import numpy as np
import torch
from common import arguments, write
from quiescent import mocks

from sbi_core import stream
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.noise import floor_error
from sbi_sedflow.simulator import SedflowSimulator

REDSHIFT = 0.05
LEAST = -13.0  # log specific SFR [1/yr] that fluxes can tell from zero
PRIORS = {  # exponents of Dirichlet distributions of the bases, the oldest last
    "flat": [(1, 1, 1, 1)],
    "0.2": [(0.2, 0.2, 0.2, 0.2)],
    "0.1": [(0.1, 0.1, 0.1, 0.1)],
    "0.05": [(0.05, 0.05, 0.05, 0.05)],
    "0.1, oldest 0.3": [(0.1, 0.1, 0.1, 0.3)],
    "0.05, oldest 0.15": [(0.05, 0.05, 0.05, 0.15)],
    "0.1 0.2 1 1": [(0.1, 0.2, 1, 1)],
    "0.1 0.1 0.3 1": [(0.1, 0.1, 0.3, 1)],
    "half flat, half 0.05": [(1, 1, 1, 1), (0.05, 0.05, 0.05, 0.05)],
    "half flat, half 0.03 0.03 0.5 1": [(1, 1, 1, 1), (0.03, 0.03, 0.5, 1)],
}


class AtOneRedshift:
    """Random numbers with which ``mocks`` draws all galaxies at one redshift."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def uniform(self, low, high, n):
        drawn = self.rng.uniform(low, high, n)
        return np.full(n, REDSHIFT) if (low, high) == (0.01, 0.12) else drawn


def observed(simulator, kind, n, rng, seed):
    """Return fluxes and total errors (n, 7) of mocks, and their true quantities."""
    flux, _, truth = mocks(simulator.model, n, kind, rng)
    generator = torch.Generator().manual_seed(seed + 1)
    sigma = simulator.noise.sigma(flux, generator)
    total = torch.sqrt(sigma**2 + floor_error(flux, simulator.floor) ** 2)
    seen = flux + total * torch.randn(flux.shape, generator=generator, dtype=flux.dtype)
    error = torch.sqrt(sigma**2 + floor_error(seen.clamp_min(0), simulator.floor) ** 2)
    return seen.numpy(), error.numpy(), truth


def simulated(simulator, forms, n):
    """Return fluxes (n, 7) at log M = 10, and log sSFR over 1 Gyr, 100 Myr, and age, (n,) each."""
    rng = np.random.default_rng(7)
    theta = simulator.parameters.sample(n, stream(3, "priors"))
    parts = np.stack([rng.dirichlet(form, n) for form in forms])
    theta[:, 1:5] = parts[rng.integers(len(forms), size=n), np.arange(n)]
    theta[:, 0] = 10.0
    z = np.full(n, REDSHIFT)
    flux = np.concatenate(
        [simulator.model.photometry(part, z[: len(part)]) for part in np.array_split(theta, 20)]
    )
    derived = simulator.model.derived(theta, z)
    rates = [np.log10(np.maximum(derived[k], 1e-30)) - 10 for k in ("sfr_1gyr", "sfr_100myr")]
    return flux, *rates, derived["tage_mw"]


def posterior(seen, error, flux, rng, draws=2000):
    """Return rows of the simulations drawn by their weights, and log mass of each."""
    weight = 1 / error**2
    scale = np.maximum((flux * seen * weight).sum(1) / (flux**2 * weight).sum(1), 1e-12)
    chi2 = ((seen - scale[:, None] * flux) ** 2 * weight).sum(1)
    w = np.exp(-0.5 * (chi2 - chi2.min()))
    rows = rng.choice(len(w), draws, p=w / w.sum())
    return rows, 10 + np.log10(scale[rows])


def compare(of_mocks, bank, rng):
    """Return bias, half width and coverage of the 68 % intervals of every quantity."""
    seen, error, truth = of_mocks
    flux, rate, recent, age = bank
    found = {}
    for k in range(len(seen)):
        rows, mass = posterior(seen[k], error[k], flux, rng)
        true = {name: value[k] for name, value in truth.items() if name != "z_mw"}
        draws = dict(zip(true, (mass, mass + rate[rows], mass + recent[rows], age[rows]),
                         strict=True))  # fmt: skip
        true["ssfr_1gyr"] = max(true["sfr_1gyr"] - true["logm"], LEAST)
        draws["ssfr_1gyr"] = np.maximum(rate[rows], LEAST)
        for name, values in draws.items():
            low, middle, high = np.percentile(values, [16, 50, 84])
            row = middle - true[name], (high - low) / 2, low <= true[name] <= high
            found.setdefault(name, []).append(row)
    return {
        name: (*np.median(np.asarray(rows)[:, :2].astype(float), 0), np.mean([r[2] for r in rows]))
        for name, rows in found.items()
    }


def main():
    args = arguments(__doc__, objects={"type": int, "default": 60},
                     simulations={"type": int, "default": 80_000})  # fmt: skip
    simulator = SedflowSimulator(SedflowConfig(pixels=512))
    rng = AtOneRedshift(np.random.default_rng(args.seed))
    kinds = ("quiescent", "star-forming")
    samples = {k: observed(simulator, k, args.objects, rng, args.seed) for k in kinds}
    numbers = {}
    for name, forms in PRIORS.items():
        bank = simulated(simulator, forms, args.simulations)
        shares = np.histogram(bank[1], [-99, -14, -13, -12, -11, -10, 0])[0] / args.simulations
        print(f"{name}: log sSFR below -14, -13, -12, -11, -10, above: {shares.round(2)}")
        for kind in kinds:
            found = compare(samples[kind], bank, np.random.default_rng(args.seed))
            numbers[f"{name}; {kind}"] = found
            text = "  ".join(f"{q} {b:+.2f} w {w:.2f} in {c:.2f}" for q, (b, w, c) in found.items())
            print(f"  {kind:12s} {text}", flush=True)
    write(args, numbers)


if __name__ == "__main__":
    main()
