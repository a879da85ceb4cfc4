"""``sbi-run refine RUN --object ID``: more simulations for one object."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.cli.targets import checked_target, files_read
from sbi_core.data.writing import safe_name
from sbi_core.errors import ConfigError, ObservationError, near_matches
from sbi_core.files.directory import read_json, write_json

if TYPE_CHECKING:
    from sbi_core.data.reading import Reading

__all__ = ["command"]


@click.command(
    "refine",
    epilog=examples(
        "sbi-run refine runs/chempy-standard --object star-0007",
        "sbi-run refine runs/chempy-standard --object sun --observations stars.csv --rounds 2",
    ),
)
@click.argument("run")
@click.option("--object", "chosen", metavar="ID", required=True, help="Identifier of the object.")
@click.option(
    "--observations", metavar="FILE", show_default="the observations of the run",
    help="File that contains the object.",
)  # fmt: skip
@options.tables
@click.option(
    "--rounds", metavar="N", type=click.IntRange(min=1), default=4, show_default=True,
    help="Largest number of rounds, the first one included.",
)  # fmt: skip
@click.option(
    "--simulations", metavar="N", type=click.IntRange(min=100), default=5000, show_default=True,
    help="New simulations per round.",
)  # fmt: skip
@click.option(
    "--draws", metavar="N", type=click.IntRange(min=10), default=4000, show_default=True,
    help="Draws of the refined posterior that are written.",
)  # fmt: skip
@click.option(
    "--out", metavar="FILE", show_default="RUN/refined-ID.nc",
    help="File of the draws (.nc); the record of the rounds is written beside it (.json).",
)  # fmt: skip
def command(
    run: str,
    chosen: str,
    observations: str | None,
    reading: Reading,
    rounds: int,
    simulations: int,
    draws: int,
    out: str | None,
) -> None:
    """Refine the posterior of one object of RUN with new simulations.

    Every round simulates from the prior, truncated to the region where the posterior of the
    previous round has density, and trains the estimator of the run again. The simulations of RUN
    are the first round.
    """
    import numpy as np

    from sbi_core.pipeline.reading import read_objects
    from sbi_core.pipeline.runner import Run
    from sbi_core.refine import RefineConfig, Round, refine
    from sbi_core.training.config import TrainConfig

    loaded = Run(run)
    context = loaded._context
    objects = context.observations
    if observations:
        objects = read_objects(loaded.simulator, loaded.directory.path(observations), reading)
    row = np.flatnonzero(objects.id == chosen)
    if not row.size:
        msg = f"no object '{chosen}'{near_matches(chosen, objects.id.tolist())} in {objects.source}"
        raise ObservationError(msg)
    given = Path(out) if out else loaded.directory.given / f"refined-{safe_name(chosen)}.nc"
    target = loaded.directory.path(given)
    given_file = loaded.directory.path(observations) if observations else None
    checked_target(target, (".nc",), inputs=files_read(loaded.simulator, given_file))
    target = target.absolute()
    record = target.with_suffix(".json")
    if record.exists() and (other := read_json(record).get("object")) != chosen:
        msg = f"'{target}' holds the draws of object '{other}'; choose another --out"
        raise ConfigError(msg)

    def show(done: Round) -> None:
        click.echo(
            f"round {done.number}: {done.simulations} new simulations, trained on "
            f"{done.trained_on}, {done.prior_mass:.3g} of the prior, "
            f"calibration: {done.verdict.level}"
        )

    with closing(context.tolerance), context.tolerance.active():
        posterior = refine(
            loaded.simulator,
            context.new_estimator,
            context.embedding,
            objects[row],
            config=RefineConfig(rounds=rounds, simulations=simulations),
            train=TrainConfig(**loaded.config.train),
            parameters=[p.name for p in context.space.parameters],
            first=context.training.batch,
            seed=loaded.config.seed,
            device=loaded.config.device,
            report=show,
        )
    samples = posterior.sample(draws, loaded.config.seed)
    samples.to_netcdf(target)
    rounds_done = [r.to_spec() for r in posterior.rounds]
    write_json(record, {"object": chosen, "rounds": rounds_done})
    values = samples.values[:, 0]
    for k, name in enumerate(samples.names):
        click.echo(f"    {name} = {values[:, k].mean():.4g} +- {values[:, k].std():.2g}")
    click.echo(f"draws: {given}")
