"""Options of the training loop."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from sbi_core.components import Training
from sbi_core.validation import Options, validate

__all__ = ["TrainConfig", "config_of"]

_STEPS = 2000  # of a training whose epochs are not given: fewer are not enough for a flow
_BATCHES = 32  # per epoch, where the batch size is not given


class TrainConfig(Options):
    """Options of the training loop."""

    epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs; default: as many as make 2000 steps, between 50 and 300. With "
        "max_seconds, an upper limit.",
    )
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Time budget, seconds: the number of epochs follows from 20 timed steps. "
        "Results then depend on the speed of the machine; without it they do not.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Rows per step; default: a power of two near 1/32 of the training rows, "
        "between 32 and 512.",
    )
    optimizer: Literal["adam-onecycle", "schedulefree"] = Field(
        default="adam-onecycle", description="Adam with one-cycle schedule, or schedule-free AdamW."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="Peak learning rate; default 5e-3 (schedulefree 2e-3)."
    )
    warmup_steps: int = Field(default=200, ge=0, description="Warm-up steps of schedulefree.")
    retries: int = Field(
        default=2,
        ge=0,
        description="Restarts after overfitting (best epoch in the first half), each with more "
        "weight decay; the best weights of all are kept (not with max_seconds).",
    )
    clip: float = Field(default=5.0, gt=0, description="Largest norm of the gradient.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many epochs without improvement (schedulefree only).",
    )
    val_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Fraction of keys for validation."
    )
    test_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Fraction of keys for the test."
    )
    threads: int = Field(
        default=1, ge=1, description="Torch threads; more only pay for wide networks."
    )
    compile: bool = Field(
        default=False, description="Use torch.compile; pays for trainings of several minutes."
    )
    max_memory_gb: float = Field(
        default=2.0,
        gt=0,
        description="Simulations on disk larger than this, GiB, are streamed instead of loaded.",
    )

    @model_validator(mode="after")
    def _patience_needs_no_schedule(self) -> TrainConfig:
        if self.patience is not None and self.optimizer == "adam-onecycle":
            msg = "'patience' needs optimizer = 'schedulefree': a one-cycle run has a fixed length"
            raise ValueError(msg)
        return self

    def length(self, rows: int) -> tuple[int, int]:
        """Return epochs and rows per step of a training on that many rows."""
        share = max(rows / _BATCHES, 1.0)
        size = self.batch_size or min(max(2 ** round(math.log2(share)), 32), 512)
        wanted = math.ceil(_STEPS / math.ceil(rows / size))
        return self.epochs or min(max(wanted, 50), 300), size

    @property
    def peak(self) -> float:
        """The learning rate in use."""
        return self.learning_rate or (5e-3 if self.optimizer == "adam-onecycle" else 2e-3)


def config_of(training: Training) -> TrainConfig:
    """Return the validated options of a training.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range.
    """
    if isinstance(training.config, TrainConfig):
        return training.config
    return validate(TrainConfig, training.config or {}, "train")
