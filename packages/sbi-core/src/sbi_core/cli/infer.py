"""``sbi-run infer RUN --observations FILE``: amortised inference with a trained run."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("infer")
@click.argument("run")
@click.option("--observations", metavar="FILE", required=True, help="Objects to infer.")
@click.option("--out", metavar="FILE", help="Summary table; default RUN/infer-<name>.ecsv.")
@click.option("--draws", type=click.IntRange(min=10), help="Posterior draws per object.")
@click.option("--samples", metavar="FILE", help="Also write the draws (netCDF).")
def command(run: str, observations: str, out: str | None, draws: int | None, samples: str) -> None:
    """Infer the objects in FILE with the trained estimator of RUN."""
    from sbi_core.pipeline.runner import Run
    from sbi_core.pipeline.stages.infer import infer
    from sbi_core.records.posterior_file import write_posterior
    from sbi_core.rng import stream

    loaded = Run(run)
    data = loaded.observations(observations)
    count = draws or loaded.config.infer.draws
    found, percentile = infer(loaded._context, data, count)
    target = Path(out) if out else Path(run) / f"infer-{Path(observations).stem}.ecsv"
    table = found.summary()
    table["support_percentile"] = percentile
    table.meta |= {"prior": found.space.hash, "source": data.source, "draws": count}
    table.write(target, format="ascii.ecsv" if target.suffix == ".ecsv" else None, overwrite=True)
    if samples:
        prior = found.space.sample(1000, stream(loaded.config.seed, "prior"))
        write_posterior(Path(samples), found, data, percentile, prior=prior)
    for note in data.notes:
        click.echo(f"observations: {note}")
    flagged = sum(bool(f) for f in found.flags)
    click.echo(f"{len(data)} objects, {flagged} outside the training set: {target}")
