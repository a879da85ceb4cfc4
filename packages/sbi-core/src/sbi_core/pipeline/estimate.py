"""How long a large run will take, measured before it starts."""

from __future__ import annotations

import math
from time import perf_counter

from sbi_core.pipeline.context import Context
from sbi_core.rng import stream
from sbi_core.simulate.executors import default_workers
from sbi_core.simulate.store import single_thread
from sbi_core.train import TrainConfig

__all__ = ["announce"]

_ROWS = 512


def announce(context: Context) -> str:
    """Return a sentence with the expected time of the simulations and the size of the training.

    Times ``draw`` on 512 rows (after a warm-up), on one core.
    """
    config = context.config
    with single_thread():
        context.simulator.draw(_ROWS, stream(config.seed, "estimate", 0))
        start = perf_counter()
        context.simulator.draw(_ROWS, stream(config.seed, "estimate", 1))
        per_row = (perf_counter() - start) / _ROWS
    workers = 1 if config.simulate.executor == "serial" else config.simulate.workers
    workers = default_workers() if workers is None else workers
    minutes = config.simulate.n * per_row / workers / 60
    train = TrainConfig(**config.train)
    steps = train.epochs * math.ceil(0.8 * config.simulate.n / train.batch_size)
    return (
        f"preset '{config.preset}': {config.simulate.n} simulations, about {minutes:.1f} min on "
        f"{workers} core(s); training of {steps} steps, typically {steps / 150 / 60:.0f} to "
        f"{steps / 50 / 60:.0f} min; interrupt at any time, the same command goes on"
    )
