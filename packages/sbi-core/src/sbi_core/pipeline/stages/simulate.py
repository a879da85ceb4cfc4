"""Stage ``simulate``: shards of noise-free simulations from the prior."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

from sbi_core.components import Simulator
from sbi_core.data.writing import Fence, current_fences, write_atomic
from sbi_core.errors import RunDirectoryError, SimulationError, WorkerLostError, counted
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.estimate import announce
from sbi_core.pipeline.stages import StageResult
from sbi_core.simulate.arrays import ArraySimulator
from sbi_core.simulate.executors import get_executor
from sbi_core.simulate.probe import try_components
from sbi_core.simulate.store import (
    Message,
    Shard,
    ShardReport,
    deliver_shard,
    foreign_shards,
    is_complete,
    read_reports,
)
from sbi_core.simulate.tolerance import REASONS, Tolerance, values_of

__all__ = ["execute", "fill"]

_MESSAGES = 5  # that are reported
_log = logging.getLogger(__name__)


def fill(
    context: Context,
    simulator: Simulator,
    shards: list[Shard],
    label: str,
    planned: list[Shard] | None = None,
) -> int:
    """Compute the shards that are not there yet; return how many were there.

    Parameters
    ----------
    shards
        Which shards are wanted.
    label
        How progress calls this.
    planned
        All shards that may be in the folder, where ``shards`` are a part of them.

    Raises
    ------
    RunDirectoryError
        If the folder holds shards that are not planned.
    SimulationError
        If the simulator fails too often.
    """
    foreign = list(foreign_shards(shards[0].directory, planned or shards))
    if foreign:
        msg = (
            f"{shards[0].directory} holds {counted(len(foreign), 'shard')} that this run does not "
            f"plan (e.g. {foreign[0].name}); use another run directory (out) or --restart simulate"
        )
        raise RunDirectoryError(msg)
    todo = []
    for shard in shards:
        present = shard.path.exists()
        if not is_complete(shard):
            todo.append(shard)
            if present:
                context.progress.say(f"{shard.path.name} was damaged and is computed again")
    done = len(shards) - len(todo)
    context.progress.start(label, sum(s.rows for s in shards), "runs")
    if done:
        kept = sum(s.rows for s in shards) - sum(s.rows for s in todo)
        context.progress.skip(kept)
    folder = shards[0].directory.resolve()  # workers may have another working directory
    items = [replace(s, directory=folder) for s in todo]
    folder.mkdir(parents=True, exist_ok=True)
    reports = _Reports(context, simulator, sum(s.rows for s in planned or shards))
    shared = (simulator, context.tolerance, current_fences())
    try:
        _simulate(context, shared, items, reports)
    except WorkerLostError:
        if context.tolerance.protect:
            raise
        # once more, in processes that may crash: they tell which rows do it
        context.tolerance.protect = True
        context.progress.say("a worker process died; the simulator is protected from here on")
        left = [item for item in items if item.number not in reports.numbers]
        _simulate(context, shared, left, reports)
    context.progress.finish(
        counted(len(shards), "shard") + (f", {done} of them from before" if done else "")
    )
    return done


def _simulate(
    context: Context,
    shared: tuple[Simulator, Tolerance, tuple[Fence, ...]],
    items: list[Shard],
    reports: _Reports,
) -> None:
    """Compute shards by the executor of the run."""
    section = context.config.simulate
    executor = get_executor(section.executor, section.workers, section.dask_scheduler)
    for shard, report, image in executor.map(deliver_shard, shared, items):
        if image is not None:
            write_atomic(shard.path, image)
        context.progress.advance(report.rows)
        reports.add(report)


class _Reports:
    """Failures in the shards of a run so far.

    Parameters
    ----------
    rows
        Rows of all shards, of which ``simulate.max_failed`` may fail.
    """

    def __init__(self, context: Context, simulator: Simulator, rows: int) -> None:
        self.simulator, self.rows = simulator, rows
        self.limit = context.config.simulate.max_failed
        self.reports: list[ShardReport] = []

    @property
    def numbers(self) -> set[int]:
        """Numbers of the shards."""
        return {report.number for report in self.reports}

    @property
    def caught(self) -> int:
        """Rows for which the simulator raised, crashed or took too long."""
        return sum(report.caught for report in self.reports)

    def add(self, report: ShardReport) -> None:
        """Add a shard.

        Raises
        ------
        SimulationError
            If too many rows failed.
        """
        self.reports.append(report)
        if self.caught > self.limit * self.rows:
            msg = (
                f"simulator '{self.simulator.name}' failed for {self.caught} of {self.rows} rows, "
                f"more than simulate.max_failed = {self.limit:g} allows: {self.messages[0]}; mend "
                "it, return ok=False for rows that cannot be simulated, or raise the limit"
            )
            raise SimulationError(msg)

    @property
    def messages(self) -> list[str]:
        """Return the first reasons, with shard, row and parameters."""
        listed = [(m, r.number) for r in self.reports for m in r.messages]
        first = dict[str, tuple[Message, int]]()
        total = Counter[str]()
        for message, number in listed:
            first.setdefault(message.text, (message, number))
            total[message.text] += message.rows
        return [
            f"{text} (rows: {total[text]}; first in shard {number}, row {message.row}, "
            f"{values_of(self.simulator, message.theta)})"
            for text, (message, number) in list(first.items())[:_MESSAGES]
        ]


def execute(context: Context) -> StageResult:
    """Try simulator and embedding on a few rows, write the shards, report failures by reason.

    Raises
    ------
    SimulationError
        If the simulator returns something else than it should, or every simulation failed.
    ConfigError
        If the embedding does not work with the data.
    ObservationError
        If a combiner does not take such data.
    """
    fixed = context.simulator.fixed_set
    if context.config.preset in ("large", "paper") and not fixed:
        context.progress.say(announce(context))
    if not any(shard.path.exists() for shard in context.shards):
        used = context.combiners if context.shares else ()
        try_components(
            context.simulator,
            context.embedding,
            context.config.seed,
            shards=len(context.shards),
            combiners=[context.bare_combiner(name) for name in used],
        )
    fill(context, context.simulator, context.shards, "simulate")
    reasons, stored = read_reports(context.shards)
    n, failed = sum(r.rows for r in stored), sum(r.failed for r in stored)
    names = {**REASONS, **context.simulator.failures}
    if failed == n:
        why = ", ".join(f"{names.get(k, f'code {k}')}: {v}" for k, v in sorted(reasons.items()))
        msg = f"all {failed} simulations failed ({why}); look at prior and options"
        raise SimulationError(msg)
    reports = _Reports(context, context.simulator, n)
    for report in stored:
        reports.add(report)
    if reports.caught:
        context.progress.say(
            f"the simulator failed for {reports.caught} of {n} rows, which are left out: "
            + "; ".join(reports.messages)
        )
    elif failed > 0.01 * n:
        context.progress.say(f"{failed} of {counted(n, 'simulation')} failed, left out")
    simulator = context.simulator
    columns = simulator.columns if isinstance(simulator, ArraySimulator) else ""
    if columns:
        context.progress.say(columns)
    notes = list(getattr(context.simulator, "notes", ()))
    for note in notes:
        context.progress.say(note)
        _log.warning(note)
    seconds = sum(r.seconds for r in stored)
    facts = {
        "n": n,
        "failed": failed,
        "per_second": round(n / max(seconds, 1e-9), 1),
        "failures": {names.get(k, f"code {k}"): v for k, v in sorted(reasons.items())},
    }
    caught = reports.messages if reports.caught else ()
    if messages := [*([columns] if columns else ()), *caught, *notes]:
        facts["messages"] = messages
    return StageResult(facts)
