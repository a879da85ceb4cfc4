"""Estimates of time, memory and disk of a run, before it starts."""

from __future__ import annotations

import math
from time import perf_counter

from sbi_core.data.limits import check_disk, check_memory
from sbi_core.errors import ConfigError, counted
from sbi_core.pipeline.context import Context
from sbi_core.rng import stream
from sbi_core.simulate.executors import default_workers
from sbi_core.threads import single_thread
from sbi_core.training.config import TrainConfig

__all__ = ["announce", "check_resources"]

_ROWS = 512
_NEGLIGIBLE = 50_000  # simulations that every machine holds
_MOST_SHARDS = 1_000_000
_COPIES = 3  # of the training data that exist at one time: rows, targets, a permutation of them


def announce(context: Context) -> str:
    """Return a sentence with the expected time of the simulations and the size of the training.

    Times ``draw`` on 512 rows (after a warm-up), on one core.
    """
    config = context.config
    with single_thread():
        context.simulator.draw(_ROWS, stream(config.seed, "estimate", 0))
        start = perf_counter()
        context.simulator.draw(_ROWS, stream(config.seed, "estimate", 1))
        per_row = (perf_counter() - start) / _ROWS
    workers = 1 if config.simulate.executor == "serial" else config.simulate.workers
    workers = default_workers() if workers is None else workers
    minutes = config.simulate.n * per_row / workers / 60
    rows = math.ceil(0.8 * config.simulate.n)
    epochs, size = TrainConfig(**config.train).length(rows)
    steps = epochs * math.ceil(rows / size)
    return (
        f"preset '{config.preset}': {counted(config.simulate.n, 'simulation')}, about "
        f"{minutes:.1f} min on {counted(workers, 'core')}; training of {counted(steps, 'step')}, "
        f"typically {steps / 150 / 60:.0f} to {steps / 50 / 60:.0f} min; the same command "
        "continues an interrupted run"
    )


def check_resources(context: Context) -> None:
    """Compare what the simulations will take with the disk and memory that are free.

    Draws 16 rows to measure their size if there are many.

    Raises
    ------
    ConfigError
        If they cannot fit; the message has the numbers.
    """
    section = context.config.simulate
    shards = -(-section.n // section.shard_size)
    if shards > _MOST_SHARDS:
        msg = (
            f"simulate.n = {section.n} in shards of {section.shard_size} rows makes {shards} "
            f"files, at most {_MOST_SHARDS} are allowed; raise simulate.shard_size"
        )
        raise ConfigError(msg)
    check_memory(
        f"one shard of {section.shard_size} rows",
        8.0 * section.shard_size,
        "lower simulate.shard_size",
    )
    if section.n <= _NEGLIGIBLE:
        return
    with single_thread():
        rows = context.simulator.draw(16, stream(context.config.seed, "estimate", 2)).numpy()
    stored = sum(v.nbytes for v in rows.values()) / 16
    kept = sum(v.size * (4 if v.dtype.kind == "f" else v.itemsize) for v in rows.values()) / 16
    folder = context.directory.sims
    present = sum(p.stat().st_size for p in folder.glob("*.h5")) if folder.is_dir() else 0
    what = f"{section.n} simulations of {stored:.0f} bytes"
    check_disk(
        what,
        section.n * stored - present,
        folder,
        "lower simulate.n or use another run directory (out)",
    )
    check_memory(
        f"a shard of {section.shard_size} rows of {stored:.0f} bytes",
        2 * section.shard_size * stored,
        "lower simulate.shard_size",
    )
    most = TrainConfig(**context.config.train).max_memory_gb * 2**30
    check_memory(
        f"training on {section.n} simulations",
        _COPIES * min(section.n * kept, most),
        "lower train.max_memory_gb, and the simulations are read in blocks",
    )
