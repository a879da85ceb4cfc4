"""Progress: bars on a terminal, plain lines elsewhere, nothing when quiet."""

import io
import sys
import time

import pytest

from sbi_core.progress import Progress, epoch_callback, make_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_is_shown_when_quiet_or_without_a_stream(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)  # a daemon, or a closed descriptor
    for progress in (make_progress(), make_progress(quiet=True, stream=Terminal())):
        progress.start("train", 3, "epochs")
        progress.advance()
        progress.say("a line")
        progress.finish()
    assert capsys.readouterr().out == ""


def test_lines_come_now_and_then_with_an_estimate():
    out = io.StringIO()
    progress = Progress(out, interval=0.2)
    progress.start("train", 40, "epochs")
    for _ in range(40):
        time.sleep(0.02)
        progress.advance(1, "loss 3")
    progress.finish("well")
    lines = out.getvalue().splitlines()
    assert 3 <= len(lines) < 20  # not one for each epoch
    assert lines[0].startswith("train: ")
    assert "/40 epochs, 00:0" in lines[0]
    assert lines[0].endswith(" left, loss 3")
    assert lines[-1].startswith("    train: well (")
    assert "\r" not in out.getvalue()


def test_quick_stages_show_one_line():
    out = io.StringIO()
    progress = Progress(out)
    progress.start("infer", 3, "objects")
    for _ in range(3):
        progress.advance()
    progress.finish()
    assert out.getvalue().startswith("    infer: done (")
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("stream", [None, io.StringIO(), Terminal()])
def test_every_kind_keeps_the_contract(stream):
    progress = make_progress(stream=stream) if stream else Progress()
    progress.advance()  # before the start: not an error
    progress.start("simulate", 0, "runs")
    progress.skip(2)
    progress.advance(5, "a note")
    progress.say("a line")
    progress.finish("done")
    progress.finish()


def test_a_bar_is_replaced_by_its_last_line():
    out = Terminal()
    progress = make_progress(stream=out)
    progress.start("simulate", 10, "runs")
    progress.advance(10)
    progress.finish("10 shards")
    assert " simulate: 10 shards (" in out.getvalue()


def test_work_of_an_earlier_run_does_not_count_for_the_rate():
    out = io.StringIO()
    progress = Progress(out, interval=0.1)
    progress.start("infer", 1000, "objects")
    progress.skip(900)
    time.sleep(0.5)
    progress.advance(10)  # 20 per second: 90 take about 5 seconds
    lines = out.getvalue().splitlines()
    assert lines[-1].startswith("infer: 910/1000 objects, 00:0")


def test_epochs_of_an_interrupted_run_are_skipped_and_added_cycles_lengthen_the_stage():
    calls = []

    class Recorder(Progress):
        def start(self, stage, total, unit):
            calls.append(("start", total))

        def resize(self, total):
            calls.append(("resize", total))

        def advance(self, count=1, note=""):
            calls.append(("advance", count))

        def skip(self, count):
            calls.append(("skip", count))

        def say(self, message):
            calls.append(("say", message))

    show = epoch_callback(Recorder(), "train")
    show({"epoch": 4, "epochs": 4, "val_loss": 1.0})
    show({"epoch": 5, "epochs": 8, "val_loss": 0.5})
    assert [c for c in calls if c != ("skip", 0)] == [
        ("start", None),
        ("resize", 4),
        ("skip", 3),
        ("advance", 1),
        ("say", "train: overfitting detected; restarting with weight decay"),
        ("resize", 8),
        ("advance", 1),
    ]


def test_a_part_that_is_trained_first_is_a_stage_of_its_own():
    calls = []

    class Recorder(Progress):
        def start(self, stage, total, unit):
            calls.append((stage, total))

        def finish(self, message=""):
            calls.append("finished")

    show = epoch_callback(Recorder(), "train")
    show({"stage": "encoder", "epoch": 1, "epochs": 2, "val_loss": 1.0})
    show({"stage": "encoder", "epoch": 2, "epochs": 2, "val_loss": 0.9})
    show({"epoch": 1, "epochs": 3, "val_loss": 0.5})
    assert calls == [("train", None), ("encoder", 2), "finished", ("train", 3)]


def test_a_stage_whose_length_follows_later_shows_it():
    out = io.StringIO()
    progress = Progress(out, interval=0.0)
    show = epoch_callback(progress, "train")
    for epoch in (1, 2):
        show({"epoch": epoch, "epochs": 40, "val_loss": 1.0})
        time.sleep(0.02)
    assert "train: 2/40 epochs" in out.getvalue()
