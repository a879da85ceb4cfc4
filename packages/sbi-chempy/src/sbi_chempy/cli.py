"""``sbi-run chempy experiments``: the experiments of Buck et al. 2025."""

from __future__ import annotations

from typing import Any

import click

from sbi_core import experiment_options

__all__ = ["experiments"]

_NAMES = ("same", "alternative", "galaxy", "shifted", "single", "all")


@click.command(
    "experiments",
    epilog="\b\nExamples:\n"
    "  sbi-run data fetch chempy-yields\n"
    "  sbi-run chempy experiments same shifted --out runs/experiments\n"
    "  sbi-run chempy experiments galaxy --stars Mock_Data_TNG.npz",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=click.Choice(_NAMES))
@experiment_options
@click.option("--stars", metavar="FILE", help="Star particles of the experiment 'galaxy'.")
@click.option(
    "--n", metavar="N", type=click.IntRange(min=1), default=1000, show_default=True,
    help="Stars of a mock galaxy.",
)  # fmt: skip
@click.option(
    "--births", type=click.Choice(["published", "prior"]), default="published",
    show_default=True, help="Birth times: U(2, 12.8) Gyr as published, or draws of the prior.",
)  # fmt: skip
def experiments(names: tuple[str, ...], **options: Any) -> None:
    """Repeat experiments of Buck et al. 2025 and compare the results with the published values.

    \b
    same         truth -2.3, -2.89; stars simulated like the training set
    alternative  the same truth, but the stars have other yields
    galaxy       1000 star particles of an IllustrisTNG galaxy (--stars)
    shifted      truth -2.1, -3.0, away from the prior mean
    single       stars drawn from the prior, one by one, in all six parameters
    all          all of them

    Every experiment writes a table, its numbers (JSON) and figures into DIR/NAME. The estimator
    is trained once on the TNG yields, in DIR/run; `single` trains its own, in DIR/run-single.
    """  # noqa: D301
    from sbi_chempy.experiments import Options, perform

    every = [name for name in _NAMES if name != "all"]
    for text in perform(every if "all" in names else names, Options(**options)):
        click.echo(text)
