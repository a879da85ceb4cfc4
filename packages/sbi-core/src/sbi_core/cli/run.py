"""``sbi-run run NAME``, which is ``sbi-run --plugin NAME``: the whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import EXIT_CALIBRATION, examples
from sbi_core.cli.results import measured
from sbi_core.errors import ConfigError
from sbi_core.files.directory import RunDirectory
from sbi_core.progress import make_progress
from sbi_core.registry import SIMULATIONS, Registry

if TYPE_CHECKING:
    from sbi_core.data.reading import Reading

__all__ = ["command", "run"]


@click.command(
    "run",
    epilog=examples(
        "sbi-run run chempy --preset quick",
        "sbi-run run chempy --observations stars.csv --out runs/mine",
        "sbi-run run chempy --set simulate.n=20000 --set combiner.name=gaussian --seed 2",
        "sbi-run run --simulations sims.h5 --prior prior.toml --observations mine.csv",
    ),
)
@click.argument("name", required=False)
@options.pipeline
@click.pass_context
def command(ctx: click.Context, /, name: str | None, debug: bool, **given: object) -> None:
    """Run the pipeline of the plugin NAME and write a report.

    `--simulations FILE --prior FILE` takes simulations that you have in place of a plugin: copies
    and groups are never split between training and test, and the presets quick, standard and large
    mean the length of the training.

    The stages are `simulate`, `emulate` (if the preset enables it), `train`, `diagnose`,
    `infer`, `combine` and `report`. The same command continues an interrupted run.
    `sbi-run --plugin NAME` is the same command.

    At the end the command prints the combined posterior of the largest number of objects for
    every combiner, the result of the calibration tests, the flags, and the path of the report. If
    the objects are not what the model makes, the first line is a sentence on that: the error bars
    do not hold then. The exit code does not change.
    """
    ctx.exit(run(plugin=name, **given))  # type: ignore[arg-type]


def run(
    *,
    plugin: str | None,
    simulations: str | None,
    prior: str | None,
    group_column: str | None,
    preset: str,
    observations: str | None,
    reading: Reading,
    out: str | None,
    overrides: tuple[str, ...],
    config: str | None,
    seed: int | None,
    stages: str | None,
    restart: str | None,
    workers: int | None,
    executor: str | None,
    dask_scheduler: str | None,
    device: str | None,
    draws: int | None,
    quiet: bool,
) -> int:
    """Run the pipeline; return the exit code."""
    name = plugin or _name_of(simulations)
    plugin = _plugin(plugin, simulations, prior, group_column)
    directory = RunDirectory(out or f"runs/{name}-{preset}")
    registry = Registry([plugin])
    registry.plugin(plugin)  # a wrong name is answered before anything heavy is imported

    from sbi_core.pipeline.config import assignments, reading_options, resolve
    from sbi_core.pipeline.fixed import options_of_files
    from sbi_core.pipeline.runner import execute

    fixed = None
    if simulations and prior:
        given = dict(assignments(overrides))
        fixed = options_of_files(simulations, prior, preset, group_column or "", given)
    resolved = resolve(
        registry,
        plugin,
        preset=preset,
        file=config and directory.path(config),
        overrides=overrides,
        seed=seed,
        defaults=fixed,
        infer__observations=observations,
        **reading_options(reading),
        infer__draws=draws,
        simulate__workers=workers,
        simulate__executor=executor or ("dask" if dask_scheduler else None),
        simulate__dask_scheduler=dask_scheduler,
        device=device,
    )
    done = execute(
        resolved,
        directory,
        registry,
        stages=None if stages is None else [s.strip() for s in stages.split(",")],
        restart=restart,
        progress=make_progress(quiet=quiet),
    )
    if not done.directory.report_json.exists():
        return 0
    report = done.report
    if not quiet:
        _echo(report, directory.given)
    return EXIT_CALIBRATION if report["status"] == "calibration_failed" else 0


def _name_of(simulations: str | None) -> str:
    """Return the first part of the name of the run directory."""
    return Path(simulations or SIMULATIONS).stem


def _plugin(
    plugin: str | None, simulations: str | None, prior: str | None, group_column: str | None
) -> str:
    """Return the plugin to run.

    Raises
    ------
    ConfigError
        If none is named, or options do not go together.
    """
    if simulations and not prior:
        msg = "--simulations needs --prior FILE, the priors that the simulations were drawn from"
        raise ConfigError(msg)
    if simulations and plugin not in (None, SIMULATIONS):
        msg = f"--simulations takes the place of a plugin: leave out '{plugin}'"
        raise ConfigError(msg)
    lost = "--prior" if prior else "--group-column" if group_column else ""
    if lost and not simulations:
        msg = f"{lost} goes with --simulations FILE"
        raise ConfigError(msg)
    if plugin is None and not simulations:
        msg = "name the plugin to run, or give --simulations FILE; see `sbi-run plugins`"
        raise ConfigError(msg)
    return plugin or SIMULATIONS


def _echo(report: dict[str, object], target: Path) -> None:
    from sbi_core.posterior import UNLIKE
    from sbi_core.report.view import first_sentence

    first = first_sentence(report)
    if first:
        click.echo(first)
    combined = report.get("combined") or []
    assert isinstance(combined, list)
    rules = dict.fromkeys(c["combiner"] for c in combined)
    marginalised = report.get("marginalised") or [{}]
    assert isinstance(marginalised, list)
    nominal = marginalised[0].get("nominal")
    for rule in rules:
        last = [c for c in combined if c["combiner"] == rule][-1]
        parameters = last["parameters"]
        mean, sd = ([p[key] for p in parameters.values()] for key in ("mean", "sd"))
        values = measured(parameters, mean, sd)
        flags = last.get("flags", [])
        note = "  (comparison only)" if "comparison_only" in flags else ""
        if rule == nominal:
            note = "  (if the model is exactly right)"
        if UNLIKE in flags:
            note = "  (not what this model makes: the error bar does not hold)"
        click.echo(f"{rule}, N = {last['n']}: {values}{note}")
    calibration = report.get("calibration")
    if isinstance(calibration, dict):
        click.echo(f"calibration: {calibration['verdict']}")
    if report.get("flags"):
        click.echo(f"flags: {', '.join(report['flags'])}")  # type: ignore[arg-type]
    click.echo(f"report: {target / 'report.html'}")
