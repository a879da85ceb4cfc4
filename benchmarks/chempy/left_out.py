"""Error bars where the model is wrong: yields that were left out, births, zero points, outliers.

    sbi-run --plugin chempy --out runs/standard
    python benchmarks/chempy/left_out.py --run runs/standard --json out.json

Galaxies with truths from the prior are made with yields from a study that was left out of the
nuisance parameters (all tables of the study, and the scales of the factors), or by the default
yields with another distribution of births, a zero point or outliers. Stars have errors of .05 dex
in C, Fe, Mg, N, O, Si. Per case and N: z-rms, coverage of the 68 and 95 % intervals, largest |z|,
mean standard deviation of alpha_imf and log10_n_ia by ``group-moments``; with ``--fixed K`` also by
``simulated-moments`` for K galaxies. The last rows are galaxies from the simulated groups
themselves (the right model), with all six elements and with four.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_chempy.yields.embedded import EMBEDDED
from sbi_core import Batch, Observations
from sbi_core.combiners.group_moments import GroupMomentsCombiner, GroupMomentsConfig
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream
from sbi_core.simulate.nuisances import disturbed, extended

ELEMENTS = ["C", "Fe", "Mg", "N", "O", "Si"]
BASE = "iwamoto99-w7+nomoto13-net+karakas10"
OTHER = "seitenzahl13-n100+woosley95+cristallo11"
# left out: base set, true sets
CASES = {
    "limongi18": (BASE, ["limongi18-v0", "limongi18-v150", "limongi18-v300"]),
    "nomoto13-gross": (BASE, ["nomoto13-gross"]),
    "woosley95": (BASE, ["woosley95"]),
    "cristallo11": (BASE, ["cristallo11"]),
    "karakas16": (BASE, ["karakas16"]),
    "ventura13": (BASE, ["ventura13"]),
    "iwamoto99-wdd2": (BASE, ["iwamoto99-wdd2"]),
    "seitenzahl13-n100": (BASE, ["seitenzahl13-n100"]),
    "gronow21": (BASE, ["gronow21-m10-03-1"]),
    "nomoto13": (OTHER, ["nomoto13-net"]),
    "karakas10": (OTHER, ["karakas10"]),
    "iwamoto99-w7": (OTHER, ["iwamoto99-w7"]),
}
CHANGES = ("none", "born 1-4 Gyr", "Mg +.05", "Mg +.02", "outliers", "tng")
SIZES = (100, 1000)
FEWEST = 30  # stars in a range of [Fe/H]
FEW = ("fe_h", "mg_fe", "o_fe", "si_fe")  # of many surveys


def trained(simulator, posterior, options, seed: int) -> tuple[GroupMomentsCombiner, dict]:  # noqa: ANN001
    """Return the combiner that has learned from simulated groups, and what it took."""
    config = GroupMomentsConfig(
        groups=options.groups, size=options.size, epochs=options.epochs, selected=not options.fair
    )
    combiner = GroupMomentsCombiner(config)
    combiner.attach(simulator)
    start = time.process_time()
    groups = list(drawn(simulator, options.groups, options.size, seed))
    simulated = time.process_time() - start
    facts = combiner.prepare(posterior, groups, seed=seed)
    return combiner, {
        **facts,
        "simulation_s": simulated,
        "training_s": time.process_time() - start - simulated,
    }


def drawn(simulator, count: int, size: int, seed: int):  # noqa: ANN001, ANN201
    """Yield groups with nuisance parameters, half of them observed as in the tests."""
    source, names = (
        GroupSimulator(simulator, size, marginalise=True),
        extended(simulator).names,
    )
    width, per = simulator.parameters.dim, max(1, 20_000 // size)
    for first in range(0, count, per):
        rng = stream(seed, "groups", first)
        batch = source.draw(min(per, count - first) * size, rng).succeeded
        bare = batch.with_(theta=batch.theta[:, :width])
        like = simulator.observe_like(bare, plain(simulator), rng).with_(theta=batch.theta)
        other = simulator.observe(bare, rng).with_(theta=batch.theta)
        for key in torch.unique(batch.split_key):
            chosen = other if key % 2 else like
            yield Observations.from_batch(chosen[batch.split_key == key], truth_names=names)


def plain(simulator) -> Batch:  # noqa: ANN001
    """Return a star with errors of .05 dex."""
    k = len(simulator.frame.names)
    return Batch(x=torch.zeros(1, k), x_err=torch.full((1, k), 0.05), mask=torch.ones(1, k) > 0)


def galaxy(  # noqa: ANN201
    true,
    simulator,
    space,
    n: int,
    change: str,
    rng,  # noqa: ANN001
):
    """Return n stars of a true simulator, observed, and the shared parameters, unconstrained."""
    truth = rng.standard_normal(space.z_dim)
    theta = simulator.parameters.sample(int(1.1 * n) + 20, rng)
    theta[:, simulator.parameters.index(space.names)] = space.from_unconstrained(truth[None])
    if change == "born 1-4 Gyr":
        theta[:, simulator.parameters.index(["t_birth"])] = rng.uniform(1, 4, (len(theta), 1))
    stars = true.simulate(theta, rng).succeeded[:n]
    stars = stars.with_(x=stars.x[:, [true.frame.names.index(e) for e in simulator.frame.names]])
    seen = simulator.observe_like(stars, plain(simulator), rng)
    x = seen.x.clone()
    if change.startswith("Mg"):
        x[:, simulator.frame.names.index("mg_fe")] += float(change.split("+")[1])
    if change == "outliers":
        odd = torch.as_tensor(rng.random((len(x), 1)) < 0.05)
        x += torch.where(odd, torch.as_tensor(rng.standard_normal(x.shape)).float() * 0.245, 0.0)
    return Observations.from_batch(seen.with_(x=x, theta=None)), truth


def row(name: str, n: int, z: list, inside: list, sd: list, flagged: list) -> dict:  # noqa: ANN001
    """Summarise galaxies: z and sd (G, d), inside 68 and 95 % (G, 2, d), flagged (G,)."""
    z, sd = np.array(z), np.array(sd)
    held = np.array(inside).mean(0)
    found = {
        "case": name,
        "n": n,
        "galaxies": len(z),
        "z_rms": np.sqrt((z**2).mean(0)).tolist(),
        "largest": float(np.abs(z).max()),
        "coverage_68": held[0].tolist(),
        "coverage_95": held[1].tolist(),
        "sd": sd.mean(0).tolist(),
        "flagged": float(np.mean(flagged)),
    }
    numbers = "  ".join(
        f"{found[k][0]:5.2f} {found[k][1]:5.2f}"
        for k in ("z_rms", "coverage_68", "coverage_95", "sd")
    )
    print(f"{name:<34}{n:>6} {numbers} {found['largest']:5.1f} {found['flagged']:5.2f}", flush=True)
    return found


def judge(combiner, posterior, space, seen, truth, sizes) -> dict:  # noqa: ANN001
    """Return z, coverage, sd and flag of one galaxy by N."""
    found = {}
    value = space.from_unconstrained(truth[None])[0]
    for n, c in zip(
        sizes, combiner.combine_subsets(posterior, seen, [slice(n) for n in sizes]), strict=True
    ):
        ends = [np.quantile(c.samples, q, axis=0) for q in ((0.16, 0.84), (0.025, 0.975))]
        inside = [(value > low) & (value < high) for low, high in ends]
        found[n] = ((c.mean - value) / c.sd, inside, c.sd, bool(c.flags))
    return found


def measured(name, combiner, posterior, space, galaxies) -> list[dict]:  # noqa: ANN001
    """Return the rows of a case."""
    found = [judge(combiner, posterior, space, seen, truth, SIZES) for seen, truth in galaxies]
    return [
        row(name, n, *(list(v) for v in zip(*(f[n] for f in found), strict=True))) for n in SIZES
    ]


def main() -> None:
    """Simulate, train, combine, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--galaxies", type=int, default=20)
    parser.add_argument("--groups", type=int, default=8000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fixed", type=int, default=0, metavar="K")
    parser.add_argument("--fair", action="store_true", help="combiner.selected = false")
    parser.add_argument("--cases", nargs="+", default=[*CASES, "changes", "right"])
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    posterior = sbi_core.load_run(options.run).posterior
    space = posterior.space.select("global")
    record = []
    print(f"{'case':<34}{'N':>6} z-rms        68 %         95 %         sd           max   flag")
    for case in options.cases:
        base, truths = CASES.get(case, (BASE, []))
        without = case if case in CASES else None
        simulator = sbi_core.get_simulator(
            "chempy", elements=ELEMENTS, yields=base, without_yields=without
        )
        combiner, facts = trained(simulator, posterior, options, options.seed)
        print(f"# {case}: {facts}", flush=True)
        pairs = [(f"{case}: {t}", f"{base}+{t}", "none") for t in truths]
        if case == "changes":
            pairs = [(c, "tng" if c == "tng" else base, c) for c in CHANGES]
        for name, yields, change in pairs:
            parts = dict(zip(("sn1a", "sn2", "agb"), base.split("+"), strict=True))
            for channel in parts:
                if name.split(": ")[-1] in EMBEDDED[channel]:
                    parts[channel] = name.split(": ")[-1]
            # all elements: a table may lack some, whose stars keep what they had at birth
            true = sbi_core.get_simulator("chempy", yields="tng" if yields == "tng" else parts)
            rng = [stream(options.seed, "galaxy", name, k) for k in range(options.galaxies)]
            galaxies = [galaxy(true, simulator, space, max(SIZES), change, r) for r in rng]
            record += measured(name, combiner, posterior, space, galaxies)
            if options.fixed:
                record += fixed(name, simulator, posterior, space, galaxies[: options.fixed])
        if case == "right":
            record += right(combiner, simulator, posterior, space, options)
        if options.json:
            Path(options.json).write_text(json.dumps(record, indent=1))


def fixed(name, simulator, posterior, space, galaxies) -> list[dict]:  # noqa: ANN001
    """Return the rows for nominal yields."""
    rule = sbi_core.get_combiner("simulated-moments")
    rule.attach(simulator)
    return measured(f"{name} (fixed)", rule, posterior, space, galaxies)


def right(combiner, simulator, posterior, space, options) -> list[dict]:  # noqa: ANN001
    """Return the rows of groups from the prior with nuisance parameters."""
    galaxies = []
    size = int(1.05 * max(SIZES))
    source = GroupSimulator(simulator, size, marginalise=True, all_on=True)
    names, width = extended(simulator).names, simulator.parameters.dim
    columns = [names.index(n) for n in space.names]
    for k in range(5 * options.galaxies):
        rng = stream(options.seed, "right", k)
        batch = source.draw(source.size, rng).succeeded[: max(SIZES)]
        bare = batch.with_(theta=batch.theta[:, :width])
        seen = simulator.observe_like(bare, plain(simulator), rng)
        error = seen.x_err.double().numpy()
        x = disturbed(seen.x.double().numpy(), error, simulator.zero_point, rng)
        truth = space.to_unconstrained(batch.theta[:1, columns].numpy())[0]
        seen = seen.with_(x=torch.as_tensor(x).float(), theta=None)
        galaxies.append((Observations.from_batch(seen), truth))
    iron = simulator.frame.names.index("fe_h")
    cases = {
        "right model": lambda seen: seen,
        "right model: Fe Mg O Si": lambda seen: lacking(seen, simulator),
        "right model: |[Fe/H]| < 0.1": lambda seen: chosen(seen, iron, -0.1, 0.1),
        "right model: [Fe/H] < -0.5": lambda seen: chosen(seen, iron, -9.0, -0.5),
        "right model: [Fe/H] > 0": lambda seen: chosen(seen, iron, 0.0, 9.0),
        "right model: a star at -4": lambda seen: with_one(seen, iron, -4.0),
    }
    rows = []
    for name, change in cases.items():
        parts = [(change(seen), truth) for seen, truth in galaxies]
        parts = [(seen, truth) for seen, truth in parts if len(seen) >= FEWEST]
        rows += measured(name, combiner, posterior, space, parts)
    return rows


def chosen(seen: Observations, column: int, low: float, high: float) -> Observations:
    """Return the stars in a range of observed values."""
    value = seen.batch.x[:, column]
    return seen[torch.nonzero((value > low) & (value < high))[:, 0].numpy()]


def with_one(seen: Observations, column: int, value: float) -> Observations:
    """Return the stars, the first with another value."""
    x = seen.batch.x.clone()
    x[0, column] = value
    return Observations.from_batch(seen.batch.with_(x=x))


def lacking(seen: Observations, simulator) -> Observations:  # noqa: ANN001
    """Return stars without the elements that many surveys lack."""
    keep = torch.as_tensor([n in FEW for n in simulator.frame.names])
    mask = seen.batch.observed & keep
    x = torch.where(mask, seen.batch.x, torch.nan)
    return Observations.from_batch(seen.batch.with_(x=x, mask=mask))


if __name__ == "__main__":
    main()
