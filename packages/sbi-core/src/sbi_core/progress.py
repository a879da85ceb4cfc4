"""Progress with time estimates (tqdm): a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, TextIO

from tqdm import tqdm

__all__ = ["Progress", "epoch_callback", "make_progress"]

_INTERVAL = 5.0  # seconds between lines where there is no terminal
_LINE = "{desc}: {n_fmt}/{total_fmt}{unit}, {remaining} left{postfix}"


class Progress:
    """Shows how far a stage has come.

    Parameters
    ----------
    stream
        Output stream; None: no output.
    interval
        Seconds between lines on a stream that is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = _INTERVAL) -> None:
        self._stream, self._interval = stream, interval
        self._bar: Any = None
        self._stage, self._begin = "", 0.0

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage of ``total`` units; None: :meth:`resize` tells how many."""
        self._close()
        self._stage, self._begin = stage, perf_counter()
        if self._stream is None:
            return

        form: dict[str, Any] = {"file": self._stream, "dynamic_ncols": True}
        if not self._stream.isatty():
            pause = self._interval
            form = {
                "file": _Lines(self._stream),
                "mininterval": pause,
                "delay": pause,
                "bar_format": _LINE,
            }
        self._bar = tqdm(
            total=total,
            desc=f"{stage:>9}",
            unit=f" {unit}",
            leave=False,
            miniters=0,  # a note alone is shown, too
            unit_scale=total is not None and total > 9999,
            **form,
        )

    def resize(self, total: int) -> None:
        """Set the number of units of the stage."""
        if self._bar is not None:
            self._bar.total = total

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on by ``count`` units; ``note`` is shown beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    def skip(self, count: int) -> None:
        """Count units that an earlier run had done, without effect on the rate."""
        if self._bar is not None and count:
            self._bar.initial += count
            self._bar.update(count)

    def finish(self, message: str = "") -> None:
        """End the stage with one line."""
        self._close()
        took = _seconds(perf_counter() - self._begin)
        self.say(f"{self._stage:>9}: {message or 'done'} ({took})")

    def say(self, message: str) -> None:
        """Show one line."""
        if self._stream is not None:
            self._stream.write(message + "\n")
            self._stream.flush()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """A stream that writes every state of a bar on a separate line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a line for text that is not blank."""
        if text.strip():
            self._stream.write(text.strip("\r\n ") + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """Return progress on a stream (default: the standard error), shown nowhere when quiet."""
    return Progress(None if quiet else stream or sys.stderr)


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def epoch_callback(progress: Progress, stage: str) -> Callable[[Mapping[str, Any]], None]:
    """Begin a stage and return a callback of the training loop that shows it.

    Epochs of an interrupted run are skipped; when overfitting makes the loop add a cycle, the
    stage gets longer. Lines of a part that is trained before the rest carry its name as ``stage``
    and are shown as a separate stage.
    """
    progress.start(stage, None, "epochs")
    done, planned, current = 0, 0, stage

    def show(line: Mapping[str, Any]) -> None:
        nonlocal done, planned, current
        name, total = str(line.get("stage", stage)), int(line.get("epochs", planned))
        if name != current:
            if done:
                progress.finish()
            done, planned, current = 0, total, name
            progress.start(name, total, "epochs")
        if total != planned:
            if done and total > planned:
                progress.say(f"{current}: overfitting detected; restarting with weight decay")
            planned = total
            progress.resize(total)
        progress.skip(int(line["epoch"]) - done - 1)
        progress.advance(1, f"validation loss {line['val_loss']:.4g}")
        done = int(line["epoch"])

    return show
