"""``sbi-run pack RUN``: all shards in one file."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("pack")
@click.argument("run")
@click.option("--keep-shards", is_flag=True, help="Do not delete the shard files.")
def command(run: str, keep_shards: bool) -> None:
    """Put the simulations of RUN into one file, sims/pack.h5, and delete the shard files.

    Everything that reads the run reads the pack.
    """
    from sbi_core.pipeline.runner import Run

    path, shards, size = Run(run).pack(keep_shards=keep_shards)
    click.echo(f"{shards} shards in {path} ({size})")
