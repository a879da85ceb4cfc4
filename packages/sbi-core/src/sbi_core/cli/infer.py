"""``sbi-run infer RUN --observations FILE``: amortised inference with a trained run."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.cli.targets import checked_target, files_read, summary_target
from sbi_core.errors import ConfigError, counted
from sbi_core.progress import make_progress
from sbi_core.simulate.executors import get_executor

if TYPE_CHECKING:
    from sbi_core.data.reading import Reading

__all__ = ["command"]

_TABLES = (".ecsv", ".csv", ".tsv", ".fits", ".vot", ".h5", ".parquet")


@click.command(
    "infer",
    epilog=examples(
        "sbi-run infer runs/chempy-standard --observations stars.csv",
        "sbi-run infer runs/chempy-standard --observations survey.fits --out survey-results.fits "
        "--workers 4",
        "sbi-run infer runs/chempy-standard --observations stars.csv --column fe_h=FeH",
        "sbi-run infer runs/casbi-large --observations halo.fits --set simulator.alpha_proxy=true",
    ),
)
@click.argument("run")
@options.objects
@options.tables
@options.reading
@click.option(
    "--out", metavar="FILE", show_default="RUN/infer-NAME.ecsv",
    help=f"Table of results: {', '.join(_TABLES)}.",
)  # fmt: skip
@click.option(
    "--draws", metavar="N", type=click.IntRange(min=10), show_default="infer.draws of the run",
    help="Posterior draws per object.",
)  # fmt: skip
@click.option("--samples", metavar="FILE", help="Also write the draws to this file (.nc).")
@click.option("--summary-only", is_flag=True, help="Write no draws, as without --samples.")
@click.option(
    "--chunk", metavar="N", type=click.IntRange(min=1),
    show_default="10000, fewer where their draws exceed 32 MiB",
    help="Objects that are read and inferred at a time.",
)  # fmt: skip
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=1), show_default="1",
    help="Worker processes.",
)  # fmt: skip
@click.option(
    "--executor", metavar="NAME", show_default="process with --workers, else serial",
    help="serial, process or dask.",
)  # fmt: skip
@options.dask_scheduler
@options.quiet
def command(
    run: str,
    observations: str,
    reading: Reading,
    overrides: tuple[str, ...],
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
    """Infer the objects of a file with the trained estimator of RUN.

    Writes a table like summary.ecsv of the run. The file is read, inferred and written in chunks,
    so that memory does not grow with it. The same command continues an interrupted one.
    """
    from sbi_core.pipeline.catalogue import infer_catalogue
    from sbi_core.pipeline.runner import Run

    if summary_only and samples:
        msg = "--summary-only and --samples contradict each other; leave one out"
        raise ConfigError(msg)
    loaded = Run(run, overrides=overrides)
    target = Path(out) if out else summary_target(loaded.directory.given, observations)
    with chdir("."):  # plugins may change the working directory
        inputs = files_read(loaded.simulator, observations)
    checked_target(target, _TABLES, inputs=inputs)
    if samples:
        checked_target(samples, (".nc",), inputs=inputs)
    default = "dask" if dask_scheduler else "process" if workers else "serial"
    context = loaded._context
    context.progress = make_progress(quiet=quiet)
    done = infer_catalogue(
        context,
        observations,
        target,
        draws=draws or loaded.config.infer.draws,
        reading=reading,
        samples=Path(samples) if samples else None,
        rows=chunk,
        executor=get_executor(executor or default, workers, dask_scheduler),
    )
    for note in done.notes:
        click.echo(f"observations: {note}")
    outside = done.flags.get("outside_training", 0)
    click.echo(f"{counted(done.n, 'object')}, {outside} outside the training set: {target}")
    if set(done.flags) - {"outside_training"}:
        counts = (f"{flag} {count}" for flag, count in sorted(done.flags.items()))
        click.echo(f"objects with flags: {', '.join(counts)}")
    if outside:
        click.echo(
            "outside_training: these objects are unlike 99 % of the simulations (so is 1 % of "
            "simulated objects); check their data before you use their posteriors"
        )
