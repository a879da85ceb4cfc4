"""Stage ``train``: the density estimator."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from sbi_core.pipeline.context import Context

__all__ = ["execute"]


def execute(context: Context) -> dict[str, Any]:
    """Train, save, and report length and test loss."""
    training = context.training
    context.progress.start("train", training.config.epochs, "epochs")
    done = 0

    def show(line: Mapping[str, float]) -> None:
        nonlocal done
        context.progress.skip(int(line["epoch"]) - done - 1)  # epochs of an interrupted run
        context.progress.advance(1, f"validation loss {line['val_loss']:.4f}")
        done = int(line["epoch"])

    estimator = context.new_estimator()
    record = estimator.fit(training, context.embedding, [show])
    estimator.save(context.directory.estimator)
    metrics = context.directory.estimator / "metrics.jsonl"
    if metrics.exists():
        shutil.copyfile(metrics, context.directory.metrics)
    context.__dict__.pop("posterior", None)  # a cached posterior would be the old one
    context.progress.finish(f"test loss {record.test_nll:.4f} nats after {record.epochs} epochs")
    return {
        "epochs": record.epochs,
        "seconds": round(record.seconds, 3),
        "test_nll": record.test_nll,
        "best_epoch": record.best_epoch,
        "split": dict(record.split),
    }
