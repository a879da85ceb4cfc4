"""``sbi-run compare RUN RUN --observations FILE``: which simulator made the objects?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sbi_core.posterior import CombinedPosterior

__all__ = ["command"]


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option("--observations", metavar="FILE", required=True, help="Objects of one group.")
@click.option(
    "--simulations", type=click.IntRange(min=1000), default=100_000, show_default=True,
    help="Simulated objects per model.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=1500, show_default=True, help="Steps.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Root seed.")
@click.option("--out", metavar="FILE", help="Write the numbers there (JSON).")
def command(
    runs: tuple[str, ...],
    observations: str,
    simulations: int,
    steps: int,
    seed: int,
    out: str | None,
) -> None:
    """Compare the simulators of RUNS as models of the objects in FILE.

    Trains a classifier on groups that every simulator makes, observed like the objects, and prints
    the probability of every model, its posterior of the shared parameters, and the average over
    the models.
    """
    from sbi_core.combiners.comparison import CompareConfig, ModelComparison, average
    from sbi_core.errors import ConfigError
    from sbi_core.files.directory import write_json
    from sbi_core.pipeline.runner import Run
    from sbi_core.rng import stream
    from sbi_core.simulate.store import single_thread

    loaded = {Path(run).name or run: Run(run) for run in runs}
    if len(loaded) != len(runs):
        msg = f"runs need different folder names to be told apart, got {', '.join(runs)}"
        raise ConfigError(msg)
    data = next(iter(loaded.values())).observations(observations)
    if len(data.groups) > 1:
        msg = f"the objects belong to {len(data.groups)} groups; compare one group at a time"
        raise ConfigError(msg)
    for note in data.notes:
        click.echo(f"observations: {note}")
    config = CompareConfig(max_objects=max(1, len(data)), simulations=simulations, steps=steps)
    comparison = ModelComparison({name: run.simulator for name, run in loaded.items()}, config)
    with single_thread():
        facts = comparison.fit(data.batch, seed=seed)
    found = comparison.probabilities(data)
    click.echo(
        f"on {facts['groups']:.0f} simulated groups: {facts['accuracy']:.0%} of those held out "
        f"recognised, calibration error {facts['calibration_error']:.3f}"
    )
    posteriors = []
    for (name, run), p in zip(loaded.items(), found.probability, strict=True):
        combined = run.combine(data)
        posteriors.append(combined)
        click.echo(f"{name}: probability {p:.3g}; {_values(combined)}")
    rng = stream(seed, "compare", "average")
    draws, mean, cov = average(posteriors, found.probability, draws=4000, rng=rng)
    sd = [float(v) ** 0.5 for v in cov.diagonal()]
    names = posteriors[0].names
    listed = ", ".join(f"{n} = {m:.4f} +- {s:.4f}" for n, m, s in zip(names, mean, sd, strict=True))
    click.echo(f"average over the models, N = {len(data)}: {listed}")
    if out:
        content = {
            "n": len(data),
            "facts": dict(facts),
            "models": {
                name: {"probability": float(p), "flags": [*combined.flags], **combined.summary()}
                for name, p, combined in zip(loaded, found.probability, posteriors, strict=True)
            },
            "average": {
                n: {"mean": float(m), "sd": s, "p16": float(lo), "p84": float(hi)}
                for n, m, s, (lo, hi) in zip(names, mean, sd, _band(draws), strict=True)
            },
        }
        write_json(Path(out), content)
        click.echo(f"numbers: {out}")


def _values(combined: CombinedPosterior) -> str:
    parts = zip(combined.names, combined.mean, combined.sd, strict=True)
    values = ", ".join(f"{name} = {m:.4f} +- {s:.4f}" for name, m, s in parts)
    return f"{values}  [{', '.join(combined.flags)}]" if combined.flags else values


def _band(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(np.quantile(draws, [0.16, 0.84], axis=0).T)
