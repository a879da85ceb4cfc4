"""Stage ``combine``: one posterior of the shared parameters per group, for growing N."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.table import Table

from sbi_core.combiners.group_moments import GroupMomentsCombiner
from sbi_core.combiners.remedies import error_floor, power_posterior
from sbi_core.components import Combiner, InputShape
from sbi_core.data.observations import Observations, text_of
from sbi_core.data.writing import written
from sbi_core.diagnostics import Verdict, fit_error_law
from sbi_core.errors import DataFileError, RunDirectoryError
from sbi_core.files.directory import read_json, sha256_of, write_json
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.groups import SimulatedGroups, calibrate_groups, test_groups
from sbi_core.pipeline.model_check import Checked, check_group, flagged
from sbi_core.pipeline.stages import Job, StageResult
from sbi_core.posterior import UNLIKE, UNLIKE_NOMINAL, CombinedPosterior
from sbi_core.progress import Progress
from sbi_core.rng import stream

__all__ = ["Combination", "ahead", "combine_groups", "execute", "shared_truth"]


_MADE_FROM = "made-from.json"


@dataclass(frozen=True, slots=True)
class Combination:
    """One combined posterior.

    Parameters
    ----------
    truth
        True values that all objects of a mock share.
    """

    group: str
    truth: Mapping[str, float]
    posterior: CombinedPosterior

    def entry(self, *, named: bool) -> dict[str, Any]:
        """Return the entry of ``report.json``; ``named``: with the name of the group."""
        entry = self.posterior.summary(self.truth)
        return {"group": self.group, **entry} if named else entry


def ahead(context: Context, after: Stage) -> Job | None:
    """Return the simulation of groups and what can be learned by then, where there is any."""
    if not context.shares:
        return None
    rules = [context.bare_combiner(name) for name in context.combiners]
    learners = [c for c in rules if c.groups_needed]
    if after == "simulate":
        ready = all(g.present for g in _all_groups(context))
        return None if ready and not any(c.learns_alone for c in learners) else begin
    return learn if not all(c.learns_alone for c in learners) else None


def begin(context: Context) -> None:
    """Simulate all groups that the stage needs; train combiners that need no posterior."""
    for groups in _all_groups(context):
        groups.simulate()
    alone = [name for name in context.combiners if context.bare_combiner(name).learns_alone]
    _prepared(context, [context.combiner(name) for name in alone])


def learn(context: Context) -> None:
    """Let all combiners learn, and store what they learned."""
    _prepared(context, _combiners(context))


def _all_groups(context: Context) -> list[SimulatedGroups]:
    combiners = [context.bare_combiner(name) for name in context.combiners]
    groups = [_groups(context, c) for c in combiners if c.groups_needed]
    tests = [test_groups(context, c) for c in _tested(context, combiners)]
    return [*groups, *(test for test in tests if test is not None)]


def _tested(context: Context, combiners: Sequence[Combiner]) -> list[Combiner]:
    """Return the combiners that are calibrated: the run's, and that for nominal nuisances."""
    return [c for c in combiners if c.name in (combiners[0].name, context.nominal_combiner)]


def _combiners(context: Context) -> list[Combiner]:
    return [context.combiner(name) for name in context.combiners]


def execute(context: Context) -> StageResult:
    """Combine and write combined.ecsv; nothing to do without shared parameters."""
    if not context.shares:
        return StageResult()
    observations, section = context.observations, context.config.combine
    combiners = _combiners(context)
    _prepared(context, combiners)
    context.progress.start("combine", len(observations.groups) * len(combiners), "groups")
    results = combine_groups(context, observations, combiners)
    nominal = context.nominal_combiner
    outcomes = _check(
        context, observations, [r for r in results if r.posterior.combiner == nominal]
    )
    marginal = {c.name for c in combiners if c.marginalises}  # they flag what they cannot make
    results = [
        r
        if r.posterior.combiner in marginal
        else replace(r, posterior=flagged(r.posterior, outcomes[r.group]))
        for r in results
    ]
    with written(context.directory.combined) as temporary:
        temporary.write_text(text_of(_table(results), "ascii.ecsv"), encoding="utf-8")
    main = [r for r in results if r.posterior.combiner == context.config.combiner.name]
    last = main[-1].posterior
    values = zip(last.names, last.mean, last.sd, strict=True)
    numbers = ", ".join(f"{name} = {mean:.4g} +- {sd:.2g}" for name, mean, sd in values)
    first = f"{last.warning} " if last.warning else ""
    context.progress.finish(f"{first}{last.combiner}, N = {last.n}: {numbers}")
    calibration, verdicts = list[dict[str, Any]](), list[Verdict]()
    tested = [(c, test_groups(context, c)) for c in _tested(context, combiners)]
    for combiner, groups in tested:
        if groups is not None:
            entries, judged = calibrate_groups(context, combiner, groups)
            calibration, verdicts = [*calibration, *entries], [*verdicts, *judged]
    named = len(observations.groups) > 1
    combined = [r.entry(named=named) for r in results]
    if section.remedies:
        combined += [r.entry(named=named) for r in _remedied(context, main, calibration)]
    checks, checked = _entries(outcomes, named=named)
    flags = _flags(results, marginal)
    if len(observations) == 1:
        flags.append("single_object")
    facts: dict[str, Any] = {"combined": combined, "flags": flags, "misspecification": checks}
    if combiners[0].marginalises:
        facts["marginalised"] = _marginalised(combiners[0], nominal, observations, named=named)
    if calibration:
        facts["combined_calibration"] = calibration
    largest = {f"{r.group}/{r.posterior.combiner}": r.posterior.samples for r in results}
    return StageResult(facts, [*verdicts, *checked], largest)


def _flags(results: Sequence[Combination], marginal: Container[str]) -> list[str]:
    """Return the flags of all results; objects that only the nominal model does not make.

    Results with nuisance parameters hold where the nominal model fails.
    """
    flags = {f for r in results for f in r.posterior.flags if f != "comparison_only"}
    main = results[0].posterior.combiner
    own = {f for r in results for f in r.posterior.flags if r.posterior.combiner == main}
    if main in marginal and UNLIKE in flags - own:
        flags = (flags - {UNLIKE}) | {UNLIKE_NOMINAL}
    return sorted(flags)


def _marginalised(
    combiner: Combiner, nominal: str, observations: Observations, *, named: bool
) -> list[dict[str, Any]]:
    """Return the error budget of every group, and its results without each observable."""
    if not isinstance(combiner, GroupMomentsCombiner):
        return []
    entries = []
    for group, rows in observations.groups.items():
        part = observations[rows]
        budget = {k: sd.tolist() for k, sd in combiner.error_budget(part).items()}
        without = {
            name: {"mean": mean.tolist(), "sd": sd.tolist()}
            for name, (mean, sd) in combiner.leave_one_out(part).items()
        }
        entry = {"nominal": nominal, "budget": budget, "without": without}
        entries.append({"group": group, **entry} if named else entry)
    return entries


def combine_groups(
    context: Context, observations: Observations, combiners: Sequence[Combiner]
) -> list[Combination]:
    """Combine every group with every combiner at every size; the largest size comes last."""
    section = context.config.combine
    results: list[Combination] = []
    for group, rows in observations.groups.items():
        part = observations[rows]
        sizes = sorted({n for n in section.sizes if n < len(part)} | {len(part)})
        for combiner in combiners:
            rng = stream(context.config.seed, "combine", group, combiner.name)
            subsets = [slice(0, n) for n in sizes]
            combined = combiner.combine_subsets(context.posterior, part, subsets, rng=rng)
            truth = shared_truth(part, combined[0].names)
            results += [Combination(group, truth, c) for c in combined]
            context.progress.advance()
    return results


def shared_truth(observations: Observations, names: tuple[str, ...]) -> dict[str, float]:
    """Return the true values that all objects of a mock share."""
    truth = observations.truth or {}
    return {
        name: float(truth[name][0])
        for name in names
        if name in truth and len(truth[name]) and np.ptp(truth[name]) == 0
    }


def _remedied(
    context: Context, main: Sequence[Combination], calibration: Sequence[Mapping[str, Any]]
) -> list[Combination]:
    """Return the run's combinations with error floor, then as power posteriors."""
    floored, weakened = list[Combination](), list[Combination]()
    f = None
    if calibration:
        n, z, repeats = (
            np.array([entry[key] for entry in calibration]) for key in ("n", "z_rms", "repeats")
        )
        f = fit_error_law(n, z, repeats * len(main[0].posterior.z_mean)).f
    for one in main:
        rng = stream(context.config.seed, "remedies", one.group, one.posterior.n)
        if f is not None:
            floor = error_floor(one.posterior, f, rng=rng)
            floored.append(Combination(one.group, one.truth, floor))
        power = power_posterior(one.posterior, rng=rng)
        if power is not None:
            weakened.append(Combination(one.group, one.truth, power))
    return floored + weakened


def _check(
    context: Context, observations: Observations, main: Sequence[Combination]
) -> dict[str, Checked | None]:
    """Compare every group with simulated objects, when asked for."""
    largest = {r.group: r.posterior for r in main}
    groups = observations.groups
    return {g: check_group(context, c, observations[groups[g]]) for g, c in largest.items()}


def _entries(
    outcomes: Mapping[str, Checked | None], *, named: bool
) -> tuple[list[dict[str, Any]], list[Verdict]]:
    """Return the entries of ``misspecification``, and the verdicts."""
    entries, verdicts = list[dict[str, Any]](), list[Verdict]()
    for group, checked in outcomes.items():
        if checked is None:
            continue
        entry, verdict = checked
        name = f"Group '{group}': " if named else ""
        verdicts.append(replace(verdict, sentence=name + verdict.sentence))
        entries.append({"group": group, **entry} if named else entry)
    return entries, verdicts


def _groups(context: Context, combiner: Combiner) -> SimulatedGroups:
    """Return the groups that a combiner learns from.

    Raises
    ------
    ObservationError
        If the combiner does not take such objects.
    """
    combiner.check_shape(InputShape.of(context.observations.batch))
    owner = "" if combiner.name == context.config.combiner.name else combiner.name
    return SimulatedGroups(
        context,
        "correction",
        combiner.groups_needed,
        combiner.group_size,
        owner,
        combiner.marginalises,
    )


def _prepared(context: Context, combiners: Sequence[Combiner]) -> None:
    """Let combiners learn, unless they did so before the run was interrupted."""
    for combiner in combiners:
        if combiner.groups_needed and not _restored(context, combiner):
            _prepare(context, combiner)


def _restored(context: Context, combiner: Combiner) -> bool:
    directory = context.directory.combiner(combiner.name)
    try:
        made_from = read_json(directory / _MADE_FROM)
        if made_from != _made_from(context, combiner):  # another run's, interrupted, or altered
            return False
        combiner.restore(directory)
    except (DataFileError, RunDirectoryError):
        return False
    context.progress.say(f"{'correct':>9}: {combiner.name}: already done")
    return True


def _prepare(context: Context, combiner: Combiner) -> None:
    """Let a combiner learn from simulated groups, and store what it learned."""
    groups = _groups(context, combiner)
    groups.simulate()
    context.progress.start("correct", len(groups), "groups")
    observed = _counted(groups, context.progress)
    seed = context.config.seed
    if combiner.learns_alone:
        facts = combiner.learn(observed, seed=seed)
    else:
        facts = combiner.prepare(context.posterior, observed, seed=seed)
    numbers = ", ".join(f"{k} {v:.3g}" for k, v in facts.items())
    context.progress.finish(f"{combiner.name}: {numbers}")
    directory = context.directory.combiner(combiner.name)
    combiner.save(directory)
    write_json(directory / _MADE_FROM, _made_from(context, combiner))


def _made_from(context: Context, combiner: Combiner) -> dict[str, Any]:
    """Return hashes of what a combiner learned from, and of what it stored."""
    directory = context.directory.combiner(combiner.name)
    weights = sorted(context.directory.estimator.rglob("*.safetensors"))
    if combiner.learns_alone:
        weights = []
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    stored = [p for p in files if p.name[0] != "." and p.name != _MADE_FROM]
    return {
        "estimator": [sha256_of(p) for p in weights if p.name != "checkpoint.safetensors"],
        "options": context.config.combiner.model_dump(mode="json"),
        "groups": _groups(context, combiner).identity,
        "stored": {p.relative_to(directory).as_posix(): sha256_of(p) for p in stored},
    }


def _counted(groups: Iterable[Observations], progress: Progress) -> Iterator[Observations]:
    for group in groups:
        yield group
        progress.advance()


def _table(results: Sequence[Combination]) -> Table:
    rows = []
    for r in results:
        c = r.posterior
        row: dict[str, Any] = {"group": r.group, "combiner": c.combiner, "n": c.n}
        for k, name in enumerate(c.names):
            row |= {f"{name}_mean": c.mean[k], f"{name}_sd": c.sd[k]}
            row[f"true_{name}"] = r.truth.get(name, np.nan)
        row["consistency_chi2"] = c.diagnostics.get("consistency_chi2", np.nan)
        row["consistency_p"] = c.diagnostics.get("consistency_p", np.nan)
        row["flags"] = ",".join(c.flags)
        rows.append(row)
    table = Table(rows)
    space = results[0].posterior.space
    for name, unit in zip(space.names, space.units, strict=True):
        for column in (f"{name}_mean", f"{name}_sd", f"true_{name}"):
            table[column].unit = unit or None
    return table
