"""``sbi-run simulate --plugin NAME``: some shards of a run, as a separate job."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.errors import ConfigError
from sbi_core.progress import make_progress
from sbi_core.registry import Registry

if TYPE_CHECKING:
    from sbi_core.pipeline.config import RunConfig

__all__ = ["command", "slurm_script"]


@click.command(
    "simulate",
    epilog=examples(
        "sbi-run simulate --plugin chempy --preset large --shards 0-9",
        "sbi-run simulate --plugin chempy --preset large --emit-slurm --tasks 20 > job.sh",
    ),
)
@options.plugin
@options.preset
@options.out
@options.overrides
@options.config
@options.seed
@click.option(
    "--shards", metavar="A-B", show_default="all", help="Numbers of the first and last shard."
)
@options.workers
@options.executor
@options.dask_scheduler
@click.option(
    "--emit-slurm", is_flag=True, help="Print an sbatch array script that simulates all shards."
)
@click.option(
    "--tasks", metavar="N", type=click.IntRange(min=1), default=50, show_default=True,
    help="Tasks of the array, at most one per shard.",
)  # fmt: skip
@options.quiet
def command(
    plugin: str,
    preset: str,
    out: str | None,
    overrides: tuple[str, ...],
    config: str | None,
    seed: int | None,
    shards: str | None,
    workers: int | None,
    executor: str | None,
    dask_scheduler: str | None,
    emit_slurm: bool,
    tasks: int,
    quiet: bool,
) -> None:
    """Simulate shards of a run; `sbi-run run` with the same options continues from there.

    Several processes, also on machines that share the directory, can each simulate some shards.
    """
    from sbi_core.pipeline.config import resolve
    from sbi_core.pipeline.runner import simulate_shards

    registry = Registry([plugin])
    resolved = resolve(
        registry,
        plugin,
        preset=preset,
        file=config,
        overrides=overrides,
        seed=seed,
        simulate__workers=workers,
        simulate__executor=executor or ("dask" if dask_scheduler else None),
        simulate__dask_scheduler=dask_scheduler,
    )
    target = Path(out) if out else Path("runs") / f"{plugin}-{preset}"
    count = -(-resolved.simulate.n // resolved.simulate.shard_size)
    if emit_slurm:
        if shards:
            msg = "--emit-slurm divides all shards among the tasks; leave --shards out"
            raise ConfigError(msg)
        words = ["--plugin", plugin, "--preset", preset, "--out", str(target.resolve())]
        for text in overrides:
            words += ["--set", text]
        words += ["--config", str(Path(config).resolve())] if config else []
        words += ["--seed", str(seed)] if seed is not None else []
        click.echo(slurm_script(resolved, words, count, tasks), nl=False)
        return
    first, last = _range(shards, count)
    simulate_shards(resolved, target, registry, first, last, make_progress(quiet=quiet))
    click.echo(f"shards {first} to {last} of {count}: {target / 'sims'}")


def _range(text: str | None, count: int) -> tuple[int, int]:
    """Return first and last shard of ``A-B`` or ``A``."""
    if text is None:
        return 0, count - 1
    first, sign, last = text.partition("-")
    try:
        return int(first), int(last if sign else first)
    except ValueError:
        msg = f"--shards takes two numbers such as 0-9, or one, got '{text}'"
        raise ConfigError(msg) from None


def slurm_script(config: RunConfig, words: list[str], shards: int, tasks: int) -> str:
    """Return an sbatch script whose tasks simulate all shards between them.

    Parameters
    ----------
    config
        The resolved configuration.
    words
        Options that repeat it on the command line.
    shards, tasks
        Number of shards, and of array tasks (fewer where there are fewer shards).
    """
    each = -(-shards // min(tasks, shards))
    tasks = -(-shards // each)
    given = shlex.join(words)
    return f"""#!/bin/bash
#SBATCH --job-name=sbi-{config.plugin}
#SBATCH --array=0-{tasks - 1}
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=sbi-{config.plugin}-%A_%a.log
# {config.simulate.n} simulations in {shards} shards, {each} per task. Edit partition, account,
# memory and time for your site. A task that was killed may be submitted again: finished shards
# are kept. When all tasks have ended, continue with
#   sbi-run {given}
set -euo pipefail
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
first=$((SLURM_ARRAY_TASK_ID * {each}))
last=$((first + {each} - 1))
if [ "$last" -gt {shards - 1} ]; then last={shards - 1}; fi
srun sbi-run simulate {given} --shards "$first-$last" --executor serial --quiet
"""
