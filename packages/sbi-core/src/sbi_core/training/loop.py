r"""The training loop.

Minimises the mean of ``network.loss(targets, observe(batch))``, with fresh noise for every step.
Everything random follows from (seed, epoch), so that a run that was killed and started again ends
with the same bits. Rows come from memory or, when they exceed ``max_memory_gb``, from shard files
through a shuffle buffer (:mod:`sbi_core.training.feed`). The best weights of all epochs are kept.

A step whose loss or gradient is not finite changes nothing: rare noise far from all other data can
make one overflow. Such steps are counted. In the first epoch of a cycle, or above 1 % of an epoch
(one in short epochs), the training stops instead: then simulations or weights are at fault.

A one-cycle training whose best epoch lies in its first half has overfitted. It is then restarted
from the same initial weights; restart *k = 1, 2, ...* has the decoupled weight decay

.. math:: \lambda_k = 1.2 \cdot 3^{k-1} \Big/ \sum_s \eta(s),

with :math:`\eta(s)` of :mod:`sbi_core.training.optimizer`. It shrinks weights without gradient by
:math:`e^{-1.2}` (:math:`e^{-3.6}`) in a cycle of any length.
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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sbi_core.components import Callback, Training, TrainingRecord
from sbi_core.data.alignment import align_weights
from sbi_core.data.batch import Batch
from sbi_core.data.writing import write_atomic
from sbi_core.errors import DataFileError, TrainingError
from sbi_core.files.directory import write_lines
from sbi_core.rng import seeded, stream, torch_defaults
from sbi_core.training.checkpoint import Checkpoint, architecture, write_checkpoint
from sbi_core.training.config import TrainConfig, config_of
from sbi_core.training.feed import Feed, InMemory, Streamed, Targets
from sbi_core.training.optimizer import FlatWeights, make_optimizer, one_cycle, set_mode
from sbi_core.training.rows import resident
from sbi_core.training.splits import Splits, split_seed, splits_of
from sbi_core.validation import checked_device

__all__ = ["Trainable", "mean_loss", "threads", "train_network"]

I64 = NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_EVAL_ROWS = 8192  # rows per network call outside training
_MEASURED_STEPS = 20
_SKIPPED = 0.01  # largest fraction of the steps of an epoch that are not finite
_SHRINKING = 1.2  # log of the shrinkage of weights without gradient in the first restart
_FEWEST_EPOCHS = 8  # in shorter trainings overfitting cannot be told


class Trainable(nn.Module):
    """A network with a loss."""

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of every row, (n,), for targets (n, k) and observed data."""
        raise NotImplementedError


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use n threads of PyTorch in a block, so that sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    """The state of one training, as checkpoints store it, and the steps that change it."""

    def __init__(self, network: Trainable, training: Training, targets: Tensor | Targets) -> None:
        self.config = config_of(training)
        self.training = training
        self.device = checked_device(training.device)
        self.splits = splits_of(training)
        self.network = network.to(self.device)
        self.feed = _feed(training, targets, self.config, self.device)
        self.flat = FlatWeights(network)
        self.optimizer = make_optimizer(self.flat.weights, self.config)
        self.loss = torch.compile(network.loss) if self.config.compile else network.loss
        self.epochs, self.batch_size = self.config.length(len(self.splits.train))
        self.steps = math.ceil(len(self.splits.train) / self.batch_size)
        self.history: list[dict[str, float]] = []
        self.starts = [0]  # epochs before each cycle (the first one and the restarts)
        self.initial = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.validation = self.observed(self.splits.val, "validation")

    # -- one epoch

    def observed(self, rows: I64, name: str) -> tuple[Tensor, Batch]:
        """Return targets and data of held-out rows, with the same noise at every call."""
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
        """Train for one epoch, validate, keep the best weights; return the metrics."""
        start, number = time.perf_counter(), len(self.history) + 1
        rng = stream(self.training.seed, "train", number)
        order = stream(self.training.seed, "train", number, "order")
        total, used, skipped = 0.0, 0, 0
        with seeded(rng, self.device):
            set_mode(self.network, self.optimizer, True)
            slices = self.feed.slices(self.splits.train, order, self.steps)
            for k, (rows, targets, clean) in enumerate(slices):
                self.set_rate((number - 1 - self.starts[-1]) * self.steps + k)
                value = self.step(targets, clean, rng)
                if math.isfinite(value):
                    total, used = total + value * len(rows), used + len(rows)
                    continue
                skipped += 1
                if skipped > self.skippable(number):
                    self.stop_at(number, k, rows)
                _LOG.warning(
                    "the loss is not finite in epoch %d, step %d: the step is skipped", number, k
                )
            set_mode(self.network, self.optimizer, False)
        val = float(mean_loss(self.network, *self.validation).mean())
        if math.isnan(val):
            msg = f"the validation loss is not a number in epoch {number}: check the simulations"
            raise TrainingError(msg)
        line = {
            "epoch": number,
            "train_loss": total / used if used else math.nan,
            "val_loss": val,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped_steps": skipped,
            "seconds": time.perf_counter() - start,
        }
        if not self.best or val < self.history[self.best_epoch - 1]["val_loss"]:
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            self.best_epoch = number
        self.history.append(line)
        return line

    def set_rate(self, step: int) -> None:
        """Set the learning rate of a step of the current cycle."""
        if self.config.optimizer == "adam-onecycle":
            rate = one_cycle(step, self.epochs * self.steps, self.config.peak)
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def skippable(self, epoch: int) -> int:
        """Return how many steps of an epoch may be skipped: none in the first of a cycle."""
        return 0 if epoch == self.starts[-1] + 1 else max(1, int(_SKIPPED * self.steps))

    def stop_at(self, epoch: int, step: int, rows: I64) -> None:
        """Raise TrainingError with the rows of a step; all of them are written to a file."""
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
        """Epochs of all cycles, those still to come included."""
        return self.starts[-1] + self.epochs

    @property
    def finished(self) -> bool:
        """True when the last cycle is over."""
        done, patience = len(self.history), self.config.patience
        return done >= self.planned or (patience is not None and done - self.best_epoch >= patience)

    def restart(self) -> bool:
        """Start a cycle with more weight decay if the last one overfitted; return False if not."""
        c = self.config
        if c.optimizer != "adam-onecycle" or c.max_seconds or len(self.starts) > c.retries:
            return False
        losses = [line["val_loss"] for line in self.history[self.starts[-1] :]]
        if 2 * (1 + int(np.argmin(losses))) > self.epochs or self.epochs < _FEWEST_EPOCHS:
            return False
        self.network.load_state_dict(self.initial)
        shrinking = _SHRINKING * 3 ** (len(self.starts) - 1)
        decay = c.weight_decay + shrinking / (0.5 * c.peak * self.epochs * self.steps)
        self.optimizer = make_optimizer(
            self.flat.weights, c.model_copy(update={"weight_decay": decay})
        )
        self.starts.append(len(self.history))
        return True

    def fit_budget(self) -> None:
        """Set the number of epochs that fits into ``max_seconds``, from timed steps on a copy."""
        if self.config.max_seconds is None:
            return
        trial = copy.copy(self)
        trial.network = copy.deepcopy(self.network)
        trial.loss, trial.flat = trial.network.loss, FlatWeights(trial.network)
        trial.optimizer = make_optimizer(trial.flat.weights, self.config)
        set_mode(trial.network, trial.optimizer, True)
        rng = stream(self.training.seed, "train", "measure")
        size = min(self.batch_size, len(self.splits.train))
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
        self.epochs = max(1, min(self.epochs, int(affordable)))

    # -- checkpoints

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Facts that must agree for a checkpoint to be continued."""
        return {
            "options": self.config.model_dump(mode="json"),
            "seed": self.training.seed,
            "split": self.splits.hash,
            "network": architecture(self.network),
            "simulations": self.feed.identity,
        }

    def save(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Write the checkpoint; the network must be in evaluation mode."""
        facts = {
            "fingerprint": fingerprint,
            "epochs": self.epochs,
            "starts": self.starts,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        write_checkpoint(path, self.network, self.best, self.optimizer, facts)

    def resume(self, path: Path, fingerprint: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; return False when there is none that can be used."""
        if not path.exists():
            return False
        try:
            checkpoint = Checkpoint.read(path)
        except DataFileError as error:
            _LOG.warning("%s; training restarts from the first epoch", error)
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
        msg = "streamed simulations need targets as a function of the batch"
        raise TrainingError(msg)
    return Streamed(rows, targets, device, config.max_memory_gb * 2**30)


def mean_loss(network: Trainable, targets: Tensor, batch: Batch) -> Tensor:
    """Return the loss of every row, (n,), float64, without gradients."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(batch), _EVAL_ROWS):
            rows = slice(start, start + _EVAL_ROWS)
            parts.append(network.loss(targets[rows], batch[rows]).double())
    return torch.cat(parts)


@torch_defaults()
def train_network(
    network: Trainable,
    training: Training,
    targets: Tensor | Targets,
    callbacks: Sequence[Callback] = (),
    *,
    log_det: Targets | None = None,
) -> tuple[TrainingRecord, Splits]:
    r"""Train a network and leave its best weights in it, in aligned memory.

    Parameters
    ----------
    network
        Freshly initialised; trained in place.
    training
        Data, noise, options (:class:`~sbi_core.training.config.TrainConfig` or a mapping), seed
        and folder. An unfinished training in the folder is continued, to the same bits.
    targets
        First argument of the loss, (n, k), e.g. unconstrained parameters; or a function of the
        batch that returns it.
    callbacks
        Called after every epoch with its metrics, and the planned number as ``epochs``.
    log_det
        Function of a batch that returns :math:`\log|\partial z/\partial\theta|`, (n,). It is
        subtracted from the test loss, which then refers to a density of theta.

    Returns
    -------
    TrainingRecord
        Epochs, seconds, losses and the mean loss of the test split.
    Splits
        Training, validation and test rows.

    Raises
    ------
    TrainingError
        If the loss is not finite (the message gives epoch, step and rows) in the first epoch or in
        more than 1 % of the steps of another, a split is empty, or the folder holds the checkpoint
        of another training.
    ConfigError
        If the device does not exist.
    """
    training = resident(training)
    config, directory = config_of(training), training.directory
    with threads(config.threads):
        loop = _Loop(network, training, targets)
        mark = loop.fingerprint if directory is not None else {}
        path = Path(directory or "") / "checkpoint.safetensors"
        metrics = path.with_name("metrics.jsonl")
        if directory is None or not loop.resume(path, mark):
            loop.fit_budget()
        if directory is not None:
            write_lines(metrics, loop.history)
        while not loop.finished or loop.restart():
            line = loop.epoch()
            if directory is not None:
                loop.save(path, mark)
                with metrics.open("a") as f:
                    f.write(json.dumps(line) + "\n")
            for callback in callbacks:
                callback({**line, "epochs": loop.planned})
        network.load_state_dict(loop.best)
        align_weights(network.eval())
        held_out = loop.observed(loop.splits.test, "test")
        test = mean_loss(network, *held_out)
    if log_det is not None:
        test = test - log_det(held_out[1]).to(test)
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
