"""``sbi-run data list|fetch``: files that do not ship with the packages."""

from __future__ import annotations

import click

from sbi_core.cli.groups import Group, examples
from sbi_core.data.fetch import datasets, fetch
from sbi_core.errors import counted
from sbi_core.registry import Registry

__all__ = ["command"]


@click.group("data", cls=Group)
def command() -> None:
    """List or download data sets that are not part of the packages.

    Files are searched in SBI_DATA_DIR first, then in the cache of the user. Nothing is downloaded
    unless `sbi-run data fetch` is called.
    """


@command.command("list", epilog=examples("sbi-run data list"))
def list_data() -> None:
    """List the data sets of all plugins: size, presence, licence, citation and source."""
    sets = datasets(Registry())
    if not sets:
        click.echo("no installed plugin declares data sets")
    for d in sets.values():
        here = "present" if d.present else "not fetched"
        click.echo(f"{d.name}  {d.size / 1e6:.2f} MB, {counted(len(d.files), 'file')}, {here}")
        click.echo(
            f"    {d.title}\n    licence: {d.licence}; cite: {d.citation}\n    from {d.source}"
        )


@command.command("fetch", epilog=examples("sbi-run data fetch chempy-yields"))
@click.argument("name")
def fetch_data(name: str) -> None:
    """Download the data set NAME into the cache and verify the SHA-256 of every file."""
    click.echo(f"'{name}' is in {fetch(name, Registry(), progress=True)}")
