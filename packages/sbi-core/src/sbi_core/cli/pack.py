"""``sbi-run pack RUN``: all shards in one file."""

from __future__ import annotations

import click

from sbi_core.cli.groups import examples

__all__ = ["command"]


@click.command("pack", epilog=examples("sbi-run pack runs/chempy-large"))
@click.argument("run")
@click.option("--keep-shards", is_flag=True, help="Keep the shard files.")
def command(run: str, keep_shards: bool) -> None:
    """Move the simulations of RUN into one file, sims/pack.h5, and delete the shard files.

    All other commands read the pack.
    """
    from sbi_core.pipeline.runner import Run

    path, shards, size = Run(run).pack(keep_shards=keep_shards)
    click.echo(f"{shards} shards in {path} ({size})")
