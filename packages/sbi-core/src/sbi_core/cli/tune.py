"""``sbi-run tune --plugin NAME``: search for better options of estimator and training."""

from __future__ import annotations

import click

from sbi_core.cli import options
from sbi_core.cli.groups import examples
from sbi_core.errors import counted
from sbi_core.progress import make_progress
from sbi_core.registry import Registry

__all__ = ["command"]


@click.command(
    "tune",
    epilog=examples(
        "sbi-run tune --plugin chempy --preset quick --trials 10",
        "sbi-run tune --plugin chempy --search train.learning_rate=1e-3:1e-2:log",
        "sbi-run run chempy --config runs/chempy-standard-tune/tune/best.toml",
    ),
)
@options.plugin
@options.preset
@click.option("--out", metavar="DIR", show_default="runs/NAME-PRESET-tune", help="Run directory.")
@click.option(
    "--search", metavar="KEY=RANGE", multiple=True,
    show_default="learning rate, batch size, size of the network",
    help="Search this option in LOW:HIGH, LOW:HIGH:log or A,B,C (repeatable).",
)  # fmt: skip
@options.overrides
@options.config
@click.option(
    "--trials", metavar="N", type=click.IntRange(min=1), default=20, show_default=True,
    help="Number of trials, those of an interrupted search included.",
)  # fmt: skip
@click.option(
    "--calibration-weight", metavar="W", type=click.FloatRange(min=0), default=1.0,
    show_default=True,
    help="Penalty for SBC ranks that are not uniform, in nats per unit of KS distance.",
)  # fmt: skip
@options.seed
@options.device
@options.quiet
def command(
    plugin: str,
    preset: str,
    out: str | None,
    overrides: tuple[str, ...],
    config: str | None,
    search: tuple[str, ...],
    trials: int,
    calibration_weight: float,
    seed: int | None,
    device: str | None,
    quiet: bool,
) -> None:
    """Search for better options of the estimator and its training with optuna.

    Needs `sbi-core[tune]`. Every trial trains on the same simulations; its score is the mean
    negative log-probability of the validation set plus a penalty for miscalibration. The best
    options are written to DIR/tune/best.toml, for `sbi-run run NAME --config`. The same command
    continues an interrupted search.
    """
    registry = Registry([plugin])
    registry.plugin(plugin)

    from sbi_core.pipeline.tune import Search, tune

    tuned = tune(
        registry,
        plugin,
        out or f"runs/{plugin}-{preset}-tune",
        trials=trials,
        search=[Search.parse(text) for text in search],
        calibration_weight=calibration_weight,
        progress=make_progress(quiet=quiet),
        preset=preset,
        overrides=list(overrides),
        file=config,
        seed=seed,
        device=device,
    )
    for key, value in tuned.options.items():
        click.echo(f"    {key} = {value}")
    counts = sum(t["state"] == "complete" for t in tuned.trials)
    click.echo(
        f"best score {tuned.score:.4f} nats of {counted(counts, 'finished trial')}: {tuned.path}"
    )
