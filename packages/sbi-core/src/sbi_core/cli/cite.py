"""``sbi-run cite RUN``: references."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples

__all__ = ["command"]


@click.command("cite", epilog=examples("sbi-run cite runs/chempy-standard"))
@click.argument("run")
def command(run: str) -> None:
    """List the references for the results of RUN, and the versions of the software."""
    from sbi_core.files.directory import read_json
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    for reference in loaded.simulator.citations:
        click.echo(f"- {reference}")
    versions = read_json(loaded.directory.provenance).get("versions", {})
    click.echo("versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
