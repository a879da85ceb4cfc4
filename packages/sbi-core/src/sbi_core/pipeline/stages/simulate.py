"""Stage ``simulate``: shards of noise-free simulations from the prior."""

from __future__ import annotations

import logging
from dataclasses import replace

from sbi_core.components import Simulator
from sbi_core.data.writing import current_fences
from sbi_core.errors import RunDirectoryError, SimulationError, counted
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.estimate import announce
from sbi_core.pipeline.stages import StageResult
from sbi_core.simulate.executors import get_executor
from sbi_core.simulate.probe import try_components
from sbi_core.simulate.store import (
    Shard,
    deliver_shard,
    foreign_shards,
    is_complete,
    put_shard,
    read_reports,
)

__all__ = ["execute", "fill"]

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
    context
        The run.
    simulator
        The simulator.
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
    """
    foreign = list(foreign_shards(shards[0].directory, planned or shards))
    if foreign:
        msg = (
            f"{shards[0].directory} holds {counted(len(foreign), 'shard')} that this run does not "
            f"plan (e.g. {foreign[0].name}); use another --out or --restart simulate"
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
    section = context.config.simulate
    executor = get_executor(section.executor, section.workers, section.dask_scheduler)
    folder = shards[0].directory.resolve()  # workers may have another working directory
    items = [replace(s, directory=folder) for s in todo]
    folder.mkdir(parents=True, exist_ok=True)
    for shard, report, image in executor.map(deliver_shard, (simulator, current_fences()), items):
        if image is not None:
            put_shard(shard, image)
        context.progress.advance(report.rows)
    context.progress.finish(
        counted(len(shards), "shard") + (f", {done} of them from before" if done else "")
    )
    return done


def execute(context: Context) -> StageResult:
    """Try simulator and embedding on a few rows, write the shards, report failures by reason.

    Raises
    ------
    SimulationError
        If the simulator returns something else than it should, or every simulation failed.
    ConfigError
        If the embedding does not work with the data.
    """
    if context.config.preset in ("large", "paper"):
        context.progress.say(announce(context))
    if not any(shard.path.exists() for shard in context.shards):
        try_components(context.simulator, context.embedding, context.config.seed)
    fill(context, context.simulator, context.shards, "simulate")
    reasons, reports = read_reports(context.shards)
    n, failed = sum(r.rows for r in reports), sum(r.failed for r in reports)
    names = context.simulator.failures
    if failed == n:
        msg = f"all {failed} simulations failed ({dict(reasons)}); look at prior and options"
        raise SimulationError(msg)
    if failed > 0.01 * n:
        context.progress.say(f"{failed} of {counted(n, 'simulation')} failed, left out")
    seconds = sum(r.seconds for r in reports)
    return StageResult(
        {
            "n": n,
            "failed": failed,
            "per_second": round(n / max(seconds, 1e-9), 1),
            "failures": {names.get(k, f"code {k}"): v for k, v in sorted(reasons.items())},
        }
    )
