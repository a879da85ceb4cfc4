"""``sbi-run compare RUN RUN --observations FILE``: probabilities of several simulators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.cli.results import flag_sentences, measured, values_of
from sbi_core.cli.targets import checked_target
from sbi_core.errors import ConfigError, counted
from sbi_core.files.directory import write_json

if TYPE_CHECKING:
    from sbi_core.data.reading import Reading

__all__ = ["command"]

_NONE = (
    "None of these models makes these objects: the probabilities only tell which of them is nearer."
)


@click.command(
    "compare",
    epilog=examples(
        "sbi-run compare runs/chempy-standard runs/chempy-tng --observations stars.csv",
    ),
)
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@options.objects
@options.tables
@click.option(
    "--simulations", metavar="N", type=click.IntRange(min=1000), default=100_000,
    show_default=True, help="Simulated objects per model.",
)  # fmt: skip
@click.option(
    "--steps", metavar="N", type=click.IntRange(min=1), default=1500, show_default=True,
    help="Training steps of the classifier.",
)  # fmt: skip
@options.seed
@click.option("--out", metavar="FILE", help="Also write the numbers to this file (JSON).")
def command(
    runs: tuple[str, ...],
    observations: str,
    reading: Reading,
    simulations: int,
    steps: int,
    seed: int | None,
    out: str | None,
) -> None:
    """Compare the simulators of several runs as models of the objects of a file.

    The objects must belong to one group, and the simulators must have the same observables.
    Trains a classifier on simulated groups with errors and missing values like those of the
    objects. Prints the probability of every model, its posterior of the shared parameters, and
    the average over the models. Probabilities are relative: all models may be wrong. If the check
    of the model fails for all of them, the first line reads: none of these models makes these
    objects.
    """
    import numpy as np

    from sbi_core.combiners.comparison import CompareConfig, ModelComparison, average
    from sbi_core.pipeline.reading import read_objects
    from sbi_core.pipeline.runner import Run
    from sbi_core.posterior import UNLIKE, UNLIKE_NOMINAL
    from sbi_core.rng import stream
    from sbi_core.threads import single_thread

    if out:
        checked_target(out, inputs=(observations,))
    seed = 1 if seed is None else seed
    loaded = {Path(run).name or run: Run(run) for run in runs}
    if len(loaded) != len(runs):
        msg = f"runs need different folder names to be told apart, got {', '.join(runs)}"
        raise ConfigError(msg)
    first = next(iter(loaded.values()))
    simulator = first.simulator  # may change the working directory
    data = read_objects(simulator, first.directory.path(observations), reading)
    if len(data.groups) > 1:
        msg = f"the objects belong to {len(data.groups)} groups; compare one group at a time"
        raise ConfigError(msg)
    for note in (*data.notes, *data.reasons):
        click.echo(f"observations: {note}")
    config = CompareConfig(max_objects=max(1, len(data)), simulations=simulations, steps=steps)
    comparison = ModelComparison({name: run.simulator for name, run in loaded.items()}, config)
    with single_thread():
        facts = comparison.fit(data.batch, seed=seed)
    result = comparison.probabilities(data)
    posteriors = [run.combine(data, run.nominal_combiner) for run in loaded.values()]
    none = all({UNLIKE, UNLIKE_NOMINAL} & {*c.flags} for c in posteriors)
    if none:
        bars = " The error bars do not hold." if all(c.warning for c in posteriors) else ""
        click.echo(_NONE + bars)
    groups = counted(round(facts["groups"]), "simulated group")
    click.echo(
        f"on {groups}: {facts['accuracy']:.0%} of those held out classified "
        f"correctly, calibration error {facts['calibration_error']:.3f}"
    )
    word = "relative probability" if none else "probability"
    for name, p, combined in zip(loaded, result.probability, posteriors, strict=True):
        if combined.warning:
            click.echo(f"{name}: {combined.warning}")
        click.echo(f"{name}: {word} {p:.3g}; {values_of(combined)}")
        for sentence in flag_sentences(combined.flags):
            click.echo(f"    {sentence}")
    rng = stream(seed, "compare", "average")
    draws, mean, cov = average(posteriors, result.probability, draws=4000, rng=rng)
    sd = [float(v) ** 0.5 for v in cov.diagonal()]
    low, high = np.quantile(draws, [0.16, 0.84], axis=0)
    names = posteriors[0].names
    click.echo(f"average over the models, N = {len(data)}: {measured(names, mean, sd)}")
    if out:
        content = {
            "n": len(data),
            "none_of_these_models": none,
            "facts": dict(facts),
            "models": {
                name: {"flags": [], **combined.summary(), "probability": float(p)}
                for name, p, combined in zip(loaded, result.probability, posteriors, strict=True)
            },
            "average": {
                n: {"mean": float(m), "sd": s, "p16": float(lo), "p84": float(hi)}
                for n, m, s, lo, hi in zip(names, mean, sd, low, high, strict=True)
            },
        }
        write_json(first.directory.path(out), content)
        click.echo(f"numbers: {out}")
