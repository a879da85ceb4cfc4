"""``sbi-run refine RUN --object ID``: more simulations for one object."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("refine")
@click.argument("run")
@click.option("--object", "chosen", metavar="ID", required=True, help="Which object.")
@click.option("--observations", metavar="FILE", help="Where it is; default: those of the run.")
@click.option("--rounds", type=click.IntRange(min=1), default=4, show_default=True, help="At most.")
@click.option(
    "--simulations", type=click.IntRange(min=100), default=5000, show_default=True,
    help="New simulations per round.",
)  # fmt: skip
@click.option("--draws", type=click.IntRange(min=10), default=4000, show_default=True, help="Kept.")
@click.option("--out", metavar="FILE", help="Draws (netCDF); default RUN/refined-ID.nc.")
def command(
    run: str,
    chosen: str,
    observations: str | None,
    rounds: int,
    simulations: int,
    draws: int,
    out: str | None,
) -> None:
    """Refine the posterior of one object of RUN by simulations in its neighbourhood.

    Every round simulates from the prior, truncated to where the posterior of the round before has
    density, and trains the run's estimator anew. The simulations of RUN are the first round.
    Writes the draws, and what every round did beside them (.json).
    """
    import numpy as np

    from sbi_core.errors import ObservationError, near_matches
    from sbi_core.exports import safe_name
    from sbi_core.files.directory import write_json
    from sbi_core.pipeline.runner import Run
    from sbi_core.refine import RefineConfig, Round, refine
    from sbi_core.training.loop import TrainConfig

    loaded = Run(run)
    context = loaded._context
    objects = loaded.observations(observations) if observations else context.observations
    row = np.flatnonzero(objects.id == chosen)
    if not row.size:
        msg = f"no object '{chosen}'{near_matches(chosen, objects.id.tolist())} in {objects.source}"
        raise ObservationError(msg)
    target = Path(out) if out else loaded.directory.root / f"refined-{safe_name(chosen)}.nc"

    def show(found: Round) -> None:
        click.echo(
            f"round {found.number}: {found.simulations} new simulations, trained on "
            f"{found.trained_on}, {found.prior_mass:.3g} of the prior, "
            f"calibration: {found.verdict.level}"
        )

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
    write_json(target.with_suffix(".json"), {"object": chosen, "rounds": rounds_done})
    values = samples.values[:, 0]
    for k, name in enumerate(samples.names):
        click.echo(f"    {name} = {values[:, k].mean():.4g} +- {values[:, k].std():.2g}")
    click.echo(f"draws: {target}")
