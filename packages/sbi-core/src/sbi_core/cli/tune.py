"""``sbi-run tune --plugin NAME``: search for better options of estimator and training."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("tune")
@click.option("--plugin", metavar="NAME", required=True, help="Whose pipeline.")
@click.option("--preset", default="standard", show_default=True, help="Its preset.")
@click.option("--out", metavar="DIR", help="Run directory; default runs/NAME-PRESET-tune.")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Set an option that is not searched (repeatable).",
)  # fmt: skip
@click.option("--config", metavar="FILE", help="TOML file with options.")
@click.option(
    "--search", metavar="KEY=RANGE", multiple=True,
    help="Search an option: LOW:HIGH, LOW:HIGH:log, or A,B,C (repeatable).",
)  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(min=1), default=20, show_default=True,
    help="Number of trials, those of an interrupted search included.",
)  # fmt: skip
@click.option(
    "--calibration-weight", type=click.FloatRange(min=0), default=1.0, show_default=True,
    help="Penalty for ranks that are not uniform, nats per unit of KS distance.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="Root seed; default 1.")
@click.option("--device", help="cpu or cuda.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
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
    """Search for better options of estimator and training.

    Writes DIR/tune/best.toml; `sbi-run --plugin NAME --config DIR/tune/best.toml` uses it. The
    same command goes on where it was interrupted.
    """
    from sbi_core.registry import Registry

    registry = Registry([plugin])
    registry.plugin(plugin)

    from sbi_core.pipeline.tune import Search, tune
    from sbi_core.progress import make_progress

    found = tune(
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
    for key, value in found.options.items():
        click.echo(f"    {key} = {value}")
    counts = sum(t["state"] == "complete" for t in found.trials)
    click.echo(f"best score {found.score:.4f} nats of {counts} finished trials: {found.path}")
