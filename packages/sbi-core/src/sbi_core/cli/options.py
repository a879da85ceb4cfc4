"""Options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

from sbi_core.data.reading import Reading

__all__ = [
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
    "tables",
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
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"{twice} is given {names.count(twice)} columns; keep one"
        raise click.BadParameter(msg, ctx, param)
    return {name: column for name, column in pairs}


def _units(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """Return ``{name: unit}`` of words NAME=UNIT, or UNIT for columns without one."""
    pairs = [[part.strip() for part in f"={word}".rsplit("=", 2)[-2:]] for word in value]
    names = [name for name, _ in pairs]
    for word, (name, unit) in zip(value, pairs, strict=True):
        if not unit or word.count("=") > 1 or word.startswith("="):
            msg = f"write UNIT or NAME=UNIT, for example flux=uJy, not '{word}'"
            raise click.BadParameter(msg, ctx, param)
        if names.count(name) > 1:
            msg = f"{name or 'columns without a unit'}: {names.count(name)} units; keep one"
            raise click.BadParameter(msg, ctx, param)
    return {name: unit for name, unit in pairs}


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Return the numbers of words N,N."""
    try:
        words = [] if value is None else value.split(",")
        return None if value is None else tuple(float(w) for w in words if w.strip())
    except ValueError:
        msg = f"write numbers separated by commas, for example -9999,99, not '{value}'"
        raise click.BadParameter(msg, ctx, param) from None


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
_columns = click.option(
    "--column", "columns", metavar="NAME=COLUMN", multiple=True, callback=_mapping,
    help="Read COLUMN of the table as NAME, for example fe_h=FeH (repeatable).",
)  # fmt: skip
_unit = click.option(
    "--unit", "units", metavar="[NAME=]UNIT", multiple=True, callback=_units,
    help="Unit of a column, for example age=Myr, or of all columns without one (repeatable).",
)  # fmt: skip
_strict = click.option(
    "--strict", is_flag=True,
    help="Refuse a file with rows that cannot be used; default: leave these rows out and count "
    "them.",
)  # fmt: skip
_missing = click.option(
    "--missing", metavar="N,N", callback=_numbers,
    show_default="-999, -9999, ... and those of the plugin",
    help="Numbers that mark missing values.",
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
simulations = click.option(
    "--simulations", metavar="FILE",
    help="Simulations that you have, in place of a plugin: npz or HDF5 with theta and x, or a "
    "table with a column per parameter. Needs --prior.",
)  # fmt: skip
prior = click.option(
    "--prior", metavar="FILE", help="TOML file of the priors of these simulations."
)
group_column = click.option(
    "--group-column", metavar="NAME",
    help="Column of simulations that belong together (cosmology, galaxy) and are never split "
    "between training and test.", show_default="column `group`, if there is one",
)  # fmt: skip
debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
quiet = click.option("--quiet", is_flag=True, help="Print no progress.")


def tables(function: Function) -> Function:
    """Add the options of reading tables, which arrive together as ``reading``."""

    @wraps(function)
    def command(
        *args: Any, columns: Any, units: Any, strict: bool, missing: Any, **rest: Any
    ) -> Any:
        reading = Reading(columns, strict, missing, units=units)
        return function(*args, reading=reading, **rest)

    for option in (_missing, _strict, _unit, _columns):
        command = option(command)
    return cast("Function", command)


def reading_options(function: Function) -> Function:
    """Add ``--column``, ``--unit``, ``--strict``, ``--missing`` and ``--set`` to a command.

    It gets the options of a run as ``overrides`` (:func:`sbi_core.load_run`), the others as
    ``reading``: keyword arguments of ``Run.observations``, ``Run.infer`` and ``Run.combine``.
    """

    @wraps(function)
    def command(*args: Any, reading: Reading, **rest: Any) -> Any:
        names = "columns", "strict", "missing", "units"
        return function(*args, reading={n: getattr(reading, n) for n in names}, **rest)

    return tables(reading(cast("Function", command)))


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
        tables,
        observations,
        preset,
        group_column,
        prior,
        simulations,
    ):
        function = option(function)
    return function
