r"""The training loop.

Minimises the mean of ``network.loss(targets, observe(batch))`` with noise drawn afresh for every
slice of every epoch. Everything random follows from (seed, epoch): a run that was killed and
started again ends with the same bits. The learning rate of ``adam-onecycle`` is

.. math:: \eta(s) = \eta_{\max}\,\left[\tfrac1{25} + \tfrac{24}{25}
          \tfrac{1 - \cos \pi s/w}{2}\right]\ (s < w), \qquad
          \eta_{\max}\,\left[10^{-3} + (1 - 10^{-3})
          \tfrac{1 + \cos \pi (s - w)/(n - w)}{2}\right]\ (s \ge w)

at step *s* of *n*, with a warm-up of *w = 0.1 n* steps.

References:
    | Super-convergence (Smith & Topin, 2017), https://arxiv.org/abs/1708.07120
    | The Road Less Scheduled (Defazio et al., 2024), https://arxiv.org/abs/2405.15682
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from sbi_core.batch import Batch
from sbi_core.checkpoint import Checkpoint, architecture, digest, write_checkpoint
from sbi_core.components import Callback, Training, TrainingRecord
from sbi_core.errors import DataFileError, TrainingError
from sbi_core.rng import stream
from sbi_core.splits import Splits, split_by_key
from sbi_core.tensorfile import write_atomic
from sbi_core.validation import validate

__all__ = [
    "TrainConfig",
    "Trainable",
    "config_of",
    "mean_loss",
    "one_cycle",
    "seeded",
    "splits_of",
    "train",
]

I64 = NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_EVAL_ROWS = 8192  # rows per network call outside training
_MEASURED_STEPS = 20


class TrainConfig(BaseModel):
    """Options of the training loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=30, ge=1, description="Epochs; with max_seconds, at most so many.")
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Time budget: 20 steps are measured and the number of epochs follows. "
        "Results then depend on the speed of the machine; left out, they do not.",
    )
    batch_size: int = Field(
        default=512, ge=1, description="Rows per step; 1024 above a million rows."
    )
    optimizer: Literal["adam-onecycle", "schedulefree"] = Field(
        default="adam-onecycle", description="Adam with one-cycle schedule, or schedule-free AdamW."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="Peak learning rate; default 5e-3 (schedulefree 2e-3)."
    )
    warmup_steps: int = Field(default=200, ge=0, description="Warm-up of schedulefree, steps.")
    clip: float = Field(default=5.0, gt=0, description="Largest norm of the gradient.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after so many epochs without gain (schedulefree only).",
    )
    val_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Share of keys for validation."
    )
    test_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Share of keys for the test."
    )
    threads: int = Field(
        default=1, ge=1, description="Torch threads; more help only for wide networks."
    )
    compile: bool = Field(default=False, description="Use torch.compile; pays above some minutes.")

    @model_validator(mode="after")
    def _patience_needs_no_schedule(self) -> TrainConfig:
        if self.patience is not None and self.optimizer == "adam-onecycle":
            msg = "'patience' needs optimizer = 'schedulefree': a one-cycle run has a fixed length"
            raise ValueError(msg)
        return self

    @property
    def peak(self) -> float:
        """The learning rate in use."""
        return self.learning_rate or (5e-3 if self.optimizer == "adam-onecycle" else 2e-3)


class Trainable(nn.Module):
    """A network that knows its own loss."""

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of every row, (n,), for targets (n, k) and observed data."""
        raise NotImplementedError


def splits_of(training: Training) -> Splits:
    """Return the splits that :func:`train` uses for this training."""
    keys = training.batch.split_key
    rows = np.arange(len(training.batch)) if keys is None else keys.cpu().numpy()
    config = config_of(training)
    return split_by_key(rows, training.seed, val=config.val_fraction, test=config.test_fraction)


def config_of(training: Training) -> TrainConfig:
    """Return the options of the loop, validated."""
    if isinstance(training.config, TrainConfig):
        return training.config
    return validate(TrainConfig, training.config or {}, "train")


# -- small parts -------------------------------------------------------------------------


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate at a step of a cycle of that many steps."""
    warm = max(1.0, 0.1 * steps)
    if step < warm:
        return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / warm)))
    t = (step - warm) / max(1.0, steps - warm)
    return peak * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * t)))


@contextmanager
def seeded(rng: np.random.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after it."""
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(rng.integers(0, 2**63 - 1)))
        yield


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    weights = [p for p in network.parameters() if p.requires_grad]
    if config.optimizer == "adam-onecycle":
        return torch.optim.AdamW(weights, config.peak, weight_decay=config.weight_decay, fused=True)
    import schedulefree

    optimizer: torch.optim.Optimizer = schedulefree.AdamWScheduleFree(
        weights,
        lr=config.peak,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
    )
    return optimizer


def _set_mode(network: nn.Module, optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Switch network and, when it is schedule-free, optimizer: its weights differ in eval."""
    network.train(training)
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch is not None:
        switch()


# -- the loop ----------------------------------------------------------------------------


class _Loop:
    """The state of one training: what a checkpoint holds, and the steps that change it."""

    def __init__(self, network: Trainable, training: Training, targets: Tensor) -> None:
        self.config = config_of(training)
        self.training = training
        self.splits = splits_of(training)
        self.network = network.to(training.device)
        self.batch = training.batch.to(training.device, torch.float32)
        self.targets = targets.to(training.device, torch.float32)
        self.optimizer = _optimizer(network, self.config)
        self.loss = torch.compile(network.loss) if self.config.compile else network.loss
        self.steps = math.ceil(len(self.splits.train) / self.config.batch_size)
        self.epochs = self.config.epochs
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.validation = self.observed(self.splits.val, "validation")

    # -- one epoch

    def observed(self, rows: I64, name: str) -> tuple[Tensor, Batch]:
        """Return targets and data of some rows, always with the same noise."""
        ix = torch.as_tensor(rows, device=self.targets.device)
        rng = stream(self.training.seed, "train", name)
        return self.targets[ix], self.training.observe(self.batch[ix], rng)

    def step(self, rows: Tensor, rng: np.random.Generator) -> float:
        """Take one step and return its loss; NaN when loss or gradient is not finite."""
        batch = self.training.observe(self.batch[rows], rng)
        self.optimizer.zero_grad()
        loss = self.loss(self.targets[rows], batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        value = float(loss.detach() + 0.0 * norm)
        if math.isfinite(value):
            self.optimizer.step()
        return value

    def epoch(self) -> dict[str, float]:
        """Train for one epoch, validate, keep the best weights; return the line of metrics."""
        start, number = time.perf_counter(), len(self.history) + 1
        rng = stream(self.training.seed, "train", number)
        order = torch.as_tensor(rng.permutation(self.splits.train), device=self.targets.device)
        total = 0.0
        with seeded(rng, self.training.device):
            _set_mode(self.network, self.optimizer, True)
            for k, rows in enumerate(order.tensor_split(self.steps)):
                self.set_rate((number - 1) * self.steps + k)
                value = self.step(rows, rng)
                if not math.isfinite(value):
                    self.stop_at(number, k, rows)
                total += value * len(rows)
            _set_mode(self.network, self.optimizer, False)
        val = float(mean_loss(self.network, *self.validation).mean())
        if math.isnan(val):
            msg = f"the validation loss is not a number in epoch {number}: check the simulations"
            raise TrainingError(msg)
        line = {
            "epoch": number,
            "train_loss": total / len(order),
            "val_loss": val,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - start,
        }
        if not self.best or val < self.history[self.best_epoch - 1]["val_loss"]:
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            self.best_epoch = number
        self.history.append(line)
        return line

    def set_rate(self, step: int) -> None:
        if self.config.optimizer == "adam-onecycle":
            rate = one_cycle(step, self.epochs * self.steps, self.config.peak)
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def stop_at(self, epoch: int, step: int, rows: Tensor) -> None:
        where = ""
        if self.training.directory is not None:
            path = Path(self.training.directory) / "failed_step.json"
            content = {"epoch": epoch, "step": step, "rows": rows.tolist()}
            write_atomic(path, json.dumps(content).encode())
            where = f"; its rows are listed in {path}"
        msg = (
            f"the loss is not finite in epoch {epoch}, step {step} "
            f"(rows {rows[:5].tolist()} and {max(0, len(rows) - 5)} more{where}): "
            "check the simulations for extreme values or lower the learning rate"
        )
        raise TrainingError(msg)

    @property
    def finished(self) -> bool:
        done, patience = len(self.history), self.config.patience
        return done >= self.epochs or (patience is not None and done - self.best_epoch >= patience)

    def fit_budget(self) -> None:
        """Set the number of epochs that fit into ``max_seconds``, from steps on a copy."""
        if self.config.max_seconds is None:
            return
        trial = copy.copy(self)
        trial.network = copy.deepcopy(self.network)
        trial.loss, trial.optimizer = trial.network.loss, _optimizer(trial.network, self.config)
        _set_mode(trial.network, trial.optimizer, True)
        rng = stream(self.training.seed, "train", "measure")
        size = min(self.config.batch_size, len(self.splits.train))
        rows = torch.as_tensor(self.splits.train[:size], device=self.targets.device)
        with seeded(rng, self.training.device):
            for _ in range(3):
                trial.step(rows, rng)
            start = time.perf_counter()
            for _ in range(_MEASURED_STEPS):
                trial.step(rows, rng)
        per_step = (time.perf_counter() - start) / _MEASURED_STEPS
        validation = 0.4 * len(self.splits.val) / size  # forward only
        affordable = self.config.max_seconds / (per_step * (self.steps + validation))
        self.epochs = max(1, min(self.config.epochs, int(affordable)))

    # -- checkpoints

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What must agree for a checkpoint to be continued."""
        return {
            "options": self.config.model_dump(mode="json"),
            "seed": self.training.seed,
            "split": self.splits.hash,
            "network": architecture(self.network),
            "simulations": digest(self.targets, self.batch.x),
        }

    def save(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Write the checkpoint; call it in eval mode."""
        facts = {
            "fingerprint": fingerprint,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        write_checkpoint(path, self.network, self.best, self.optimizer, facts)

    def resume(self, path: Path, fingerprint: Mapping[str, Any]) -> bool:
        """Continue from that checkpoint; False when there is none to use."""
        if not path.exists():
            return False
        try:
            checkpoint = Checkpoint.read(path)
        except DataFileError as error:
            _LOG.warning("%s; training starts again from the first epoch", error)
            return False
        checkpoint.check(fingerprint)
        self.best = checkpoint.restore(self.network, self.optimizer)
        self.epochs, self.best_epoch = checkpoint.facts["epochs"], checkpoint.facts["best_epoch"]
        self.history = checkpoint.facts["history"]
        return True


def _metrics(path: Path, lines: Sequence[Mapping[str, float]]) -> None:
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def mean_loss(network: Trainable, targets: Tensor, batch: Batch) -> Tensor:
    """Return the loss of every row, (n,), float64, without gradients."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(batch), _EVAL_ROWS):
            rows = slice(start, start + _EVAL_ROWS)
            parts.append(network.loss(targets[rows], batch[rows]).double())
    return torch.cat(parts)


def train(
    network: Trainable,
    training: Training,
    targets: Tensor,
    callbacks: Sequence[Callback] = (),
    *,
    log_det: Tensor | None = None,
) -> tuple[TrainingRecord, Splits]:
    r"""Train a network and leave its best weights in it.

    Parameters
    ----------
    network
        Freshly initialised; trained in place.
    training
        Data, noise, options (:class:`TrainConfig` or a mapping), seed and folder. With a folder,
        an unfinished training found there is continued to the same bits.
    targets
        What the loss is about, (n, k), e.g. unconstrained parameters.
    callbacks
        Called with the metrics after every epoch (and the total number as ``epochs``).
    log_det
        :math:`\log|\partial z/\partial\theta|`, (n,), subtracted from the test loss so that it
        is a density of theta.

    Returns
    -------
    tuple
        The record and the splits.

    Raises
    ------
    TrainingError
        If the loss is not finite (with epoch, step and rows), a split is empty, or the folder
        holds the checkpoint of another training.
    """
    config, directory = config_of(training), training.directory
    with _threads(config.threads):
        loop = _Loop(network, training, targets)
        mark = loop.fingerprint if directory is not None else {}
        path = Path(directory or "") / "checkpoint.safetensors"
        metrics = path.with_name("metrics.jsonl")
        if directory is None or not loop.resume(path, mark):
            loop.fit_budget()
        if directory is not None:
            _metrics(metrics, loop.history)
        while not loop.finished:
            line = loop.epoch()
            if directory is not None:
                with metrics.open("a") as f:
                    f.write(json.dumps(line) + "\n")
                loop.save(path, mark)
            for callback in callbacks:
                callback({**line, "epochs": loop.epochs})
        network.load_state_dict(loop.best)
        network.eval()
        test = mean_loss(network, *loop.observed(loop.splits.test, "test"))
    if log_det is not None:
        test = test - log_det.to(test)[torch.as_tensor(loop.splits.test, device=test.device)]
    return _record(loop, float(test.mean())), loop.splits


def _record(loop: _Loop, test_nll: float) -> TrainingRecord:
    s = loop.splits
    return TrainingRecord(
        epochs=len(loop.history),
        seconds=sum(line["seconds"] for line in loop.history),
        test_nll=test_nll,
        best_epoch=loop.best_epoch,
        history=tuple(loop.history),
        split={"train": len(s.train), "val": len(s.val), "test": len(s.test), "hash": s.hash},
    )
