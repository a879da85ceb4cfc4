"""``sbi-run cite RUN``: what to cite."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("cite")
@click.argument("run")
def command(run: str) -> None:
    """List what to cite for the results of RUN, and the versions that made them."""
    from sbi_core.files.directory import read_json
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    for reference in loaded.simulator.citations:
        click.echo(f"- {reference}")
    found = read_json(loaded.directory.provenance).get("versions", {})
    click.echo("versions: " + ", ".join(f"{k} {v}" for k, v in found.items()))
