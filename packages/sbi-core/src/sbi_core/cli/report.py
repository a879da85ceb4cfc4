"""``sbi-run report RUN``: write the report again."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples

__all__ = ["command"]


@click.command("report", epilog=examples("sbi-run report runs/chempy-standard --figures pdf"))
@click.argument("run")
@click.option(
    "--figures",
    type=click.Choice(["pdf", "png"]),
    help="Also write the figures as files of this type.",
)
def command(run: str, figures: str | None) -> None:
    """Write report.html, report.json and estimator/card.md of RUN again from its results.

    With `--figures`, the folder RUN/figures receives one file per figure: corner, convergence,
    sbc, coverage, tarp, recovery, training, ... Text stays text in PDF files, so that labels can
    be edited and searched. The figures of a plugin are drawn anew from the observations.
    """
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    loaded.write_report()
    click.echo(str(loaded.directory.report_html))
    if figures:
        for path in loaded.write_figures(figures):
            click.echo(str(path))
