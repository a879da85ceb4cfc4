"""``sbi-run cite RUN``: references."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples
from sbi_core.files.directory import read_json

__all__ = ["command"]


@click.command("cite", epilog=examples("sbi-run cite runs/chempy-standard"))
@click.argument("run")
def command(run: str) -> None:
    """List the references for the results of RUN, BibTeX of the software, and versions."""
    from sbi_core.pipeline.runner import Run
    from sbi_core.report.references import bibtex, references

    loaded = Run(run)
    records = read_json(loaded.directory.provenance)
    versions = records.get("versions", {})
    own = loaded.simulator.citations
    estimator = loaded.config.estimator.name
    calibrated = "diagnose" in records.get("stages", {})
    for reference in references(versions, own, calibrated=calibrated, estimator=estimator):
        click.echo(f"- {reference}")
    click.echo("versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    click.echo(bibtex(versions, records.get("created", "")[:4]))
