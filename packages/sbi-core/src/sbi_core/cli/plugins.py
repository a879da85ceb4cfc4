"""``sbi-run plugins``: what is installed."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples
from sbi_core.registry import Registry, defects

__all__ = ["command"]


@click.command("plugins", epilog=examples("sbi-run plugins"))
def command() -> None:
    """List the installed plugins, their components, and what prevents one from working."""
    for plugin in Registry().plugins:
        status = "" if plugin.status == "loaded" else f"  [{plugin.status}]"
        click.echo(f"{plugin.name}  ({plugin.distribution} {plugin.version}){status}")
        if plugin.problem:
            click.echo(f"    problem: {plugin.problem}")
        for sentence in (*plugin.warnings, *defects(plugin)):
            click.echo(f"    warning: {sentence}")
        width = max((len(c.name) for c in plugin.components), default=0)
        for c in plugin.components:
            click.echo(f"    {c.kind:<10} {c.name:<{width}}  {c.summary}")
