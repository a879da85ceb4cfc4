r"""The training loop.

Minimises the mean of ``network.loss(targets, observe(batch))`` with noise drawn afresh for every
slice of every epoch. Everything random follows from (seed, epoch): a run that was killed and
started again ends with the same bits. Rows come from memory, or from shard files through a shuffle
buffer when they exceed ``max_memory_gb`` (:mod:`sbi_core.training.feed`). The learning rate of
``adam-onecycle`` is

.. math:: \eta(s) = \eta_{\max}\,\left[\tfrac1{25} + \tfrac{24}{25}
          \tfrac{1 - \cos \pi s/w}{2}\right]\ (s < w), \qquad
          \eta_{\max}\,\left[10^{-3} + (1 - 10^{-3})
          \tfrac{1 + \cos \pi (s - w)/(n - w)}{2}\right]\ (s \ge w)

at step *s* of *n*, with a warm-up of *w = 0.1 n* steps. A cycle whose best epoch lies in its first
half has over-fitted. Cycle *k = 1, 2, ...* after it starts from the same initial weights with
decoupled weight decay

.. math:: \lambda_k = 1.2 \cdot 3^{k-1} \Big/ \sum_s \eta(s),

which shrinks weights that no gradient holds by :math:`e^{-1.2}` (:math:`e^{-3.6}`) in a cycle of
any length; the best weights of all cycles are kept.

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
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from sbi_core.components import Callback, Training, TrainingRecord
from sbi_core.data.alignment import align_weights
from sbi_core.data.batch import Batch
from sbi_core.errors import DataFileError, TrainingError
from sbi_core.files.tensors import write_atomic
from sbi_core.rng import seeded, stream, torch_defaults
from sbi_core.training.checkpoint import Checkpoint, architecture, write_checkpoint
from sbi_core.training.feed import Feed, InMemory, Streamed, Targets
from sbi_core.training.splits import Splits, split_blocks, split_by_key
from sbi_core.validation import checked_device, validate

__all__ = [
    "TrainConfig",
    "Trainable",
    "config_of",
    "known_rows",
    "mean_loss",
    "observed_rows",
    "one_cycle",
    "resident",
    "split_seed",
    "splits_of",
    "train",
    "train_network",
]

I64 = NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_EVAL_ROWS = 8192  # rows per network call outside training
_MEASURED_STEPS = 20
_SHRINKING = 1.2  # logarithm of what weight decay does to idle weights in the first cycle more
_FEWEST_EPOCHS = 8  # shorter cycles say nothing about over-fitting


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
    retries: int = Field(
        default=2,
        ge=0,
        description="After over-fitting (best epoch in the first half): cycles more, each with "
        "more weight decay; the best weights of all are kept (not with max_seconds).",
    )
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
    max_memory_gb: float = Field(
        default=2.0,
        gt=0,
        description="Simulations on disk that exceed it are streamed, not loaded.",
    )

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
    config, rows = config_of(training), training.batch
    seed = split_seed(training)
    if not isinstance(rows, Batch):
        blocks = (rows.keys(k) for k in range(len(rows.ends) - 1))
        return split_blocks(blocks, seed, val=config.val_fraction, test=config.test_fraction)
    keys = np.arange(len(rows)) if rows.split_key is None else rows.split_key.cpu().numpy()
    return split_by_key(keys, seed, val=config.val_fraction, test=config.test_fraction)


def split_seed(training: Training) -> int:
    """Return the seed of splits and of the noise of held-out rows."""
    return training.seed if training.split_seed is None else training.split_seed


def resident(training: Training) -> Training:
    """Return the training with its simulations in memory, if they fit into ``max_memory_gb``."""
    rows = training.batch
    if isinstance(rows, Batch) or rows.nbytes > config_of(training).max_memory_gb * 2**30:
        return training
    return replace(training, batch=rows.load())


def known_rows(training: Training, most: int = 100_000) -> Batch:
    """Return the simulations in memory, or ``most`` of those on disk, evenly spread."""
    rows = training.batch
    if isinstance(rows, Batch):
        return rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
    return rows[chosen]


def observed_rows(training: Training, rows: I64, name: str) -> Batch:
    """Return held-out rows as the loop observes them: always with the same noise.

    Parameters
    ----------
    training
        Rows and noise.
    rows
        Row numbers.
    name
        ``"validation"`` or ``"test"``.
    """
    clean = training.batch[rows].to("cpu", torch.float32)
    return training.observe(clean, stream(split_seed(training), "train", name))


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
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Flat:
    """All weights of a network in one tensor and their gradients in another.

    The network's own become views. One kernel then does what took one per layer: clearing,
    the norm, clipping, the step.
    """

    def __init__(self, network: nn.Module) -> None:
        self.weights: list[nn.Parameter] = []
        mine = [p for p in network.parameters() if p.requires_grad]
        for dtype in dict.fromkeys(p.dtype for p in mine):
            group = [p for p in mine if p.dtype == dtype]
            flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in group]))
            flat.grad = torch.zeros_like(flat)
            start = 0
            for p in group:
                part = slice(start, start + p.numel())
                p.data, p.grad = flat.data[part].view_as(p), flat.grad[part].view_as(p)
                start += p.numel()
            self.weights.append(flat)

    def clear(self) -> None:
        """Set all gradients to zero."""
        for w in self.weights:
            assert w.grad is not None
            w.grad.zero_()

    def norm(self) -> Tensor:
        """Return the norm of all gradients."""
        norms = [torch.linalg.vector_norm(w.grad) for w in self.weights if w.grad is not None]
        total: Tensor = torch.stack(norms).square().sum().sqrt()
        return total

    def scale(self, factor: float) -> None:
        """Multiply all gradients."""
        for w in self.weights:
            assert w.grad is not None
            w.grad.mul_(factor)


def _optimizer(weights: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
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

    def __init__(self, network: Trainable, training: Training, targets: Tensor | Targets) -> None:
        self.config = config_of(training)
        self.training = training
        self.device = checked_device(training.device)
        self.splits = splits_of(training)
        self.network = network.to(self.device)
        self.feed = _feed(training, targets, self.config, self.device)
        self.flat = _Flat(network)
        self.optimizer = _optimizer(self.flat.weights, self.config)
        self.loss = torch.compile(network.loss) if self.config.compile else network.loss
        self.steps = math.ceil(len(self.splits.train) / self.config.batch_size)
        self.epochs = self.config.epochs
        self.history: list[dict[str, float]] = []
        self.starts = [0]  # epochs before each cycle
        self.initial = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.validation = self.observed(self.splits.val, "validation")

    # -- one epoch

    def observed(self, rows: I64, name: str) -> tuple[Tensor, Batch]:
        """Return targets and data of held-out rows, always with the same noise."""
        targets, clean = self.feed.take(self.feed.measured(rows))
        rng = stream(split_seed(self.training), "train", name)
        return targets, self.training.observe(clean, rng)

    def step(self, targets: Tensor, clean: Batch, rng: np.random.Generator) -> float:
        """Take one step and return its loss; NaN when loss or gradient is not finite."""
        batch = self.training.observe(clean, rng)
        self.flat.clear()
        loss = self.loss(targets, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        value, norm = torch.stack([loss.detach(), self.flat.norm()]).tolist()  # one wait for CUDA
        if not math.isfinite(value + norm):
            return math.nan
        if norm > self.config.clip:
            self.flat.scale(self.config.clip / norm)
        self.optimizer.step()
        return float(value)

    def epoch(self) -> dict[str, float]:
        """Train for one epoch, validate, keep the best weights; return the line of metrics."""
        start, number = time.perf_counter(), len(self.history) + 1
        rng = stream(self.training.seed, "train", number)
        order = stream(self.training.seed, "train", number, "order")
        total = 0.0
        with seeded(rng, self.device):
            _set_mode(self.network, self.optimizer, True)
            slices = self.feed.slices(self.splits.train, order, self.steps)
            for k, (rows, targets, clean) in enumerate(slices):
                self.set_rate((number - 1 - self.starts[-1]) * self.steps + k)
                value = self.step(targets, clean, rng)
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
            "train_loss": total / len(self.splits.train),
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

    def stop_at(self, epoch: int, step: int, rows: I64) -> None:
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
    def planned(self) -> int:
        """Epochs of all cycles so far."""
        return self.starts[-1] + self.epochs

    @property
    def finished(self) -> bool:
        """Whether the last cycle is over."""
        done, patience = len(self.history), self.config.patience
        return done >= self.planned or (patience is not None and done - self.best_epoch >= patience)

    def begin_again(self) -> bool:
        """Start a cycle with more weight decay if the last one over-fitted; False if not."""
        c = self.config
        if c.optimizer != "adam-onecycle" or c.max_seconds or len(self.starts) > c.retries:
            return False
        losses = [line["val_loss"] for line in self.history[self.starts[-1] :]]
        if 2 * (1 + int(np.argmin(losses))) > self.epochs or self.epochs < _FEWEST_EPOCHS:
            return False
        self.network.load_state_dict(self.initial)
        shrinking = _SHRINKING * 3 ** (len(self.starts) - 1)
        decay = c.weight_decay + shrinking / (0.5 * c.peak * self.epochs * self.steps)
        self.optimizer = _optimizer(self.flat.weights, c.model_copy(update={"weight_decay": decay}))
        self.starts.append(len(self.history))
        return True

    def fit_budget(self) -> None:
        """Set the number of epochs that fit into ``max_seconds``, from steps on a copy."""
        if self.config.max_seconds is None:
            return
        trial = copy.copy(self)
        trial.network = copy.deepcopy(self.network)
        trial.loss, trial.flat = trial.network.loss, _Flat(trial.network)
        trial.optimizer = _optimizer(trial.flat.weights, self.config)
        _set_mode(trial.network, trial.optimizer, True)
        rng = stream(self.training.seed, "train", "measure")
        size = min(self.config.batch_size, len(self.splits.train))
        targets, clean = self.feed.take(self.splits.train[:size])
        with seeded(rng, self.device):
            for _ in range(3):
                trial.step(targets, clean, rng)
            start = time.perf_counter()
            for _ in range(_MEASURED_STEPS):
                trial.step(targets, clean, rng)
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
            "simulations": self.feed.identity,
        }

    def save(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Write the checkpoint; call it in eval mode."""
        facts = {
            "fingerprint": fingerprint,
            "epochs": self.epochs,
            "starts": self.starts,
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
        self.history, self.starts = checkpoint.facts["history"], checkpoint.facts["starts"]
        return True


def _feed(
    training: Training, targets: Tensor | Targets, config: TrainConfig, device: torch.device
) -> Feed:
    rows = training.batch
    if isinstance(rows, Batch):
        made = targets if isinstance(targets, Tensor) else targets(rows)
        return InMemory(rows, made, device)
    if isinstance(targets, Tensor):
        msg = "simulations that are streamed need targets as a function of the batch"
        raise TrainingError(msg)
    return Streamed(rows, targets, device, config.max_memory_gb * 2**30)


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


@torch_defaults()
def train(
    network: Trainable,
    training: Training,
    targets: Tensor | Targets,
    callbacks: Sequence[Callback] = (),
    *,
    log_det: Targets | None = None,
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
        What the loss is about, (n, k), e.g. unconstrained parameters; or a function of the
        batch that returns it.
    callbacks
        Called with the metrics after every epoch (and the total number as ``epochs``).
    log_det
        Function of a batch that returns :math:`\log|\partial z/\partial\theta|`, (n,). It is
        subtracted from the test loss so that it is a density of theta.

    Returns
    -------
    tuple
        The record and the splits.

    Raises
    ------
    TrainingError
        If the loss is not finite (with epoch, step and rows), a split is empty, or the folder
        holds the checkpoint of another training.
    ConfigError
        If the device is not there.
    """
    training = resident(training)
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
        while not loop.finished or loop.begin_again():
            line = loop.epoch()
            if directory is not None:
                with metrics.open("a") as f:
                    f.write(json.dumps(line) + "\n")
                loop.save(path, mark)
            for callback in callbacks:
                callback({**line, "epochs": loop.planned})
        network.load_state_dict(loop.best)
        align_weights(network.eval())
        held_out = loop.observed(loop.splits.test, "test")
        test = mean_loss(network, *held_out)
    if log_det is not None:
        test = test - log_det(held_out[1]).to(test)
    return _record(loop, float(test.mean())), loop.splits


train_network = train  # its public name: ``sbi_core.training.loop`` is this module


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
