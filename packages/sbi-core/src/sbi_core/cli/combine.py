"""``sbi-run combine RUN --observations FILE``: one posterior for all objects of a file."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.cli.results import flag_sentences, values_of
from sbi_core.errors import ConfigError, counted

if TYPE_CHECKING:
    from sbi_core.data.reading import Reading

__all__ = ["command"]


@click.command(
    "combine",
    epilog=examples(
        "sbi-run combine runs/chempy-standard --observations stars.csv",
        "sbi-run combine runs/chempy-standard --observations stars.csv --sizes 10,100 "
        "--combiner gaussian",
    ),
)
@click.argument("run")
@options.objects
@options.tables
@options.reading
@click.option(
    "--combiner", metavar="NAME", show_default="that of the run",
    help="Rule of the combination. `group-moments` and `deepset` need a run that trained them.",
)  # fmt: skip
@click.option(
    "--sizes", metavar="N,N", show_default="all objects",
    help="Combine the first N objects, for each N.",
)  # fmt: skip
def command(
    run: str,
    observations: str,
    reading: Reading,
    overrides: tuple[str, ...],
    combiner: str | None,
    sizes: str | None,
) -> None:
    """Combine the objects of a file into one posterior of the shared parameters.

    The objects must belong to one group, for example the stars of one galaxy.
    """
    from sbi_core.pipeline.reading import read_objects
    from sbi_core.pipeline.runner import Run
    from sbi_core.posterior import UNLIKE

    numbers = _numbers(sizes)
    loaded = Run(run, overrides=overrides)
    simulator = loaded.simulator  # may change the working directory
    data = read_objects(simulator, loaded.directory.path(observations), reading)
    for note in (*data.notes, *data.reasons):
        click.echo(f"observations: {note}")
    if max(numbers, default=0) > len(data):
        msg = f"--sizes {max(numbers)}: the file has {counted(len(data), 'object')}"
        raise ConfigError(msg)
    main, nominal = loaded.config.combiner.name, loaded.nominal_combiner
    rules = [combiner] if combiner else list(dict.fromkeys([main, nominal]))
    for n, rule in product(numbers or [len(data)], rules):
        result = loaded.combine(data[:n], rule)
        if result.warning:
            click.echo(result.warning)
        note = "  (if the model is exactly right)" if rule == nominal != main else ""
        if UNLIKE in result.flags:
            note = "  (not what this model makes: the error bar does not hold)"
        click.echo(f"{result.combiner}, N = {n}: {values_of(result)}{note}")
        facts = result.diagnostics
        if "consistency_p" in facts:
            click.echo(
                f"    consistency of the objects: chi2 = {facts['consistency_chi2']:.1f} for "
                f"{facts['consistency_dof']:.0f} degrees of freedom, p = "
                f"{facts['consistency_p']:.2g}"
            )
        for sentence in flag_sentences(result.flags):
            click.echo(f"    {sentence}")


def _numbers(sizes: str | None) -> list[int]:
    """Return the numbers of objects to combine, without repetition."""
    try:
        numbers = [int(n) for n in sizes.split(",")] if sizes is not None else []
    except ValueError:
        numbers = [0]
    if any(n < 1 for n in numbers):
        msg = f"--sizes takes whole numbers above 0, separated by commas, got '{sizes}'"
        raise ConfigError(msg)
    return list(dict.fromkeys(numbers))
