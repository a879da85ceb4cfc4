"""``sbi-run report RUN``: write the report again from the records."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("report")
@click.argument("run")
def command(run: str) -> None:
    """Write report.html and report.json of RUN again."""
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    loaded.write_report()
    click.echo(str(loaded.directory.report_html))
