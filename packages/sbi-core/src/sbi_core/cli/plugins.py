"""``sbi-run plugins``: what is installed."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("plugins")
def command() -> None:
    """List installed plugins, what they offer, and what is wrong with them."""
    from sbi_core.registry import KINDS, Registry

    for plugin in Registry().plugins:
        status = "" if plugin.status == "loaded" else f"  [{plugin.status}]"
        click.echo(f"{plugin.name}  ({plugin.distribution} {plugin.version}){status}")
        if plugin.problem:
            click.echo(f"    problem: {plugin.problem}")
        for warning in plugin.warnings:
            click.echo(f"    warning: {warning}")
        for kind in KINDS:
            for c in (c for c in plugin.components if c.kind == kind):
                click.echo(f"    {kind:<10} {c.name:<14} {c.summary}")
