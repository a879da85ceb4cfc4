"""Stage ``simulate``: shards of noise-free simulations from the prior."""

from __future__ import annotations

import logging
from typing import Any

from sbi_core.components import Simulator
from sbi_core.errors import RunDirectoryError, SimulationError
from sbi_core.pipeline.context import Context
from sbi_core.simulate.executors import get_executor
from sbi_core.simulate.store import Shard, foreign_shards, is_complete, read_reports, write_shard

__all__ = ["execute", "fill"]

_log = logging.getLogger(__name__)


def fill(context: Context, simulator: Simulator, shards: list[Shard], label: str) -> int:
    """Compute the shards that are not there yet; return how many were there."""
    foreign = list(foreign_shards(shards[0].directory, shards))
    if foreign:
        msg = (
            f"{shards[0].directory} holds {len(foreign)} shard(s) that this run does not plan "
            f"(e.g. {foreign[0].name}); use another --out or --restart simulate"
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
    executor = get_executor(section.executor, section.workers)
    for report in executor.map(write_shard, simulator, todo):
        context.progress.advance(report.rows)
    context.progress.finish(
        f"{len(shards)} shards" + (f", {done} of them were there" if done else "")
    )
    return done


def execute(context: Context) -> dict[str, Any]:
    """Write the shards; report failures by reason.

    Raises
    ------
    SimulationError
        If every simulation failed.
    """
    fill(context, context.simulator, context.shards, "simulate")
    reasons, reports = read_reports(context.shards)
    n, failed = sum(r.rows for r in reports), sum(r.failed for r in reports)
    names = context.simulator.failures
    if failed == n:
        msg = f"all {failed} simulations failed ({dict(reasons)}); look at prior and options"
        raise SimulationError(msg)
    if failed > 0.01 * n:
        context.progress.say(f"{failed} of {n} simulations failed and are left out")
    seconds = sum(r.seconds for r in reports)
    return {
        "n": n,
        "failed": failed,
        "per_second": round(n / max(seconds, 1e-9), 1),
        "failures": {names.get(k, f"code {k}"): v for k, v in sorted(reasons.items())},
    }
