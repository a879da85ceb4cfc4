"""``sbi-run infer RUN --observations FILE``: amortised inference with a trained run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sbi_core.errors import ConfigError

__all__ = ["command"]


_TABLES = (".ecsv", ".csv", ".tsv", ".fits", ".vot", ".h5", ".parquet")


def _check_target(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise before the work is done when its result could not be written."""
    if path.suffix not in suffixes:
        msg = f"cannot write '{path}': unknown format, use {', '.join(suffixes)}"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"cannot write '{path}': folder '{path.parent}' does not exist"
        raise ConfigError(msg)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        msg = f"cannot write '{path}': permission denied"
        raise ConfigError(msg)


@click.command("infer")
@click.argument("run")
@click.option("--observations", metavar="FILE", required=True, help="Objects to infer.")
@click.option("--out", metavar="FILE", help="Summary table; default RUN/infer-<name>.ecsv.")
@click.option("--draws", type=click.IntRange(min=10), help="Posterior draws per object.")
@click.option("--samples", metavar="FILE", help="Also write the draws (netCDF).")
@click.option("--summary-only", is_flag=True, help="Write no draws (as without --samples).")
@click.option("--chunk", type=click.IntRange(min=1), help="Objects read and inferred at a time.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: all cores.")
@click.option("--executor", help="serial (default), process or dask.")
@click.option("--dask-scheduler", metavar="ADDR", help="Running dask scheduler; default: local.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    run: str,
    observations: str,
    out: str | None,
    draws: int | None,
    samples: str | None,
    summary_only: bool,
    chunk: int | None,
    workers: int | None,
    executor: str | None,
    dask_scheduler: str | None,
    quiet: bool,
) -> None:
    """Infer the objects in FILE with the trained estimator of RUN.

    The file is read, inferred and written in chunks: memory does not grow with it. The same
    command goes on where it was interrupted.
    """
    from sbi_core.pipeline.catalogue import infer_catalogue
    from sbi_core.pipeline.runner import Run
    from sbi_core.progress import make_progress
    from sbi_core.simulate.executors import get_executor

    if summary_only and samples:
        msg = "--summary-only and --samples contradict each other; leave one out"
        raise ConfigError(msg)
    loaded = Run(run)
    target = Path(out) if out else Path(run) / f"infer-{Path(observations).stem}.ecsv"
    _check_target(target, _TABLES)
    if samples:
        _check_target(Path(samples), (".nc",))
    default = "dask" if dask_scheduler else "process" if workers else "serial"
    context = loaded._context
    context.progress = make_progress(quiet=quiet)
    found = infer_catalogue(
        context,
        observations,
        target,
        draws=draws or loaded.config.infer.draws,
        samples=Path(samples) if samples else None,
        rows=chunk,
        executor=get_executor(executor or default, workers, dask_scheduler),
    )
    for note in found.notes:
        click.echo(f"observations: {note}")
    if found.excluded:
        click.echo(f"observations: {found.excluded} row(s) without any observed value left out")
    click.echo(f"{found.n} objects, {found.flagged} outside the training set: {target}")
