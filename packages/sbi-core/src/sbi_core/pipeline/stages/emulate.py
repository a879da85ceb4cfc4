"""Stage ``emulate`` (optional): a surrogate of the simulator."""

from __future__ import annotations

from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages import Job, StageResult
from sbi_core.progress import epoch_callback
from sbi_core.rng import stream
from sbi_core.simulate.emulator import Emulator, EmulatorConfig, draw_box

__all__ = ["ahead", "execute"]


def ahead(context: Context, after: Stage) -> Job | None:
    """Return the whole stage, if an emulator is wanted.

    Raises
    ------
    ConfigError
        If the simulations do not fit into the memory allowed.
    """
    if not context.config.emulate.enabled:
        return None
    _check_size(context, _config(context))
    return execute


def execute(context: Context) -> StageResult:
    """Train the surrogate; report its error per output on held-out rows.

    Raises
    ------
    ConfigError
        If the simulations do not fit into the memory allowed.
    """
    if not context.config.emulate.enabled:
        return StageResult()
    config = _config(context)
    _check_size(context, config)
    emulator = Emulator(config)
    emulator.fit(
        context.simulator,
        context.simulations,
        wide=_wide(context, config),
        seed=context.config.seed,
        directory=context.directory.emulator,
        callbacks=[epoch_callback(context.progress, "emulate")],
    )
    emulator.save(context.directory.emulator)
    errors = emulator.errors
    worst = max(errors["median"].values())
    context.progress.finish(f"median error at most {worst:.4g}")
    facts = {"median_abs_error": errors["median"], "p95_abs_error": errors["p95"]}
    facts["rms_error"] = emulator.rms
    if emulator.wide_errors:
        facts["box_median_abs_error"] = emulator.wide_errors["median"]
        facts["box_p95_abs_error"] = emulator.wide_errors["p95"]
    return StageResult({**facts, **({"holes": emulator.holes} if emulator.holes else {})})


def _config(context: Context) -> EmulatorConfig:
    return EmulatorConfig(**context.config.emulate.options)


def _check_size(context: Context, config: EmulatorConfig) -> None:
    """Raise ConfigError when the simulations do not fit into the memory allowed."""
    need = context.streamed.nbytes / 2**30
    if need > config.max_memory_gb:
        msg = (
            f"the emulator is trained in memory, and {context.config.simulate.n} simulations take "
            f"{need:.2f} GiB, more than emulate.max_memory_gb = {config.max_memory_gb:g}: raise "
            "it, lower simulate.n, or switch it off with --set emulate.enabled=false"
        )
        raise ConfigError(msg)


def _wide(context: Context, config: EmulatorConfig) -> Batch | None:
    """Return simulations that are uniform in a box around the prior, or None."""
    if not config.box_rows:
        return None
    size = context.config.simulate.shard_size
    context.progress.start("box", config.box_rows, "runs")
    parts = []
    for k, start in enumerate(range(0, config.box_rows, size)):
        rng = stream(context.config.seed, "emulate", "box", k)
        rows = min(size, config.box_rows - start)
        theta = draw_box(context.simulator.parameters, rows, rng, config.box_sigmas)
        parts.append(context.simulator.simulate(theta, rng))
        context.progress.advance(rows)
    return Batch.cat(parts)
