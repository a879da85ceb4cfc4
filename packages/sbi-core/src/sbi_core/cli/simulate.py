"""``sbi-run simulate --plugin NAME``: some shards of a run, as a job of its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.errors import ConfigError

if TYPE_CHECKING:
    from sbi_core.pipeline.config import RunConfig

__all__ = ["command", "slurm_script"]


@click.command("simulate")
@click.option("--plugin", metavar="NAME", required=True, help="Whose pipeline.")
@click.option("--preset", default="standard", show_default=True, help="Its preset.")
@click.option("--out", metavar="DIR", help="Run directory; default runs/NAME-PRESET.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set an option.")
@click.option("--config", metavar="FILE", help="TOML file with options.")
@click.option("--seed", type=click.IntRange(min=0), help="Root seed; default 1.")
@click.option("--shards", metavar="A-B", help="Only these shards, both included; default: all.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: all cores.")
@click.option("--executor", help="process, serial or dask.")
@click.option("--dask-scheduler", metavar="ADDR", help="Running dask scheduler; default: local.")
@click.option("--emit-slurm", is_flag=True, help="Print an sbatch array script and stop.")
@click.option(
    "--tasks", type=click.IntRange(min=1), default=50, show_default=True,
    help="Tasks of the array, at most one per shard.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
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
    """Simulate shards of a run; `sbi-run --plugin NAME` with the same options goes on from there.

    Several processes, on several machines that share the directory, may each do some.
    """
    from sbi_core.pipeline.config import resolve
    from sbi_core.pipeline.runner import simulate_shards
    from sbi_core.progress import make_progress
    from sbi_core.registry import Registry

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
    options = shlex.join(words)
    return f"""#!/bin/bash
#SBATCH --job-name=sbi-{config.plugin}
#SBATCH --array=0-{tasks - 1}
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=sbi-{config.plugin}-%A_%a.log
# {config.simulate.n} simulations in {shards} shards, {each} per task. Partition, account, memory
# and time are your site's: edit them. A task that was killed may be submitted again: shards that
# are there stay. When all have ended, go on with
#   sbi-run {options}
set -euo pipefail
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
first=$((SLURM_ARRAY_TASK_ID * {each}))
last=$((first + {each} - 1))
if [ "$last" -gt {shards - 1} ]; then last={shards - 1}; fi
srun sbi-run simulate {options} --shards "$first-$last" --executor serial --quiet
"""
