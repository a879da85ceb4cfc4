"""Stage ``emulate`` (optional): a surrogate of the simulator."""

from __future__ import annotations

from typing import Any

from sbi_core.pipeline.context import Context

__all__ = ["execute"]


def execute(context: Context) -> dict[str, Any]:
    """Train the surrogate; report its error per output on rows it never saw."""
    section = context.config.emulate
    if not section.enabled:
        return {}
    from sbi_core.emulator import Emulator, EmulatorConfig

    config = EmulatorConfig(**section.options)
    context.progress.start("emulate", config.epochs, "epochs")
    emulator = Emulator(config)
    emulator.fit(
        context.simulator,
        context.simulations[0].succeeded,
        seed=context.config.seed,
        directory=context.directory.emulator,
        callbacks=[lambda line: context.progress.advance(1, f"loss {line['val_loss']:.4g}")],
    )
    emulator.save(context.directory.emulator)
    errors = emulator.errors
    worst = max(errors["median"].values())
    context.progress.finish(f"median error at most {worst:.4g}")
    return {"median_abs_error": errors["median"], "p95_abs_error": errors["p95"]}
