"""Quiescent and star-forming mock galaxies with histories that are not sums of the bases.

Delayed exponentials, tau = 0.3 to 1.2 Gyr (quiescent) or 4 to 10 Gyr (star-forming) begun 8 to
12.5 Gyr ago, log M = 9.8 to 11.3, Z = 0.6 to 1.5 solar, tau_ISM = 0 to 0.3 (0.2 to 1), no burst.
Prints bias, coverage of 68 % intervals, the share of truths below the 84 % limit, and the share
that is flagged. No photometry tells a specific SFR of 10^-13 from one of 10^-16 per year: the rows
``ssfr`` count lower rates as 10^-13, in truth and draws.

    python benchmarks/sedflow/quiescent.py RUN [--n 150] [--masks ugriz,grz,r]
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

import sbi_core
from sbi_core import Observations
from sbi_sedflow.certify import Masks
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.derived import recent_share
from sbi_sedflow.flags import Flag
from sbi_sedflow.luptitudes import luptitude, luptitude_error
from sbi_sedflow.noise import floor_error

_LEAST = -13.0  # log specific SFR [1/yr] that fluxes can tell from zero


def mocks(model, n, kind, rng):
    """Return fluxes without noise, redshifts and true quantities."""
    quiescent = kind == "quiescent"
    z = rng.uniform(0.01, 0.12, n)
    theta = np.tile([10.0, 0.25, 0.25, 0.25, 0.25, 0.0, 5.0, 1e-3, 1e-3, 0.3, 0.1, 0.0], (n, 1))
    theta[:, 0] = rng.uniform(9.8, 11.3, n)
    theta[:, 10] = rng.uniform(0, 0.3, n) if quiescent else rng.uniform(0.2, 1.0, n)
    tau = rng.uniform(0.3, 1.2, n) if quiescent else rng.uniform(4, 10, n)
    start = rng.uniform(8, 12.5, n)
    rows, shift = model._checked(theta, z)
    history = model._history(rows, shift)
    edges = history.edges.numpy()
    t = np.maximum(start[:, None] - edges, 0) / tau[:, None]
    mass = torch.as_tensor(-np.diff(1 - (1 + t) * np.exp(-t), axis=1))
    metallicity = torch.as_tensor(0.02 * rng.uniform(0.6, 1.5, n))[:, None].expand_as(mass)
    history = replace(history, mass=mass / mass.sum(1, keepdim=True), metallicity=metallicity)
    original, model._history = model._history, lambda *_: history
    flux = model.photometry(theta, z)
    derived = model.derived(theta, z)
    model._history = original
    truth = {
        "logm": theta[:, 0],
        "sfr_1gyr": theta[:, 0] - 9 + np.log10(recent_share(history, 1.0).numpy()),
        "sfr_100myr": theta[:, 0] - 8 + np.log10(recent_share(history, 0.1).numpy()),
        "tage_mw": derived["tage_mw"],
        "z_mw": np.log10(derived["z_mw"]),
    }
    return flux, z, truth


def compare(name, draws, true):
    """Print how draws (S, n) of one quantity compare with its truth (n,)."""
    low, middle, high = np.percentile(draws, [16, 50, 84], axis=0)
    inside, below = (true >= low) & (true <= high), true <= high
    off = middle - true
    print(
        f"  {name:11s} truth {np.median(true):6.2f}  bias {np.median(off):+.2f} "
        f"scatter {np.diff(np.percentile(off, [16, 84]))[0] / 2:.2f}  "
        f"width {np.median(high - low) / 2:.2f}  68 % intervals hold {inside.mean():.2f}  "
        f"below the 84 % limit {below.mean():.2f}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=150)
    parser.add_argument("--masks", default="", help="sets of bands to certify")
    args = parser.parse_args()
    run = sbi_core.load_run(args.run)
    simulator = run.simulator
    rng = np.random.default_rng(3)
    for kind in ("quiescent", "star-forming"):
        flux, z, truth = mocks(simulator.model, args.n, kind, rng)
        generator = torch.Generator().manual_seed(4)
        sigma = simulator.noise.sigma(flux, generator)
        total = torch.sqrt(sigma**2 + floor_error(flux, simulator.floor) ** 2)
        seen = flux + total * torch.randn(flux.shape, generator=generator, dtype=flux.dtype)
        soft = simulator.bands.softening
        where = simulator.draw_context(args.n, rng)
        where[:, 0] = z
        where[:, 1] = distance_modulus(z)
        batch = sbi_core.Batch(
            x=luptitude(seen, soft).float(), x_err=luptitude_error(seen, sigma, soft).float(),
            mask=torch.ones_like(seen, dtype=torch.bool),
            context=torch.as_tensor(where, dtype=torch.float32),
        )  # fmt: skip
        objects = Observations.from_batch(batch, observables=simulator.observables)
        samples = run.infer(objects, 300)
        bits = samples.columns["flag_bits"]
        print(
            f"{kind}: {args.n} galaxies; flags "
            f"{ {f.name: round(float(((bits & f) != 0).mean()), 3) for f in Flag} }"
        )
        for name, true in truth.items():
            key = "logmstar" if name == "logm" else name
            draws = np.asarray(samples[key])
            if name.startswith(("sfr", "z_")):
                draws = np.log10(np.maximum(draws, 1e-30))
            compare(name, draws, true)
            if name.startswith("sfr"):
                draws = np.maximum(draws - np.asarray(samples["logmstar"]), _LEAST)
                compare(f"s{name}", draws, np.maximum(true - truth["logm"], _LEAST))
        for q in ("ssfr", "tage", "z"):
            ratio = samples.columns[f"prior_width_{q}"]
            print(f"  width / prior {q}: {np.percentile(ratio, [16, 50, 84]).round(2)}")
    if args.masks:
        masks = Masks(simulator, run.posterior)
        for text in args.masks.split(","):
            check = masks(np.array([b in text for b in simulator.bands.names]))
            print(
                f"  {text:8s} share {check.share:.4f} p {check.p:.2g} ({check.quantity}) "
                f"coverage {check.coverage:.3f} {'certified' if check.certified else 'NOT'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
