"""A run: stages executed in order, each skipped when its result is there and still valid.

Stage results are identified by a fingerprint: the configuration keys that decide about them, the
fingerprints of the stages before, and the identity of the simulator.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from sbi_core.data.gate import unchanged
from sbi_core.data.writing import atomic_write, remove_leftovers, written
from sbi_core.errors import (
    MAIN_THREAD_ENDED,
    ConfigError,
    RunDirectoryError,
    SbiError,
    first_line,
    near_matches,
)
from sbi_core.files.directory import RunDirectory
from sbi_core.files.integrity import missing_records, read_records, write_records
from sbi_core.files.lock import locked
from sbi_core.files.provenance import describe
from sbi_core.pipeline.ahead import Ahead
from sbi_core.pipeline.config import RunConfig, differences, to_toml
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.estimate import check_resources
from sbi_core.pipeline.fixed import check_possible
from sbi_core.pipeline.opening import artefacts, read_config, verify_stage
from sbi_core.pipeline.run import Run
from sbi_core.pipeline.stages import STAGES, StageSpec, stage_names
from sbi_core.pipeline.stages.simulate import fill
from sbi_core.priors.space import canonical_hash
from sbi_core.progress import Progress
from sbi_core.registry import Registry
from sbi_core.rng import torch_defaults
from sbi_core.simulate.child import CRASHED, TOO_LONG
from sbi_core.simulate.executors import get_executor
from sbi_core.simulate.tolerance import REASONS
from sbi_core.threads import single_thread

__all__ = ["Run", "execute", "simulate_shards"]

_log = logging.getLogger("sbi_core")
_RUNNING: dict[int, int] = {}  # threads that execute a run, and the level of the log before


@torch_defaults()
def execute(
    config: RunConfig,
    out: str | Path | RunDirectory,
    registry: Registry,
    *,
    stages: Sequence[str] | None = None,
    restart: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Execute the stages of a run that are not done yet.

    Parameters
    ----------
    stages
        Run only these stages; the stages before must be done.
    restart
        Delete the results of this stage and of all later ones, and run them again.

    Raises
    ------
    RunDirectoryError
        If the directory holds another configuration, or a stage's input is missing.
    """
    if not threading.main_thread().is_alive():
        raise SbiError(MAIN_THREAD_ENDED)
    for name in [*(stages or ()), *([restart] if restart else [])]:
        if name not in stage_names():
            known = ", ".join(stage_names())
            msg = f"unknown stage '{name}'{near_matches(name, stage_names())} (known: {known})"
            raise ConfigError(msg)
    directory = out if isinstance(out, RunDirectory) else RunDirectory(out)
    context = Context(config, registry, directory, progress or Progress())
    with closing(context.tolerance), context.tolerance.active():
        _prepare(context, stages, restart)
    return Run(directory.root, registry)


def _prepare(context: Context, stages: Sequence[str] | None, restart: str | None) -> None:
    """Check everything that needs no simulation, then execute the stages."""
    config, directory = context.config, context.directory
    given = config.infer.observations and directory.path(config.infer.observations)
    # before anything is written: bad input leaves no trace
    with unchanged(*([given] if given else [])):
        prints = _fingerprints(context)
        _ = context.space
        check_possible(context)
        context.bare_analysis()  # a plugin that lacks it must not cost a training
        for name in context.combiners if context.shares else ():
            context.bare_combiner(name)
        _check_machine(config)
        if given:
            _refuse_outputs(directory.path(given), directory)
            _ = context.observations
    if restart == STAGES[0].name or not directory.provenance.exists():
        check_resources(context)
    directory.create()
    with locked(directory.root):
        directory.refuse_links()
        _execute(context, prints, stages, restart)


def _refuse_outputs(observations: Path, directory: RunDirectory) -> None:
    """Raise when the observations are a file that the run writes."""
    path = observations.resolve()
    outputs = [output.resolve() for spec in STAGES for output in spec.outputs(directory)]
    if any(path == output or output in path.parents for output in outputs):
        msg = (
            f"'{observations}' is a file that this run writes; copy it, or choose another run "
            "directory (out)"
        )
        raise ConfigError(msg)


def _execute(
    context: Context,
    prints: Mapping[str, str],
    stages: Sequence[str] | None,
    restart: str | None,
) -> None:
    """Execute the stages; the caller holds the lock."""
    directory = context.directory
    records = read_records(directory)
    names: list[str] = list(stage_names())
    again = STAGES[names.index(restart) :] if restart else ()
    made = [n for record in records["stages"].values() for n in record.get("artefacts", ())]
    for spec in again:
        records["stages"].pop(spec.name, None)
    _refuse_mixing(context, records, prints)  # before anything is deleted
    _refuse_unrecorded(directory, again)
    if again:
        directory.remove(*(p for spec in again for p in spec.outputs(directory)), made=made)
    for folder in (directory.root, *(p for p in directory.root.rglob("*") if p.is_dir())):
        remove_leftovers(folder)
    with atomic_write(directory.config) as f:
        f.write(to_toml(context.config))
    write_records(directory, records)
    todo = _todo(context, records, prints, stages)
    failures = context.facts.get("simulate", {}).get("failures", {})
    if any(REASONS[code] in failures for code in (CRASHED, TOO_LONG)):
        context.tolerance.protect = True
    # one thread, but for train.threads: the same bits on any number of cores
    with _logging_to(directory.log), single_thread(), Ahead(context) as ahead:
        order = _late(todo) if ahead.possible else todo
        for k, spec in enumerate(order):
            for later in order[k + 1 :]:
                ready = [name for name in later.ahead if name in context.facts]
                if any([ahead.start(later, name) for name in ready]):
                    _started(context, later, records, prints)
            _one(context, spec, records, prints, ahead)


def _todo(
    context: Context,
    records: Mapping[str, Any],
    prints: Mapping[str, str],
    stages: Sequence[str] | None,
) -> list[StageSpec]:
    """Return the wanted stages that are not done, after a check of those that are."""
    todo: list[StageSpec] = []
    for spec in STAGES:
        wanted = stages is None or spec.name in stages
        done = records["stages"].get(spec.name, {})
        if done.get("status") == "done" and done["fingerprint"] == prints[spec.name]:
            verify_stage(context.directory, spec, done)
            context.facts[spec.name] = done["facts"]
            context.artefacts |= done["artefacts"]
            if wanted:
                context.progress.say(f"{spec.name:>9}: already done")
        elif wanted:
            there = {*context.facts, *(s.name for s in todo)}
            missing = [name for name in spec.after if name not in there]
            if missing and not spec.optional:
                msg = f"stage '{spec.name}' needs '{missing[0]}', which has not run yet"
                raise RunDirectoryError(msg)
            todo.append(spec)
    return todo


def _late(todo: Sequence[StageSpec]) -> list[StageSpec]:
    """Return the stages; those that can work ahead stand just before the first that needs them."""
    order = [spec for spec in todo if not spec.ahead]
    for spec in todo:
        if spec.ahead:
            users = [k for k, other in enumerate(order) if spec.name in other.after]
            order.insert(min(users, default=len(order)), spec)
    return order


def simulate_shards(
    config: RunConfig,
    out: str | Path,
    registry: Registry,
    first: int,
    last: int,
    progress: Progress | None = None,
) -> int:
    """Simulate shards ``first`` to ``last`` of a run; return how many it has.

    Other processes may simulate others at the same time.

    Raises
    ------
    ConfigError
        If the run has no such shards.
    RunDirectoryError
        If the directory holds another configuration, or another process works on these shards.
    """
    directory = RunDirectory(out)
    context = Context(config, registry, directory, progress or Progress())
    with closing(context.tolerance), context.tolerance.active():
        return _fill(context, first, last)


def _fill(context: Context, first: int, last: int) -> int:
    """Simulate some shards of a run; return how many it has."""
    config, directory = context.config, context.directory
    _check_machine(config)
    check_resources(context)
    shards = context.shards
    if not 0 <= first <= last < len(shards):
        msg = f"--shards {first}-{last}: this run has shards 0 to {len(shards) - 1}"
        raise ConfigError(msg)
    directory.create()
    with locked(directory.root, f"shards-{first}-{last}"):
        directory.refuse_links()
        _refuse_mixing(context, read_records(directory), _fingerprints(context))
        if not directory.config.exists():
            with atomic_write(directory.config) as f:
                f.write(to_toml(config))
        fill(context, context.simulator, shards[first : last + 1], "simulate", shards)
    return len(shards)


def _check_machine(config: RunConfig) -> None:
    """Raise when executor or device are not there."""
    section = config.simulate
    get_executor(section.executor, section.workers, section.dask_scheduler)
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = f"device '{config.device}' cannot be used: {first_line(error)}"
        raise ConfigError(msg) from None


def _one(
    context: Context,
    spec: StageSpec,
    records: dict[str, Any],
    prints: Mapping[str, str],
    ahead: Ahead,
) -> None:
    """Execute one stage, or take its result from the background process."""
    _started(context, spec, records, prints)
    start = perf_counter()
    done = ahead.result(spec)
    waited = perf_counter() - start
    result = spec.execute(context) if done is None else done[0]
    facts = dict(result.facts)
    if result.verdicts:
        facts["verdicts"] = [[v.level, v.sentence, v.test] for v in result.verdicts]
    if spec.arrays is not None and result.arrays:
        with written(spec.arrays(context.directory)) as temporary:
            np.savez_compressed(temporary, **result.arrays)
    facts["stage_seconds"] = round(perf_counter() - start, 3)
    if done is not None:
        facts["stage_seconds"] = round(done[1], 3)
        facts["hidden_seconds"] = round(max(0.0, done[1] - waited), 3)  # beside other stages
        context.progress.say(f"{spec.name:>9}: done in the background ({done[1]:.1f} s)")
    context.facts[spec.name] = facts
    made = artefacts(context.directory, spec)
    context.artefacts |= made
    records["stages"][spec.name] = {
        "status": "done",
        "fingerprint": prints[spec.name],
        "facts": facts,
        "artefacts": made,
    }
    write_records(context.directory, records)
    _log.info("stage %s done in %.1f s", spec.name, facts["stage_seconds"])


def _started(
    context: Context, spec: StageSpec, records: dict[str, Any], prints: Mapping[str, str]
) -> None:
    """Record that the results of a stage may be in the directory from now on."""
    records |= describe(context.registry.plugins, context.config.seed)
    records["prior"] = context.simulator.parameters.to_spec()
    records["hashes"] = {
        "prior": context.simulator.parameters.hash,
        "proposal": context.simulator.parameters.hash,
        "simulator": context.simulator_identity,
    }
    records["simulator"] = context.simulator.identity
    records["stages"][spec.name] = {"status": "started", "fingerprint": prints[spec.name]}
    write_records(context.directory, records)
    _log.info("stage %s started", spec.name)


def _fingerprints(context: Context) -> dict[str, str]:
    config = context.config.model_dump(mode="json")
    prints: dict[str, str] = {}
    for spec in STAGES:
        parts: dict[str, Any] = {key: _at(config, key) for key in spec.uses}
        parts |= {f"after {name}": prints[name] for name in spec.after}
        parts |= spec.inputs(context)
        prints[spec.name] = canonical_hash(parts)
    return prints


def _at(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value[name]
    return value


def _refuse_mixing(context: Context, records: Mapping[str, Any], prints: Mapping[str, str]) -> None:
    """Raise when results in the directory belong to another configuration."""
    stages = records["stages"]
    lasting = [spec.name for spec in STAGES if not spec.cheap]
    stale = [n for n in lasting if n in stages and stages[n]["fingerprint"] != prints[n]]
    if not stale:
        return
    changed = ["the simulator, its data, prior or nuisance parameters"]
    if context.directory.config.exists():
        old = read_config(context.directory)
        changed = differences(old, context.config) or changed
    listed = "; ".join(changed[:4]) + ("; ..." if len(changed) > 4 else "")
    remedy = f"pass --restart {stale[0]} to delete its results from that stage on"
    if context.simulator.fixed_set and not context.config.simulator.options.get("file"):
        remedy = "delete that directory"  # sbi_core.fit has no option for a restart
    msg = (
        f"'{context.directory.root}' holds a run with another configuration ({listed}), which "
        f"invalidates {', '.join(stale)}; choose another run directory (out) to keep that run, or "
        f"{remedy}"
    )
    raise RunDirectoryError(msg)


def _refuse_unrecorded(directory: RunDirectory, again: Sequence[StageSpec]) -> None:
    """Raise when there are results that no record verifies; shards verify themselves."""
    if directory.provenance.exists():
        return
    kept = [spec for spec in STAGES[1:] if spec not in again]
    there = [p for spec in kept for p in spec.outputs(directory) if p.exists()]
    if there:
        raise missing_records(directory, f"'{there[0].name}' cannot be verified")


class _LogFile(logging.FileHandler):
    """The log of one run: records of all threads, but for those that execute another run.

    Records that cannot be written are dropped: on a full disk the stage reports the error.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._own = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for records of this run."""
        return record.thread == self._own or record.thread not in _RUNNING

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing, where the base class prints a traceback."""


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    thread = threading.get_ident()
    _log.addHandler(handler)
    _RUNNING[thread] = next(iter(_RUNNING.values()), _log.level)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        level = _RUNNING.pop(thread)
        _log.removeHandler(handler)
        if not _RUNNING:
            _log.setLevel(level)
        handler.close()
