"""Stage ``combine``: one posterior of the shared parameters per group, for growing N."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from sbi_core.combiners.remedies import error_floor, power_posterior
from sbi_core.components import Combiner
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import Verdict, fit_error_law
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.group_calibration import calibrate_groups
from sbi_core.pipeline.groups import SimulatedGroups
from sbi_core.pipeline.model_check import check_model, reference_objects
from sbi_core.posterior import CombinedPosterior
from sbi_core.progress import Progress
from sbi_core.rng import stream
from sbi_core.simulate.store import single_thread

__all__ = ["combine_groups", "execute", "prepared", "shared_truth"]


def shared_truth(observations: Observations, names: tuple[str, ...]) -> dict[str, float]:
    """Return the true values that all objects of a mock share."""
    truth = observations.truth or {}
    return {
        name: float(truth[name][0])
        for name in names
        if name in truth and len(truth[name]) and np.ptp(truth[name]) == 0
    }


def combine_groups(
    context: Context, observations: Observations, combiners: Sequence[Combiner]
) -> list[tuple[str, Mapping[str, float], CombinedPosterior]]:
    """Combine every group with every combiner at every size: (group, truth, result)."""
    section = context.config.combine
    results: list[tuple[str, Mapping[str, float], CombinedPosterior]] = []
    for group, rows in observations.groups.items():
        part = observations[rows]
        sizes = sorted({n for n in section.sizes if n < len(part)} | {len(part)})
        for combiner in combiners:
            rng = stream(context.config.seed, "combine", group, combiner.name)
            subsets = [slice(0, n) for n in sizes]
            combined = combiner.combine_subsets(context.posterior, part, subsets, rng=rng)
            truth = shared_truth(part, combined[0].names)
            results += [(group, truth, c) for c in combined]
            context.progress.advance()
    return results


def execute(context: Context) -> dict[str, Any]:
    """Combine and write combined.ecsv; nothing to do without shared parameters."""
    if not any(p.scope == "global" for p in context.space.parameters):
        return {}
    observations, section = context.observations, context.config.combine
    names = dict.fromkeys([context.config.combiner.name, *context.config.combine.compare])
    combiners = [prepared(context, context.combiner(name)) for name in names]
    context.progress.start("combine", len(observations.groups) * len(combiners), "groups")
    results = combine_groups(context, observations, combiners)
    _table(results).write(context.directory.combined, format="ascii.ecsv", overwrite=True)
    samples = {f"{g}/{c.combiner}": c.samples for g, _, c in results}  # the largest N comes last
    np.savez_compressed(context.directory.combined_samples, **samples)  # type: ignore[arg-type]
    last = next(c for _, _, c in reversed(results) if c.combiner == context.config.combiner.name)
    context.progress.finish(repr(last))
    several = len(observations.groups) > 1
    combined = []
    for group, truth, result in results:
        entry = result.summary(truth)
        if result.flags:
            entry["flags"] = list(result.flags)
        combined.append({"group": group, **entry} if several else entry)
    facts = _calibration(context, combiners[0])
    if section.remedies:
        combined += _remedied(context, results, facts.get("combined_calibration", []), several)
    verdicts = facts.setdefault("verdicts", [])
    facts["misspecification"] = _check(context, observations, results, verdicts, several)
    flags = sorted({f for _, _, c in results for f in c.flags if f != "comparison_only"})
    if len(observations) == 1:
        flags.append("single_object")
    checked = verdicts[len(verdicts) - len(facts["misspecification"]) :]
    if any(level != "pass" for level, _ in checked):
        flags.append("unlike_the_simulator")
    return {"combined": combined, "flags": flags, **facts}


def _of_main(
    context: Context, results: Sequence[tuple[str, Mapping[str, float], CombinedPosterior]]
) -> Iterator[tuple[str, Mapping[str, float], CombinedPosterior]]:
    """Yield the results of the run's combiner."""
    name = context.config.combiner.name
    return ((g, truth, c) for g, truth, c in results if c.combiner == name)


def _remedied(
    context: Context,
    results: Sequence[tuple[str, Mapping[str, float], CombinedPosterior]],
    calibration: Sequence[Mapping[str, Any]],
    several: bool,  # noqa: FBT001
) -> list[dict[str, Any]]:
    """Return entries of the run's combiner with error floor and as power posterior."""
    f = None
    if calibration:
        n, z, repeats = (
            np.array([entry[key] for entry in calibration]) for key in ("n", "z_rms", "repeats")
        )
        f = fit_error_law(n, z, repeats * len(results[0][2].z_mean)).f
    entries = []
    for group, truth, c in _of_main(context, results):
        rng = stream(context.config.seed, "remedies", group, c.n)
        remedied = [power_posterior(c, rng=rng)]
        if f is not None:
            remedied.insert(0, error_floor(c, f, rng=rng))
        for result in remedied:
            if result is not None:
                entry = result.summary(truth)
                entries.append({"group": group, **entry} if several else entry)
    return sorted(entries, key=lambda e: str(e["combiner"]), reverse=True)  # tau first


def _check(
    context: Context,
    observations: Observations,
    results: Sequence[tuple[str, Mapping[str, float], CombinedPosterior]],
    verdicts: list[list[str]],
    several: bool,  # noqa: FBT001
) -> list[dict[str, Any]]:
    """Compare every group with simulated objects, when asked for."""
    if not context.config.combine.reference:
        return []
    entries = []
    largest = {group: c for group, _, c in _of_main(context, results)}  # the largest comes last
    for group, combined in largest.items():
        part = observations[observations.groups[group]]
        reference = reference_objects(
            context.simulator,
            combined,
            part.batch,
            context.config.combine.reference,
            context.config.seed,
        )
        found = check_model(context.posterior, combined, part, reference)
        if found is None:
            continue
        entry, verdict = found
        name = f"Group '{group}': " if several else ""
        verdicts.append([verdict.level, name + verdict.sentence])
        entries.append({"group": group, **entry} if several else entry)
    return entries


def prepared(context: Context, combiner: Combiner) -> Combiner:
    """Return the combiner after it learned from simulated groups, where it needs to."""
    if not combiner.groups_needed:
        return combiner
    owner = "" if combiner.name == context.config.combiner.name else combiner.name
    groups = SimulatedGroups(
        context, "correction", combiner.groups_needed, combiner.group_size, owner
    )
    groups.simulate()
    context.progress.start("correct", len(groups), "groups")
    with single_thread():
        facts = combiner.prepare(
            context.posterior, _counted(groups, context.progress), seed=context.config.seed
        )
    numbers = ", ".join(f"{k} {v:.3g}" for k, v in facts.items())
    context.progress.finish(f"{combiner.name}: {numbers}")
    combiner.save(context.directory.combiner(combiner.name))
    return combiner


def _counted(groups: Iterable[Observations], progress: Progress) -> Iterator[Observations]:
    for group in groups:
        yield group
        progress.advance()


def _calibration(context: Context, combiner: Combiner) -> dict[str, Any]:
    """Test the combination on simulated groups, when asked for."""
    if not context.config.combine.calibration_groups:
        return {}
    verdicts: list[Verdict] = []
    entries = calibrate_groups(context, combiner, verdicts)
    return {
        "combined_calibration": entries,
        "verdicts": [[v.level, v.sentence] for v in verdicts],
    }


def _table(results: list[tuple[str, Mapping[str, float], CombinedPosterior]]) -> Table:
    rows = []
    for group, truth, c in results:
        row: dict[str, Any] = {"group": group, "combiner": c.combiner, "n": c.n}
        for k, name in enumerate(c.names):
            row |= {f"{name}_mean": c.mean[k], f"{name}_sd": c.sd[k]}
            row[f"true_{name}"] = truth.get(name, np.nan)
        row["consistency_chi2"] = c.diagnostics.get("consistency_chi2", np.nan)
        row["consistency_p"] = c.diagnostics.get("consistency_p", np.nan)
        row["flags"] = ",".join(c.flags)
        rows.append(row)
    table = Table(rows)
    space = results[0][2].space
    for name, unit in zip(space.names, space.units, strict=True):
        for column in (f"{name}_mean", f"{name}_sd", f"true_{name}"):
            table[column].unit = unit or None
    return table
