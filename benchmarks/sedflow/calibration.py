"""Is the posterior of a trained run calibrated and sharp, whatever bands are missing?

Fresh mock galaxies: SBC p-values and 68 % coverage of all parameters and derived quantities, TARP,
median chi-squared of draws over that of the truth, importance efficiency; for complete photometry
and for galaxies without F, without F and N, without u, with ugriz only and with gri only, or with
the bands that are named.

    python benchmarks/sedflow/calibration.py runs/sedflow-standard --out calibration.json
    python benchmarks/sedflow/calibration.py runs/legacy --masks g,r,z,W1,W2 g,r,z r

With ``--certify N``, instead: the test that ``sbi-run infer`` makes for every pattern of a
catalogue (1600 mock galaxies of the whole prior), for the N commonest patterns of the training set
and for --masks, as a table. A pattern that fails has the flag MASK_NOT_CERTIFIED.

    python benchmarks/sedflow/calibration.py runs/legacy --certify 24 --masks g,r,z r
"""

from __future__ import annotations

import numpy as np
import torch
from common import Clock, arguments, write

from sbi_core import Observations, diagnostics, load_run, stream
from sbi_sedflow.calibration import calibrate
from sbi_sedflow.certify import Masks
from sbi_sedflow.luptitudes import flux_of
from sbi_sedflow.masks import PATTERNS


def mocks(simulator, n, pattern, seed):
    """Return n observed galaxies of the prior with 11 < r < 19.5 (observed) and given bands."""
    rng = stream(seed, "benchmark", "mocks")
    generator = torch.Generator().manual_seed(seed)
    parts, found = [], 0
    while found < n:
        batch = simulator.draw(2 * n, rng).succeeded
        flux = flux_of(batch.x, simulator.bands.softening)
        sigma = simulator.noise.sigma(flux, generator)
        everything = torch.ones_like(flux, dtype=torch.bool)
        seen = simulator._observed(batch, flux, sigma, everything, generator)
        level = seen.x[:, simulator.bands.reference]
        seen = seen[(level > 11) & (level < 19.5)]
        parts.append(seen)
        found += len(seen)
    batch = type(parts[0]).cat(parts)[:n].to("cpu", torch.float32)
    chosen = [b in pattern.split(",") for b in simulator.bands.names]
    mask = torch.tensor(PATTERNS.get(pattern, chosen), dtype=torch.bool).expand(n, -1)
    nan = torch.tensor(torch.nan)
    return batch.with_(
        x=torch.where(mask, batch.x, nan), x_err=torch.where(mask, batch.x_err, nan), mask=mask
    )


def measure(simulator, posterior, batch, draws, seed):
    truth = batch.theta.double().numpy()
    observations = Observations.from_batch(batch)
    with Clock() as clock:
        samples = posterior.sample(observations, draws, seed=seed).values
    rng = stream(seed, "benchmark", "ties")
    ranks = diagnostics.sbc_ranks(samples, truth, rng)
    found = calibrate(simulator, posterior, batch, seed, draws=min(draws, 400))
    p = dict(zip(posterior.space.names, diagnostics.sbc_uniformity(ranks, draws), strict=True))
    inside = diagnostics.coverage_central(ranks, draws, (0.68,))[0]
    coverage = dict(zip(posterior.space.names, inside, strict=True))
    tarp = diagnostics.tarp(samples, truth, stream(seed, "benchmark", "tarp"))
    return {
        "sbc_p": {**p, **found.p_values},
        "coverage_68": {**coverage, **found.coverage},
        "tarp_max_deviation": tarp.max_deviation,
        "tarp_p": tarp.p,
        "ppc_ratio": found.ppc_ratio,
        "chi2_truth": found.chi2_truth,
        "is_efficiency": np.percentile(found.efficiency, [16, 50, 84]).tolist(),
        "draws_per_core_second": len(batch) * draws / clock.cpu,
    }


def certify(simulator, posterior, n, named):
    """Print and return the certificate of the n commonest patterns and of the named ones."""
    names = simulator.bands.names
    drawn = simulator.masks(200_000, torch.Generator().manual_seed(1)).numpy()
    patterns, counts = np.unique(drawn, axis=0, return_counts=True)
    common = [tuple(p) for p in patterns[np.argsort(-counts, kind="stable")] if p.any()][:n]
    wanted = [tuple(PATTERNS[m]) if m in PATTERNS and len(names) == 7
              else tuple(b in m.split(",") for b in names) for m in named]  # fmt: skip
    chosen = dict.fromkeys(tuple(bool(v) for v in p) for p in (*common, *wanted))
    masks, rows = Masks(simulator, posterior), []
    print("| bands | of the training set | smallest SBC p (limit 0.01 / 18) | 68 % intervals | |")
    print("|---|---|---|---|---|")
    with Clock() as clock:
        for key in sorted(chosen, key=lambda k: (-sum(k), [not v for v in k])):
            check = masks(np.array(key))
            verdict = "certified" if check.certified else "flagged"
            p = "not tested" if np.isnan(check.p) else f"{check.p:.2g} ({check.quantity})"
            cover = "" if np.isnan(check.coverage) else f"{100 * check.coverage:.1f} %"
            bands = masks.name(np.array(key))
            print(
                f"| {bands} | {100 * check.share:.2f} % | {p} | {cover} | {verdict} |", flush=True
            )
            rows.append({"bands": bands, "share": check.share, "p": check.p, "verdict": verdict,
                         "quantity": check.quantity, "coverage": check.coverage})  # fmt: skip
    good = sum(r["verdict"] == "certified" for r in rows)
    print(f"{good} of {len(rows)} certified; {clock.cpu / len(rows):.1f} processor s each")
    return rows


def main():
    args = arguments(
        __doc__,
        run=True,
        objects={"type": int, "default": 1000},
        draws={"type": int, "default": 1000},
        masks={"nargs": "+", "default": list(PATTERNS)},
        certify={"type": int, "default": 0, "metavar": "N"},
    )
    run = load_run(args.run)
    simulator, posterior = run.simulator, run.posterior
    if args.certify:
        write(args, certify(simulator, posterior, args.certify, args.masks))
        return
    n = 200 if args.quick else args.objects
    numbers = {}
    for pattern in args.masks:
        batch = mocks(simulator, n, pattern, args.seed)
        m = numbers[pattern] = measure(simulator, posterior, batch, args.draws, args.seed)
        worst = min(m["sbc_p"], key=m["sbc_p"].get)
        plain = {k: v for k, v in m["sbc_p"].items() if k != "log_likelihood"}
        cover = [v for k, v in m["coverage_68"].items() if k != "log_likelihood"]
        low, mid, high = m["is_efficiency"]
        print(
            f"{pattern:>9}: worst SBC p {min(plain.values()):.3g} (all: {worst} "
            f"{m['sbc_p'][worst]:.2g}), 68 % coverage {min(cover):.3f}-{max(cover):.3f}, TARP "
            f"{m['tarp_max_deviation']:.3f} (p {m['tarp_p']:.2g}), PPC ratio {m['ppc_ratio']:.2f},"
            f" IS efficiency {mid:.3f} ({low:.3f}-{high:.3f}), "
            f"{m['draws_per_core_second']:.0f} draws/s",
            flush=True,
        )
    first = numbers[args.masks[0]]
    for name, p in first["sbc_p"].items():
        c = first["coverage_68"][name]
        print(f"    {name:<15} SBC p {p:.3g}   68 % coverage {c:.3f}")
    write(args, numbers)


if __name__ == "__main__":
    main()
