"""Options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "columns",
    "config",
    "dask_scheduler",
    "device",
    "executor",
    "objects",
    "out",
    "overrides",
    "pipeline",
    "plugin",
    "preset",
    "quiet",
    "reading",
    "seed",
    "workers",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def _mapping(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Return ``{name: column}`` of words NAME=COLUMN."""
    pairs = [[part.strip() for part in word.split("=", 1)] for word in value]
    for word, pair in zip(value, pairs, strict=True):
        if len(pair) != 2 or not all(pair):
            msg = f"write NAME=COLUMN, for example fe_h=FeH, not '{word}'"
            raise click.BadParameter(msg, ctx, param)
    return {name: column for name, column in pairs}


plugin = click.option(
    "--plugin", metavar="NAME", required=True, help="The plugin, for example chempy."
)
preset = click.option(
    "--preset", metavar="NAME", default="standard", show_default=True,
    help="Size of the run: quick, standard, large or paper.",
)  # fmt: skip
out = click.option("--out", metavar="DIR", help="Run directory.", show_default="runs/NAME-PRESET")
overrides = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Set an option, for example simulate.n=20000 (repeatable). `sbi-run show NAME` lists "
    "the options.",
)  # fmt: skip
config = click.option(
    "--config", metavar="FILE", help="TOML file of options, applied before --set."
)
seed = click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    help="Seed of all random numbers.",
    show_default="1",
)
workers = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Worker processes.",
    show_default="all cores",
)
executor = click.option(
    "--executor", metavar="NAME", help="process, serial or dask.", show_default="that of the preset"
)
dask_scheduler = click.option(
    "--dask-scheduler", metavar="ADDR",
    help="Address of a running dask scheduler; implies --executor dask.", show_default="a local "
    "cluster",
)  # fmt: skip
device = click.option("--device", metavar="NAME", help="cpu or cuda.", show_default="cpu")
draws = click.option(
    "--draws", metavar="N", type=click.IntRange(min=10),
    help="Posterior draws per object, at least 10.", show_default="infer.draws of the preset",
)  # fmt: skip
observations = click.option(
    "--observations", metavar="FILE",
    help="Objects to infer.", show_default="the plugin's example",
)  # fmt: skip
objects = click.option("--observations", metavar="FILE", required=True, help="File of the objects.")
columns = click.option(
    "--column", "columns", metavar="NAME=COLUMN", multiple=True, callback=_mapping,
    help="Read COLUMN of the table as NAME, for example fe_h=FeH (repeatable).",
)  # fmt: skip
reading = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Set an option of reading or analysis, for example simulator.alpha_proxy=true "
    "(repeatable). Other options are fixed by the training.",
)  # fmt: skip
stages = click.option(
    "--stages", metavar="A,B", help="Run only these stages; the stages before must be done."
)
restart = click.option(
    "--restart", metavar="STAGE",
    help="Delete the results of this stage and of all later ones, and run them again.",
)  # fmt: skip
debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
quiet = click.option("--quiet", is_flag=True, help="Print no progress.")


def pipeline(function: Function) -> Function:
    """Add the options of the whole pipeline."""
    for option in (
        debug,
        quiet,
        draws,
        device,
        dask_scheduler,
        executor,
        workers,
        restart,
        stages,
        seed,
        config,
        overrides,
        out,
        columns,
        observations,
        preset,
    ):
        function = option(function)
    return function
