"""``sbi-run data list|fetch``: files that do not ship with the packages."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.group("data")
def command() -> None:
    """List or fetch data sets (looked up in SBI_DATA_DIR first)."""


@command.command("list")
def list_data() -> None:
    """List data sets: name, size, whether it is there, licence, citation."""
    from sbi_core.data.fetch import datasets
    from sbi_core.registry import Registry

    found = datasets(Registry())
    if not found:
        click.echo("no installed plugin declares data sets")
    for d in found.values():
        here = "here" if d.present else "not fetched"
        click.echo(f"{d.name}  {d.size / 1e6:.2f} MB, {len(d.files)} files, {here}")
        click.echo(f"    {d.title}\n    licence: {d.licence}; cite: {d.citation}\n    from {d.url}")


@command.command("fetch")
@click.argument("name")
def fetch_data(name: str) -> None:
    """Fetch data set NAME; every file is checked against its SHA-256."""
    from sbi_core.data.fetch import fetch
    from sbi_core.registry import Registry

    click.echo(f"'{name}' lies in {fetch(name, Registry(), progress=True)}")
