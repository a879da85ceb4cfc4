"""Calibration of combined posteriors of chempy, truths drawn from the whole prior.

    sbi-run --plugin chempy --out runs/standard
    python benchmarks/combiners/calibration.py --run runs/standard --json out.json

Per number of objects N and combiner: z-rms (joint) and 68 % coverage over simulated groups that
no combiner has seen, z-rms of groups whose truth lies beyond 1.5 prior sigma, and the width
relative to ``gaussian``, for several tables (``--kinds``): errors of 0.05 dex, all elements; errors
log-uniform in 0.01-0.3 dex per element, 30 % missing; 0.01 dex, all elements; 0.002-0.02 dex, 30 %
missing; 0.02-0.2 dex, 30 % missing, and ages with errors of 1-40 % for half of the stars.
``--rules`` adds others, e.g. ``deepset``, which is trained here (some minutes).

``--slow product score likelihood likelihood-emulator`` are combined once per group at N = 1, 10,
100 and 1000 only, for as many groups as ``--slow-groups`` has (a number per N): width and mean
are also given relative to each of them, for every rule, on the same groups. ``likelihood`` runs
the simulator, ``likelihood-emulator`` the emulator of the run (its own rms error is added to the
noise). ``score`` needs a run with ``--set estimator.name=sbi-npse`` (``--score-run``); fewer steps
and draws than its defaults (``--score-options '{"steps": 100, "draws": 100, "samples": 300}'``)
bring 10 stars to a CPU second.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import sbi_core
from sbi_chempy.constants import T_END_GYR
from sbi_chempy.noise import observe_ages
from sbi_core import Batch, Observations
from sbi_core.combiners.likelihood import LikelihoodCombiner, LikelihoodConfig
from sbi_core.diagnostics import calibrate_gaussian
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream
from sbi_core.simulate.emulator import Emulator, EmulatorSimulator

SIZES = (1, 10, 100, 1000, 10_000)
SLOW_SIZES = (1, 10, 100, 1000)
# smallest and largest error in dex, missing fraction, fraction with ages
KINDS = {
    "plain": (0.05, 0.05, 0.0, 0.0),
    "heteroscedastic": (0.01, 0.3, 0.3, 0.0),
    "small": (0.01, 0.01, 0.0, 0.0),
    "smallest": (0.002, 0.02, 0.3, 0.0),
    "ages": (0.02, 0.2, 0.3, 0.5),
}


def simulated(path: Path, simulator: object, groups: int, size: int, spread: float, seed: int):  # noqa: ANN201
    """Noise-free groups, from a file if they were simulated before."""
    name = path / f"groups-{groups}x{size}-{spread}-{seed}.npz"
    if not name.exists():
        path.mkdir(parents=True, exist_ok=True)
        x, theta = [], []
        source = GroupSimulator(simulator, int(size * 1.05) + 2, spread)  # type: ignore[arg-type]
        for k in range(groups):
            batch = source.draw(source.size, stream(seed, "group", k)).succeeded[:size]
            assert batch.theta is not None
            x.append(batch.x.numpy())
            theta.append(batch.theta.numpy())
        np.savez(name, x=np.array(x, np.float32), theta=np.array(theta, np.float32))
    with np.load(name) as f:
        return f["x"], f["theta"]


def observed(data: tuple, kind: str, seed: int, simulator: object) -> Iterator[Observations]:
    """Groups with noise, missing elements and ages as in a table of ``KINDS``."""
    low, high, missing, aged = KINDS[kind]
    birth = simulator.parameters.index(["t_birth"])[0]  # type: ignore[attr-defined]
    for k, (x, theta) in enumerate(zip(*data, strict=True)):
        rng = stream(seed, "noise", k)
        err = np.exp(rng.uniform(np.log(low), np.log(high), x.shape)).astype(np.float32)
        mask = rng.random(x.shape) >= missing
        mask[np.arange(len(x)), rng.integers(x.shape[1], size=len(x))] = True
        time_, has = torch.as_tensor(theta[:, birth]), rng.random(len(x)) < aged
        error = np.exp(rng.uniform(np.log(0.01), np.log(0.4), len(x))) * (
            T_END_GYR - theta[:, birth]
        )
        noise = rng.standard_normal(len(x))
        context = observe_ages(time_, *(torch.as_tensor(v) for v in (error, has, noise)))
        noisy = x + err * rng.standard_normal(x.shape).astype(np.float32)
        batch = Batch(
            x=torch.as_tensor(np.where(mask, noisy, np.nan)),
            x_err=torch.as_tensor(np.where(mask, err, np.nan)),
            mask=torch.as_tensor(mask),
            context=context.float(),
            theta=torch.as_tensor(theta),
        )
        yield Observations.from_batch(batch, truth_names=simulator.parameters.names)  # type: ignore[attr-defined]


def main() -> None:
    """Simulate, learn, combine, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--work", default="runs/calibration")
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--size", type=int, default=10_500)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--train-size", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["plain", "heteroscedastic"])
    parser.add_argument("--slow", nargs="+", default=[])
    parser.add_argument("--slow-groups", type=int, nargs="+", default=[200, 200, 200, 20])
    parser.add_argument("--score-run")
    parser.add_argument("--score-options", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--draws", type=int, default=512, help="of likelihood")
    parser.add_argument("--total", type=int, default=8192, help="of likelihood")
    parser.add_argument(
        "--rules", nargs="+", default=["gaussian", "simulated-moments", "published"]
    )
    parser.add_argument("--simulations", type=int, default=1_000_000, help="of deepset")
    parser.add_argument("--steps", type=int, default=4000, help="of deepset")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = sbi_core.load_run(options.run)
    simulator, posterior, work = run.simulator, run.posterior, Path(options.work)
    space = posterior.space.select("global")
    columns = simulator.parameters.index(space.names)
    test = simulated(work, simulator, options.groups, options.size, 1.0, 11)
    train = simulated(work, simulator, options.train, options.train_size, 1.25, 12)
    truths = space.to_unconstrained(test[1][:, 0][:, columns])
    record = []
    for kind in options.kinds:
        rules = learned(options, kind, posterior, train, simulator)
        record += measured(kind, rules, posterior, test, truths, simulator)
        for name in options.slow:
            record += slow(options, kind, name, rules, run, test, truths)
        if options.json:
            Path(options.json).write_text(json.dumps(record, indent=1))


def learned(options, kind, posterior, train, simulator) -> dict:  # noqa: ANN001
    """The rules, those that learn after having learned; gaussian first: widths relate to it."""
    sets = {"simulations": options.simulations, "steps": options.steps, "beyond": "aggregate"}
    rules = {}
    for name in dict.fromkeys(["gaussian", *options.rules]):
        rule = sbi_core.get_combiner(name, **(sets if name == "deepset" else {}))
        rule.attach(simulator)
        if rule.groups_needed:
            start = time.process_time()
            facts = rule.prepare(posterior, observed(train, kind, 13, simulator))
            seconds = time.process_time() - start
            print(f"\n{kind}: {name} learned in {seconds:.0f} s: {dict(facts)}", flush=True)
        rules[name] = rule
    return rules


def measured(kind, rules, posterior, test, truths, simulator) -> list[dict]:  # noqa: ANN001
    """Combine the test groups by every rule: a row, also printed, per rule and N."""
    sizes = [n for n in SIZES if n <= test[0].shape[1]]
    found: dict = {(r, n): [] for r in rules for n in sizes}
    for k, group in enumerate(observed(test, kind, 14, simulator)):
        for name, rule in rules.items():
            combined = rule.combine_subsets(posterior, group, [slice(n) for n in sizes])
            for n, c in zip(sizes, combined, strict=True):
                found[name, n].append((k, c.z_mean, c.z_cov))
    print(f"{'combiner':<14}{'N':>6} {'z-rms':>7} {'68 %':>6} {'tails':>7} {'width':>6}")
    rows = []
    for name, n in found:
        group_of, mean, cov = (np.array(v) for v in zip(*found[name, n], strict=True))
        truth = truths[group_of]
        tail = (np.abs(truth) > 1.5).any(1)
        all_, far = (calibrate_gaussian(mean[w], cov[w], truth[w]) for w in (tail >= 0, tail))
        plain = np.array([c for _, _, c in found["gaussian", n]])
        width = np.sqrt(np.einsum("nii->ni", cov) / np.einsum("nii->ni", plain)).mean()
        row = {
            "kind": kind,
            "combiner": name,
            "n": n,
            "z_rms": all_.z_rms_joint,
            "coverage_68": float(all_.coverage_68.mean()),
            "z_rms_tails": far.z_rms_joint,
            "width": float(width),
        }
        rows.append(row)
        print(
            f"{name:<14}{n:>6} {row['z_rms']:>7.3f} {row['coverage_68']:>6.3f} "
            f"{row['z_rms_tails']:>7.3f} {row['width']:>6.3f}",
            flush=True,
        )
    return rows


def slow_rule(options, name: str, n: int, run) -> tuple:  # noqa: ANN001
    """Return the combiner and the posterior that it takes."""
    if name == "score":
        rule = sbi_core.get_combiner("score", **options.score_options)
        return rule, sbi_core.load_run(options.score_run).posterior
    if name == "product":
        return sbi_core.get_combiner("product"), run.posterior
    few = n >= 100
    config = LikelihoodConfig(
        draws=options.draws,
        total=options.total,
        points=3 if few else 5,
        reach=1.5 if few else 3.0,
    )
    rule = LikelihoodCombiner(config)
    model = run.simulator
    if name == "likelihood-emulator":
        emulator = Emulator.load(Path(options.run) / "emulator")
        model = EmulatorSimulator(model, emulator, carry_error=True)
    rule.attach(model)
    return rule, run.posterior


def slow(options, kind, name, rules, run, test, truths) -> list[dict]:  # noqa: ANN001
    """Calibration of one slow rule, and widths and means of the others relative to it."""
    rows = []
    for n, count in zip(SLOW_SIZES, options.slow_groups, strict=True):
        if not count:
            continue
        rule, posterior = slow_rule(options, name, n, run)
        others: dict = {other: [] for other in rules if other != "published"}
        means, covs, seconds, noise, flags = [], [], 0.0, [], 0
        data = tuple(v[:count] for v in test)
        for k, group in enumerate(observed(data, kind, 14, run.simulator)):
            start = time.process_time()
            found = rule.combine(posterior, group[:n], rng=k)
            seconds += time.process_time() - start
            sd = np.sqrt(np.diag(found.z_cov))
            noise.append(found.diagnostics.get("monte_carlo_sigma", 0.0))
            flags += bool(found.flags)
            means.append(found.z_mean)
            covs.append(found.z_cov)
            for other, values in others.items():
                c = rules[other].combine(run.posterior, group[:n])
                width = np.sqrt(np.diag(c.z_cov)) / sd
                values.append(np.concatenate([width, (c.z_mean - found.z_mean) / sd]))
        of_all = calibrate_gaussian(np.array(means), np.array(covs), truths[: len(means)])
        row = {
            "kind": kind,
            "combiner": name,
            "n": n,
            "groups": len(means),
            "z_rms": of_all.z_rms_joint,
            "coverage_68": float(of_all.coverage_68.mean()),
            "monte_carlo_sigma": float(np.mean(noise)),
            "flagged": flags,
            "cpu_seconds": seconds / len(means),
            "others": {
                other: {
                    "width": np.median(np.array(v)[:, :2], 0).tolist(),
                    "offset_rms": np.sqrt((np.array(v)[:, 2:] ** 2).mean(0)).tolist(),
                }
                for other, v in others.items()
            },
        }
        rows.append(row)
        relative = "; ".join(
            f"{other} width {v['width'][0]:.3f}/{v['width'][1]:.3f} "
            f"off {v['offset_rms'][0]:.2f}/{v['offset_rms'][1]:.2f}"
            for other, v in row["others"].items()
        )
        print(
            f"{name:<14}{n:>6} {row['z_rms']:>7.3f} {row['coverage_68']:>6.3f}  {count} groups, "
            f"{row['cpu_seconds']:.2f} CPU s each, noise {row['monte_carlo_sigma']:.2f} sd, "
            f"{flags} flagged. Relative to it: {relative}",
            flush=True,
        )
        if options.json:
            Path(options.json).with_suffix(f".{name}.json").write_text(json.dumps(rows, indent=1))
    return rows


if __name__ == "__main__":
    main()
