"""Combiners against the exact posteriors of four hierarchies, one table for all.

    python benchmarks/combiners/ruler.py --rules simulated-moments gaussian --json out.json

Models: linear Gaussian and gamma-Poisson (:mod:`exact_models`), supernovae and mean plus scatter
(:mod:`hierarchy`). Of each, one network is trained on single objects with truths from the prior;
every rule that learns does so from the same simulated groups. Networks, rules and exact moments are
stored in ``--work`` and used again: delete a folder there to train anew. Test groups have truths
from the prior; smaller N are the first objects of a group.

Columns: z-rms; the same with the truth averaged over the exact posterior, which has less noise by
far (1 for the exact posterior); rms of (mean - exact mean) / exact sd; sd / exact sd, mean and
median; groups that the rule refused, which count as failures; CPU seconds per group without those
of the network, which has a row at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from exact_models import Counts, Linear
from hierarchy import F64, Scatter, Supernovae

import sbi_core
from sbi_core import Observations, Simulator
from sbi_core.combiners.moments import object_moments, truth_of
from sbi_core.components import Combiner, Training
from sbi_core.estimators import load_estimator
from sbi_core.posterior import Posterior
from sbi_core.rng import stream
from sbi_core.training.config import TrainConfig

MODELS = {m.name: m for m in (Linear(), Counts(), Supernovae(), Scatter())}
SPREAD = 1.25  # of the truths of groups that a rule learns from, as in runs


def groups(
    model: Simulator, count: int, size: int, seed: int, spread: float = 1.0
) -> Iterator[Observations]:
    """Simulated groups; truths N(0, spread^2) in unconstrained space."""
    space = model.parameters.select("global")
    for k in range(count):
        rng = stream(seed, model.name, "group", k)
        theta = model.parameters.sample(size, rng)
        z = spread * rng.standard_normal((1, space.z_dim))
        theta[:, : space.dim] = space.from_unconstrained(z)
        batch = model.observe(model.simulate(theta, rng), rng)
        yield Observations.from_batch(batch, truth_names=model.parameters.names)


def network(model: Simulator, options: argparse.Namespace) -> Posterior:
    """The network of single objects; trained if it is not stored."""
    folder = Path(options.work) / model.name / "network"
    if not folder.exists():
        space = model.parameters.select("global")
        estimator = sbi_core.get_estimator("mixture")
        training = Training(
            batch=model.draw(options.simulations, stream(options.seed, model.name, "simulate")),
            space=space,
            columns=tuple(model.parameters.index(list(space.names))),
            observe=model.observe,
            config=TrainConfig(epochs=options.epochs, batch_size=1024),
            seed=options.seed,
        )
        record = estimator.fit(training, sbi_core.get_embedding("identity"))
        print(f"{model.name}: network {record.seconds:.0f} s, test loss {record.test_nll:.4f}")
        estimator.save(folder)
    return Posterior(load_estimator(folder))


def prepared(
    name: str, model: Simulator, posterior: Posterior, options: argparse.Namespace
) -> Combiner:
    """A combiner; it learns if what it learned is not stored."""
    folder = Path(options.work) / model.name / name
    count, size = options.learn
    first = sbi_core.get_combiner(name)
    sizes = {"groups": count, "max_objects": size}
    known = {k: v for k, v in sizes.items() if k in type(first.config).model_fields}
    rule = sbi_core.get_combiner(name, **{**known, **options.options.get(name, {})})
    rule.attach(model)
    if folder.exists():
        rule.restore(folder)
    elif rule.groups_needed:
        start = time.process_time()
        data = groups(model, rule.groups_needed, rule.group_size, options.seed + 1, SPREAD)
        facts = rule.prepare(posterior, data, seed=options.seed)
        print(f"{model.name}: {name} {time.process_time() - start:.0f} CPU s, {dict(facts)}")
        rule.save(folder)
    return rule


def exact(
    model: Simulator, number: int, group: Observations, options: argparse.Namespace
) -> tuple[F64, F64] | None:
    """Exact mean and covariance of a group; None where they were not found."""
    name = f"{options.seed}-{number}-{len(group)}-of-{max(options.sizes)}.npz"
    file = Path(options.work) / model.name / "exact" / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            mean, cov = model.joint(group.batch)  # type: ignore[attr-defined]
        except ArithmeticError:
            return None
        np.savez(file, mean=mean, cov=cov)
    with np.load(file) as f:
        return f["mean"], f["cov"]


def measure(model: Simulator, options: argparse.Namespace) -> list[dict]:
    """Combine groups by every rule; return and print a row per rule and N."""
    posterior = network(model, options)
    rules = {name: prepared(name, model, posterior, options) for name in options.rules}
    space = model.parameters.select("global")
    names = ("exact", *rules, "network")
    kept: dict[tuple[str, int], list] = {(r, n): [] for r in names for n in options.sizes}
    refused, seconds = dict.fromkeys(kept, 0), dict.fromkeys(kept, 0.0)
    data = groups(model, options.groups, max(options.sizes), options.seed + 2)
    for k, group in enumerate(data):
        truth = truth_of(group, space)
        for n in options.sizes:
            want = exact(model, k, group[:n], options)
            if want is None:
                refused["exact", n] += 1
                continue
            kept["exact", n].append((*want, *want, truth))
            start = time.process_time()
            object_moments(posterior, group[:n])
            seconds["network", n] += time.process_time() - start
            for name, rule in rules.items():
                slow = name in options.slow
                if slow and (k >= options.slow_groups or n > options.slow_largest):
                    continue
                start = time.process_time()
                try:
                    got = rule.combine(posterior, group[:n], rng=k)
                except sbi_core.SbiError:
                    refused[name, n] += 1
                    continue
                finally:
                    seconds[name, n] += time.process_time() - start
                kept[name, n].append((got.z_mean, got.z_cov, *want, truth))
    print(
        f"\n{model.name}\n{'rule':<14}{'N':>6}{'groups':>8}{'refused':>9}{'z-rms':>8}"
        f"{'averaged':>10}{'largest':>9}{'mean off':>10}{'sd ratio':>10}{'median':>8}{'s each':>9}"
    )
    record = []
    for (name, n), rows in kept.items():
        tried = len(rows) + refused[name, n]
        if name == "network":
            tried = len(kept["exact", n])
            print(f"{name:<14}{n:>6}{tried:>8}{seconds[name, n] / max(tried, 1):>74.4f}")
            continue
        entry = {"model": model.name, "rule": name, "n": n, "groups": tried}
        entry |= {"refused": refused[name, n], "seconds": seconds[name, n] / max(tried, 1)}
        if rows:
            entry |= statistics(*(np.array(column) for column in zip(*rows, strict=True)))
            print(
                f"{name:<14}{n:>6}{tried:>8}{entry['refused']:>9}{entry['z_rms']:>8.2f}"
                f"{entry['z_rms_averaged']:>10.3f}{entry['largest_z']:>9.1f}"
                f"{entry['mean_off_rms']:>10.3f}{entry['sd_ratio']:>10.3f}"
                f"{entry['sd_ratio_median']:>8.3f}{entry['seconds']:>9.4f}"
            )
        elif tried:
            print(f"{name:<14}{n:>6}{tried:>8}{entry['refused']:>9}")
        if tried:
            record.append(entry)
    return record


def statistics(mean: F64, cov: F64, exact_mean: F64, exact_cov: F64, truth: F64) -> dict:
    """The numbers of the module, of groups (g, d) and (g, d, d)."""
    own, sd = (np.sqrt(np.einsum("gii->gi", c)) for c in (cov, exact_cov))
    z, off = (truth - mean) / own, (mean - exact_mean) / sd
    each = np.sqrt((z**2).mean(0))
    averaged = np.sqrt(((sd / own) ** 2 * (1 + off**2)).mean(0))
    return {
        "z_rms": float(np.sqrt((z**2).mean())),
        "z_rms_each": each.tolist(),
        "z_rms_averaged": float(np.sqrt((averaged**2).mean())),
        "z_rms_averaged_each": averaged.tolist(),
        "largest_z": float(np.abs(z).max()),
        "mean_off_rms": float(np.sqrt((off**2).mean())),
        "sd_ratio": float((own / sd).mean()),
        "sd_ratio_each": (own / sd).mean(0).tolist(),
        "sd_ratio_median": float(np.median(own / sd)),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="runs/ruler")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rules", nargs="+", default=["simulated-moments", "gaussian"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--slow", nargs="+", default=["likelihood", "product", "score"])
    parser.add_argument("--slow-groups", type=int, default=20)
    parser.add_argument("--slow-largest", type=int, default=1000)
    parser.add_argument("--simulations", type=int, default=300_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learn", type=int, nargs=2, default=(1000, 1000), metavar=("GROUPS", "N"))
    parser.add_argument(
        "--options", type=json.loads, default={}, metavar="JSON", help="of rules, by name"
    )
    parser.add_argument("--again", nargs="+", default=[], help="rules that learn anew, or network")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = []
    for name in options.models:
        for part in options.again:
            shutil.rmtree(Path(options.work) / name / part, ignore_errors=True)
        record += measure(MODELS[name], options)
        if options.json:
            Path(options.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
