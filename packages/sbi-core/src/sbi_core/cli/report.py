"""``sbi-run report RUN``: write the report again."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples

__all__ = ["command"]


@click.command("report", epilog=examples("sbi-run report runs/chempy-standard"))
@click.argument("run")
def command(run: str) -> None:
    """Write report.html, report.json and estimator/card.md of RUN again from its results."""
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    loaded.write_report()
    click.echo(str(loaded.directory.report_html))
