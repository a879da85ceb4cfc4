"""The rows of the NASA-Sloan Atlas in the reference data, with a trained run.

All galaxies: time per galaxy, flags, draws outside the prior, failures, smallest chi-squared, and
surviving masses against the catalogue's own (kcorrect, Chabrier IMF; MASS / h^2, h = 0.7).

    SBI_DATA_DIR=... python benchmarks/sedflow/nsa.py runs/sedflow-standard --out nsa.json
"""

from __future__ import annotations

import numpy as np
from common import Clock, arguments, reference, write

from sbi_core import load_run
from sbi_sedflow.catalogue import infer_chunks, summarise, summary_table, units_of
from sbi_sedflow.flags import FLAGGED, count_flags
from sbi_sedflow.nsa import read_nsa

PAPER = 33_884  # galaxies of Hahn & Melchior 2022


def main():
    args = arguments(__doc__, run=True, draws={"type": int, "default": 1000},
                     refine={"default": "flagged"},
                     limit={"type": int, "default": 40_000})  # fmt: skip
    run = load_run(args.run)
    simulator, posterior = run.simulator, run.posterior
    table = read_nsa(reference() / "nsa_v0_1_2_excerpt.fits")
    for note in table.observations.notes:
        print(note)
    parts, outside, broken = [], 0, 0
    observations = table.observations[:200] if args.quick else table.observations
    with Clock() as alone:
        posterior.sample(observations, args.draws)
    with Clock() as clock:
        for chunk in infer_chunks(
            simulator, posterior, observations, draws=args.draws, refine=args.refine,
            seed=args.seed, limit=args.limit, flags=table.flags[table.rows][: len(observations)],
        ):  # fmt: skip
            theta = chunk.values[..., :12].reshape(-1, 12)
            outside += int((~posterior.space.inside(theta)).sum())
            broken += int((~np.isfinite(chunk.values)).any((0, 2)).sum())
            parts.append(summarise(chunk))
    n = len(observations)
    print(f"{n} galaxies, {args.draws} draws: network {1e3 * alone.cpu / n:.2f} ms, all with "
          f"checks, derived quantities and refinement {1e3 * clock.cpu / n:.1f} ms of processor "
          f"time each; extrapolated to {PAPER}: {alone.cpu / n * PAPER / 60:.1f} and "
          f"{clock.cpu / n * PAPER / 60:.1f} core minutes")  # fmt: skip
    flags = np.concatenate([p["flags"] for p in parts])
    flagged = float(((flags & int(FLAGGED)) != 0).mean())
    print("flags:", count_flags(flags), f"flagged: {100 * flagged:.2f} %")
    print(f"draws outside the prior: {outside}; galaxies with values that are not finite: {broken}")
    chi2 = np.concatenate([p["chi2_min"] for p in parts])
    eff = np.concatenate([p["is_eff"] for p in parts])
    print(f"smallest chi-squared: median {np.median(chi2):.2f}; importance efficiency: median "
          f"{np.median(eff):.4f}, 16-84 % {np.percentile(eff, [16, 84]).round(4)}")  # fmt: skip
    mine = np.concatenate([p["logmsurv_p50"] for p in parts])
    formed = np.concatenate([p["logmstar_p50"] for p in parts])
    mass = table.photometry.more["mass"][table.rows][:n]
    good = (mass > 0) & (flags & int(FLAGGED) == 0)
    off = (mine - np.log10(np.where(mass > 0, mass, 1.0)))[good]
    print(f"log M_surv - log MASS/h^2: median {np.median(off):+.3f}, scatter (68 %) "
          f"{np.ptp(np.percentile(off, [16, 84])) / 2:.3f} dex of {good.sum()} galaxies; formed - "
          f"surviving {np.median(formed - mine):.3f} dex")  # fmt: skip
    numbers = {
        "galaxies": n, "ms_network": 1e3 * alone.cpu / n, "ms_all": 1e3 * clock.cpu / n,
        "flags": count_flags(flags), "flagged": flagged, "outside": outside, "broken": broken,
        "chi2_min_median": float(np.median(chi2)), "is_efficiency_median": float(np.median(eff)),
        "mass_offset": float(np.median(off)),
        "mass_scatter": float(np.ptp(np.percentile(off, [16, 84])) / 2),
    }  # fmt: skip
    if n == len(table.rows):
        summary_table(table, parts, units_of(simulator), {})
    write(args, numbers)


if __name__ == "__main__":
    main()
