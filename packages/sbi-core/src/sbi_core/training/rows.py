"""The simulations of a training: where they are, theta, noise, and checks before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.errors import TrainingError
from sbi_core.priors.space import ParameterSpace, as_float64
from sbi_core.rng import stream
from sbi_core.training.config import config_of
from sbi_core.training.splits import split_seed, splits_of

__all__ = [
    "check_theta",
    "known_rows",
    "observed_test",
    "observed_sample",
    "resident",
    "snap_to_support",
    "theta_of",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_STANDARDIZE_ROWS = 100_000  # training rows that set means and scales
_STANDARDIZE_NUMBERS = 60_000_000  # fewer rows where a row is an image or a spectrum
_FLOAT32 = 1.2e-7  # relative rounding error


def resident(training: Training) -> Training:
    """Return the training with its simulations in memory, if they fit into ``max_memory_gb``."""
    rows = training.batch
    if isinstance(rows, Batch) or rows.nbytes > config_of(training).max_memory_gb * 2**30:
        return training
    return replace(training, batch=rows.load())


def known_rows(training: Training, most: int = 100_000) -> Batch:
    """Return all simulations in memory, or at most ``most`` of those on disk, evenly spaced."""
    rows = training.batch
    if isinstance(rows, Batch):
        return rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
    return rows[chosen]


def observed_test(training: Training, rows: I64) -> Batch:
    """Return rows of the test split, with noise of its own."""
    clean = training.batch[rows].to("cpu", torch.float32)
    return training.observe(clean, stream(split_seed(training), "train", "test"))


def observed_sample(training: Training) -> Batch:
    """Return noisy rows of the training split, for means and scales.

    Raises
    ------
    TrainingError
        If data or errors are not finite, or all outputs are the same.
    """
    rng = stream(training.seed, "train", "standardize")
    rows = splits_of(training).train
    generator = stream(training.seed, "train", "shape")
    one = training.observe(training.batch[rows[:1]].to("cpu", torch.float32), generator)
    most = min(_STANDARDIZE_ROWS, max(1000, _STANDARDIZE_NUMBERS // max(one.x[0].numel(), 1)))
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    clean = training.batch[rows].to("cpu", torch.float32)
    batch = training.observe(clean, rng)
    bad = (~torch.isfinite(batch.x) & batch.observed).reshape(len(batch), -1).any(1)
    if batch.x_err is not None:
        wrong = ~((batch.x_err > 0) & torch.isfinite(batch.x_err)) & batch.observed
        bad |= wrong.reshape(len(batch), -1).any(1)
    if bool(bad.any()):
        first = int(rows[int(torch.nonzero(bad)[0, 0])])
        msg = (
            f"observed data or errors are not finite (or errors not positive) in simulation "
            f"{first} ({int(bad.sum())} such rows): mark them as failed or mask them"
        )
        raise TrainingError(msg)
    outputs = clean.x.reshape(len(clean), -1)
    if bool((outputs == outputs[0]).all()) and clean.context is None:
        msg = "all simulations have the same outputs: there is nothing to learn from"
        raise TrainingError(msg)
    return batch


# -- theta -----------------------------------------------------------------------------------


def snap_to_support(theta: F64, space: ParameterSpace) -> F64:
    """Move values that rounding to float32 put outside the support back into it.

    Only the ends of continuous parameters and the values of discrete ones are affected.

    Parameters
    ----------
    theta
        (n, d), physical units.
    space
        Its parameters.

    Returns
    -------
    (n, d)
    """
    low, high = space.support
    with np.errstate(invalid="ignore"):
        below = (theta < low) & (theta >= low - _FLOAT32 * np.abs(low))
        above = (theta > high) & (theta <= high + _FLOAT32 * np.abs(high))
    theta = np.where(below, low, np.where(above, high, theta))
    for p, s in space.blocks():
        if not p.prior.continuous:
            values, _ = p.prior.outcomes()
            middles = (values[1:] + values[:-1]) / 2
            near = values[np.searchsorted(middles, theta[:, s]).clip(max=len(values) - 1)]
            close = np.abs(theta[:, s] - near) <= _FLOAT32 * np.abs(near)
            theta[:, s] = np.where(close, near, theta[:, s])
    return theta


def theta_of(batch: Batch, training: Training) -> F64:
    """Return the inferred columns of theta, (n, d), float64."""
    assert batch.theta is not None
    return snap_to_support(as_float64(batch.theta)[:, list(training.columns)], training.space)


def check_theta(training: Training, inside: Callable[[F64], NDArray[np.bool_]]) -> None:
    """Check that every simulation has parameters that can be trained on.

    ``inside`` returns which rows of theta (n, d) may have a density, (n,).

    Raises
    ------
    TrainingError
        If there is no simulation, theta is missing or not finite, or lies outside the prior.
    """
    batch, names = training.batch, training.space.names
    if len(batch) == 0:
        msg = "there is no valid simulation to train on: all of them failed"
        raise TrainingError(msg)
    if len(training.columns) != len(names):
        msg = f"{len(training.columns)} columns of theta for {len(names)} parameters {list(names)}"
        raise TrainingError(msg)
    parts: Iterable[Batch] = (
        (batch,)
        if isinstance(batch, Batch)
        else (batch.read(k, ("theta",)) for k in range(len(batch.ends) - 1))
    )
    start, wrong, first, outside, example = 0, 0, "", 0, ""
    for part in parts:
        if part.theta is None or part.theta.ndim != 2:
            msg = "training needs simulations with theta of shape (n, d)"
            raise TrainingError(msg)
        if part.theta.shape[1] <= max(training.columns):
            msg = (
                f"theta has {part.theta.shape[1]} columns, parameter "
                f"'{names[int(np.argmax(training.columns))]}' is column {max(training.columns)}"
            )
            raise TrainingError(msg)
        theta = theta_of(part, training)
        bad = ~np.isfinite(theta)
        if bad.any() and not first:
            row, column = np.argwhere(bad)[0]
            first = f"parameter '{names[column]}' is not finite in simulation {start + row}"
        wrong += int(bad.any(1).sum())
        out = ~inside(theta) & ~bad.any(1)
        if out.any() and not example:
            row = int(np.flatnonzero(out)[0])
            example = f"simulation {start + row}: {_offender(theta[row], training.space)}"
        outside += int(out.sum())
        start += len(part)
    if wrong:
        msg = f"{first} ({wrong} such rows)"
        raise TrainingError(msg)
    if outside:
        msg = f"{example} ({outside} such rows): give the prior the simulations were drawn from"
        raise TrainingError(msg)


def _offender(theta: F64, space: ParameterSpace) -> str:
    """Return a sentence about the parameter of one row (d,) that lies outside its prior."""
    for p, s in space.blocks():
        value = theta[s]
        if not p.prior.inside(value[None])[0]:
            shown = value[0] if len(value) == 1 else value
            return f"{p.name} = {shown} lies outside the prior to train with, {p.prior}"
    return "a parameter has no probability under the prior to train with"
