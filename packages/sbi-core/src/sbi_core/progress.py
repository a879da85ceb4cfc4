"""Progress with time estimates: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol, TextIO

__all__ = [
    "LineProgress",
    "Progress",
    "SilentProgress",
    "TqdmProgress",
    "epoch_callback",
    "make_progress",
]


class Progress(Protocol):
    """Reports how far a stage has come."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a stage of ``total`` units."""
        ...

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on by ``count`` units; ``note`` is shown beside the bar."""
        ...

    def skip(self, count: int) -> None:
        """Count units that an earlier run had done; they say nothing about the rate."""
        ...

    def finish(self, message: str = "") -> None:
        """End the stage."""
        ...

    def say(self, message: str) -> None:
        """Show one line."""
        ...


class SilentProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Do nothing."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Do nothing."""

    def skip(self, count: int) -> None:
        """Do nothing."""

    def finish(self, message: str = "") -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""


class LineProgress:
    """Plain lines: at most one every ``interval`` seconds, and one at the end of a stage.

    Parameters
    ----------
    stream
        Where lines go.
    interval
        Seconds between lines.
    clock
        Monotonic clock in seconds.
    """

    def __init__(
        self, stream: TextIO, interval: float = 5.0, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._stream, self._interval, self._clock = stream, interval, clock
        self._stage, self._total, self._done, self._unit = "", 0, 0, ""
        self._skipped = 0
        self._begin = self._last = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a stage."""
        self._stage, self._total, self._done, self._unit = stage, total, 0, unit
        self._skipped = 0
        self._begin = self._last = self._clock()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count, and show a line when the last one is old enough."""
        self._done += count
        now = self._clock()
        if now - self._last >= self._interval and self._done < self._total:
            self._last = now
            rate = (self._done - self._skipped) / (now - self._begin)
            left = (self._total - self._done) / rate
            text = f"{self._done}/{self._total} {self._unit}, about {_seconds(left)} left"
            self.say(f"{self._stage}: {text}{', ' + note if note else ''}")

    def skip(self, count: int) -> None:
        """Count units that were done before."""
        self._done += count
        self._skipped += count

    def finish(self, message: str = "") -> None:
        """Show the closing line of the stage."""
        took = _seconds(self._clock() - self._begin)
        self.say(f"{self._stage}: {message or 'done'} ({took})")

    def say(self, message: str) -> None:
        """Show one line."""
        self._stream.write(message + "\n")
        self._stream.flush()


class TqdmProgress:
    """Bars of tqdm, for terminals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._stage = ""
        self._begin = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a bar."""
        from tqdm import tqdm

        if self._bar is not None:
            self._bar.close()
        self._stage, self._begin = stage, perf_counter()
        self._bar = tqdm(
            total=total, desc=f"{stage:>9}", unit=f" {unit}", file=self._stream, leave=False,
            dynamic_ncols=True, unit_scale=total > 9999,
        )  # fmt: skip

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    def skip(self, count: int) -> None:
        """Move the bar without counting towards its rate."""
        if self._bar is not None and count:
            self._bar.initial += count
            self._bar.update(count)

    def finish(self, message: str = "") -> None:
        """Replace the bar by one line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        took = _seconds(perf_counter() - self._begin)
        self.say(f"{self._stage:>9}: {message or 'done'} ({took})")

    def say(self, message: str) -> None:
        """Show one line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    def __enter__(self) -> TqdmProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """Return bars on a terminal, lines elsewhere, nothing when quiet."""
    out = sys.stderr if stream is None else stream
    if quiet:
        return SilentProgress()
    return TqdmProgress(out) if out.isatty() else LineProgress(out)


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def epoch_callback(
    progress: Progress, stage: str, epochs: int
) -> Callable[[Mapping[str, Any]], None]:
    """Begin a stage and return a callback of the training loop that shows it.

    Epochs of an interrupted run are skipped; when over-fitting makes the loop add a cycle, the
    stage gets longer. Lines of a part that is trained before the rest carry its name as ``stage``
    and are shown as a stage of their own.

    Parameters
    ----------
    progress
        Where it is shown.
    stage
        Its name.
    epochs
        Epochs planned.
    """
    progress.start(stage, epochs, "epochs")
    done, planned, current = 0, epochs, stage

    def show(line: Mapping[str, Any]) -> None:
        nonlocal done, planned, current
        name = str(line.get("stage", stage))
        if name != current:
            if done:
                progress.finish()
            done, planned, current = 0, int(line.get("epochs", epochs)), name
            progress.start(name, planned, "epochs")
        if line.get("epochs", planned) > planned:
            planned = int(line["epochs"])
            progress.say(f"{current}: over-fitted; once more with weight decay")
            progress.start(current, planned, "epochs")
            progress.skip(done)
        progress.skip(int(line["epoch"]) - done - 1)
        progress.advance(1, f"validation loss {line['val_loss']:.4g}")
        done = int(line["epoch"])

    return show
