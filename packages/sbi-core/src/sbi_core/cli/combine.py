"""``sbi-run combine RUN --observations FILE``: one posterior for all objects of a file."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("combine")
@click.argument("run")
@click.option("--observations", metavar="FILE", required=True, help="Objects of one group.")
@click.option("--combiner", metavar="NAME", help="Rule; default: that of the run.")
@click.option("--sizes", metavar="N,N", help="Combine the first N objects; default: all.")
def command(run: str, observations: str, combiner: str | None, sizes: str | None) -> None:
    """Combine the objects in FILE into one posterior of the shared parameters."""
    from sbi_core.errors import ConfigError
    from sbi_core.pipeline.runner import Run

    loaded = Run(run)
    data = loaded.observations(observations)
    for note in data.notes:
        click.echo(f"observations: {note}")
    try:
        numbers = [int(n) for n in sizes.split(",")] if sizes else [len(data)]
    except ValueError:
        msg = f"--sizes takes whole numbers separated by commas, got '{sizes}'"
        raise ConfigError(msg) from None
    for n in numbers:
        if not 0 <= n <= len(data):
            msg = f"--sizes {n}: the file has {len(data)} objects"
            raise ConfigError(msg)
        result = loaded.combine(data[:n], combiner)
        values = ", ".join(
            f"{name} = {m:.4f} +- {s:.4f}"
            for name, m, s in zip(result.names, result.mean, result.sd, strict=True)
        )
        note = f"  [{', '.join(result.flags)}]" if result.flags else ""
        click.echo(f"{result.combiner}, N = {n}: {values}{note}")
        if "consistency_p" in result.diagnostics:
            chi2, p = (result.diagnostics[f"consistency_{k}"] for k in ("chi2", "p"))
            click.echo(f"    parts agree with chi2 = {chi2:.1f}, p = {p:.2g}")
