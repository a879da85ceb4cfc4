"""The rows of the NASA-Sloan Atlas in the reference data, with a trained run.

All galaxies: time per galaxy, flags, draws outside the prior, failures, smallest chi-squared, and
surviving masses against the catalogue's own (kcorrect, Chabrier IMF; MASS / h^2, h = 0.7). The
fluxes that kcorrect gives the same galaxies (RNMGY; its templates have emission lines) are held to
the same chi-squared: where they do not fit either, the photometry is odd rather than the model.

    SBI_DATA_DIR=... python benchmarks/sedflow/nsa.py runs/sedflow-standard --out nsa.json
"""

from __future__ import annotations

import numpy as np
import torch
from astropy.table import Table
from common import Clock, arguments, reference, write
from scipy import stats

from sbi_core import PosteriorSamples, load_run
from sbi_sedflow import read_nsa
from sbi_sedflow.analysis import SedflowAnalysis, SedflowAnalysisConfig
from sbi_sedflow.flags import FLAGGED, Flag, count_flags
from sbi_sedflow.likelihood import Galaxies, chi_squared

PAPER = 33_884  # galaxies of Hahn & Melchior 2022


def main():
    args = arguments(__doc__, run=True, draws={"type": int, "default": 1000},
                     refine={"default": "flagged"},
                     limit={"type": int, "default": 40_000})  # fmt: skip
    run = load_run(args.run)
    simulator, posterior = run.simulator, run.posterior
    file = reference() / "nsa_v0_1_2_excerpt.fits"
    observations = read_nsa(file)
    for note in (*observations.notes, *observations.reasons):
        print(note)
    if args.quick:
        observations = observations[:200]
    with Clock() as alone:
        posterior.sample(observations, args.draws)
    analysis = SedflowAnalysis(SedflowAnalysisConfig(refine=args.refine, limit=args.limit))
    analysis.attach(simulator)
    with Clock() as clock:
        parts = []
        for start in range(0, len(observations), analysis.chunk):
            objects = observations[start : start + analysis.chunk]
            drawn = posterior.sample(objects, args.draws, seed=args.seed)
            parts.append(analysis.describe(posterior, objects, drawn, args.seed))
        samples = PosteriorSamples.cat(parts)
    theta = samples.values.reshape(-1, 12)
    outside = int((~posterior.space.inside(theta)).sum())
    broken = int((~np.isfinite(samples.values)).any((0, 2)).sum())
    summary = samples.summary()
    n = len(observations)
    print(f"{n} galaxies, {args.draws} draws: network {1e3 * alone.cpu / n:.2f} ms, all with "
          f"checks, derived quantities and refinement {1e3 * clock.cpu / n:.1f} ms of processor "
          f"time each; extrapolated to {PAPER}: {alone.cpu / n * PAPER / 60:.1f} and "
          f"{clock.cpu / n * PAPER / 60:.1f} core minutes")  # fmt: skip
    flags = samples.columns["flag_bits"]
    flagged = float(((flags & int(FLAGGED)) != 0).mean())
    print("flags:", count_flags(flags), f"flagged: {100 * flagged:.2f} %")
    print(f"draws outside the prior: {outside}; galaxies with values that are not finite: {broken}")
    chi2 = samples.columns["chi2_min"]
    eff = samples.columns["is_eff"]
    print(f"smallest chi-squared: median {np.median(chi2):.2f}; importance efficiency: median "
          f"{np.median(eff):.4f}, 16-84 % {np.percentile(eff, [16, 84]).round(4)}")  # fmt: skip
    mine = np.asarray(summary["logmsurv_p50"])
    formed = np.asarray(summary["logmstar_p50"])
    mass = observations.labels["nsa_mass"]
    good = (mass > 0) & (flags & int(FLAGGED) == 0)
    off = (mine - np.log10(np.where(mass > 0, mass, 1.0)))[good]
    print(f"log M_surv - log MASS/h^2: median {np.median(off):+.3f}, scatter (68 %) "
          f"{np.ptp(np.percentile(off, [16, 84])) / 2:.3f} dex of {good.sum()} galaxies; formed - "
          f"surviving {np.median(formed - mine):.3f} dex")  # fmt: skip
    atlas = kcorrect_misfits(file, observations, simulator.floor)
    bad = (flags & int(Flag.BAD_FIT)) != 0
    numbers = {
        "kcorrect_bad_fit": int(atlas.sum()),
        "kcorrect_bad_fit_of_bad": float(atlas[bad].mean()),
        "kcorrect_bad_fit_of_others": float(atlas[~bad].mean()),
        "galaxies": n, "ms_network": 1e3 * alone.cpu / n, "ms_all": 1e3 * clock.cpu / n,
        "flags": count_flags(flags), "flagged": flagged, "outside": outside, "broken": broken,
        "chi2_min_median": float(np.median(chi2)), "is_efficiency_median": float(np.median(eff)),
        "mass_offset": float(np.median(off)),
        "mass_scatter": float(np.ptp(np.percentile(off, [16, 84])) / 2),
    }  # fmt: skip
    print(f"kcorrect does not fit {numbers['kcorrect_bad_fit']} galaxies by the same criterion: "
          f"{100 * numbers['kcorrect_bad_fit_of_bad']:.0f} % of the {bad.sum()} with BAD_FIT, "
          f"{100 * numbers['kcorrect_bad_fit_of_others']:.1f} % of the others")  # fmt: skip
    write(args, numbers)


def kcorrect_misfits(file, observations, floor):
    """Return whether the atlas's own fit of observed galaxies is rejected at p < 0.001, (n,)."""
    atlas = Table.read(file)
    row = {str(number): k for k, number in enumerate(atlas["NSAID"])}
    fitted = np.asarray(atlas["RNMGY"], float)[[row[str(i)] for i in observations.id]]
    galaxies = Galaxies.of(observations)
    chi2 = chi_squared(torch.as_tensor(fitted)[None], galaxies, floor)[0]
    bands = galaxies.mask.sum(1).numpy()
    return stats.chi2.sf(chi2, np.maximum(bands, 1)) < 1e-3


if __name__ == "__main__":
    main()
