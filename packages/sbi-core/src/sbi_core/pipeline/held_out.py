"""Held-out simulations of a fixed set, one of every unit of splitting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sbi_core.components import Simulator, Training
from sbi_core.data.observations import Observations
from sbi_core.rng import stream
from sbi_core.training.splits import splits_of

__all__ = ["held_out", "independent_rows"]

I64 = NDArray[np.int64]


def independent_rows(training: Training, rows: I64) -> I64:
    """Return one of every unit of splitting: copies would count the same test several times."""
    return np.sort(rows[np.unique(_keys(training, rows), return_index=True)[1]])


def _keys(training: Training, rows: I64) -> I64:
    keys = training.batch[rows].split_key
    return rows if keys is None else np.asarray(keys.cpu().numpy())


def held_out(simulator: Simulator, training: Training, seed: int, n: int) -> Observations:
    """Return n simulations that the training never saw, as objects with known parameters.

    They are independent; with shared parameters they are those of one unit of splitting.
    """
    rows = splits_of(training).test
    space = simulator.parameters
    if any(p.scope == "global" for p in space.parameters):
        keys = _keys(training, rows)
        rows = rows[keys == stream(seed, "example").choice(keys)]
    else:
        rows = independent_rows(training, rows)
    chosen = np.sort(stream(seed, "example").permutation(rows)[:n])
    batch = simulator.observe(training.batch[chosen], stream(seed, "example", "noise"))
    return Observations.from_batch(
        batch,
        id=[f"simulation {k}" for k in chosen],
        observables=simulator.observables,
        truth_names=space.names,
        source="held-out simulations",
    )
