"""``sbi-run infer RUN --observations FILE``: amortised inference with a trained run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sbi_core.errors import ConfigError

__all__ = ["command"]


_TABLES = (".ecsv", ".csv", ".tsv", ".fits", ".vot")


def _check_target(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise before the work is done when its result could not be written."""
    if path.suffix not in suffixes:
        msg = f"cannot write '{path}': unknown format, use {', '.join(suffixes)}"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"cannot write '{path}': folder '{path.parent}' does not exist"
        raise ConfigError(msg)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        msg = f"cannot write '{path}': permission denied"
        raise ConfigError(msg)


@click.command("infer")
@click.argument("run")
@click.option("--observations", metavar="FILE", required=True, help="Objects to infer.")
@click.option("--out", metavar="FILE", help="Summary table; default RUN/infer-<name>.ecsv.")
@click.option("--draws", type=click.IntRange(min=10), help="Posterior draws per object.")
@click.option("--samples", metavar="FILE", help="Also write the draws (netCDF).")
def command(run: str, observations: str, out: str | None, draws: int | None, samples: str) -> None:
    """Infer the objects in FILE with the trained estimator of RUN."""
    from sbi_core.pipeline.runner import Run
    from sbi_core.pipeline.stages.infer import infer, prior_draws
    from sbi_core.records.posterior_file import write_posterior
    from sbi_core.tables import FORMATS

    loaded = Run(run)
    data = loaded.observations(observations)
    count = draws or loaded.config.infer.draws
    target = Path(out) if out else Path(run) / f"infer-{Path(observations).stem}.ecsv"
    _check_target(target, _TABLES)
    if samples:
        _check_target(Path(samples), (".nc",))
    found, percentile = infer(loaded._context, data, count)
    table = found.summary()
    table["support_percentile"] = percentile
    table.meta |= {"prior": found.space.hash, "source": data.source, "draws": count}
    table.write(target, format=FORMATS[target.suffix], overwrite=True)
    if samples:
        write_posterior(
            Path(samples), found, data, percentile, prior=prior_draws(loaded._context)
        )
    for note in data.notes:
        click.echo(f"observations: {note}")
    flagged = sum(bool(f) for f in found.flags)
    click.echo(f"{len(data)} objects, {flagged} outside the training set: {target}")
