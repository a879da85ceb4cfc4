"""Progress: bars on a terminal, plain lines elsewhere, nothing when quiet."""

import io

import pytest

from sbi_core.progress import (
    LineProgress,
    SilentProgress,
    TqdmProgress,
    epoch_callback,
    make_progress,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_kind_follows_the_stream():
    assert isinstance(make_progress(stream=io.StringIO()), LineProgress)
    assert isinstance(make_progress(stream=Terminal()), TqdmProgress)
    assert isinstance(make_progress(quiet=True, stream=Terminal()), SilentProgress)


def test_lines_come_at_most_every_interval_with_an_estimate():
    out, clock = io.StringIO(), Clock()
    progress = LineProgress(out, interval=5, clock=clock)
    progress.start("train", 100, "epochs")
    for _ in range(60):
        clock.now += 1
        progress.advance(1, "loss 3")
    progress.finish("well")
    lines = out.getvalue().splitlines()
    assert len(lines) == 13
    assert lines[0] == "train: 5/100 epochs, about 1 min 35 s left, loss 3"
    assert lines[-1] == "train: well (1 min 00 s)"


def test_quick_stages_show_one_line():
    out = io.StringIO()
    progress = LineProgress(out)
    progress.start("infer", 3, "objects")
    for _ in range(3):
        progress.advance()
    progress.finish()
    assert out.getvalue().startswith("infer: done (")
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("make", [lambda: SilentProgress(), lambda: TqdmProgress(Terminal())])
def test_every_kind_keeps_the_contract(make):
    progress = make()
    progress.advance()  # before the start: not an error
    progress.start("simulate", 0, "runs")
    progress.advance(5, "a note")
    progress.say("a line")
    progress.finish("done")
    progress.finish()


def test_a_bar_is_replaced_by_its_last_line():
    out = Terminal()
    progress = TqdmProgress(out)
    progress.start("simulate", 10, "runs")
    progress.advance(10)
    progress.finish("10 shards")
    assert " simulate: 10 shards (" in out.getvalue()


def test_epochs_of_an_interrupted_run_are_skipped_and_added_cycles_lengthen_the_stage():
    calls = []

    class Recorder(SilentProgress):
        def start(self, stage, total, unit):
            calls.append(("start", total))

        def advance(self, count=1, note=""):
            calls.append(("advance", count))

        def skip(self, count):
            calls.append(("skip", count))

        def say(self, message):
            calls.append(("say", message))

    show = epoch_callback(Recorder(), "train", 4)
    show({"epoch": 4, "epochs": 4, "val_loss": 1.0})
    show({"epoch": 5, "epochs": 8, "val_loss": 0.5})
    assert [c for c in calls if c != ("skip", 0)] == [
        ("start", 4),
        ("skip", 3),
        ("advance", 1),
        ("say", "train: over-fitted; once more with weight decay"),
        ("start", 8),
        ("skip", 4),
        ("advance", 1),
    ]


def test_a_part_that_is_trained_first_is_a_stage_of_its_own():
    calls = []

    class Recorder(SilentProgress):
        def start(self, stage, total, unit):
            calls.append((stage, total))

        def finish(self, message=""):
            calls.append("finished")

    show = epoch_callback(Recorder(), "train", 3)
    show({"stage": "encoder", "epoch": 1, "epochs": 2, "val_loss": 1.0})
    show({"stage": "encoder", "epoch": 2, "epochs": 2, "val_loss": 0.9})
    show({"epoch": 1, "epochs": 3, "val_loss": 0.5})
    assert calls == [("train", 3), ("encoder", 2), "finished", ("train", 3)]
