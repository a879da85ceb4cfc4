"""Stage ``train``: the density estimator."""

from __future__ import annotations

from sbi_core.data.writing import write_atomic
from sbi_core.errors import counted
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages import StageResult
from sbi_core.progress import epoch_callback

__all__ = ["execute"]


def execute(context: Context) -> StageResult:
    """Train, save, and report length and test loss."""
    training = context.training
    show = epoch_callback(context.progress, "train")
    estimator = context.new_estimator()
    record = estimator.fit(training, context.embedding, [show])
    estimator.save(context.directory.estimator)
    metrics = context.directory.estimator / "metrics.jsonl"
    if metrics.exists():
        write_atomic(context.directory.metrics, metrics.read_bytes())
    context.__dict__.pop("posterior", None)  # a cached posterior would be the old one
    context.progress.finish(
        f"test loss {record.test_nll:.4f} nats after {counted(record.epochs, 'epoch')}"
        + (", still improving" if record.still_improving else "")
    )
    return StageResult(
        {
            "epochs": record.epochs,
            "seconds": round(record.seconds, 3),
            "test_nll": record.test_nll,
            "best_epoch": record.best_epoch,
            "still_improving": record.still_improving,
            "skipped_steps": sum(int(line.get("skipped_steps", 0)) for line in record.history),
            "split": dict(record.split),
        }
    )
