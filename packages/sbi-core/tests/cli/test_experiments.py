"""Options that the experiments of plugins share."""

import json

import click
import pytest
import sbi_toy
from click.testing import CliRunner

import sbi_core
from sbi_core import ConfigError, ExperimentOptions, experiment_options


@click.command("experiments")
@experiment_options
@click.option("--steps", type=int, default=7)
def command(steps, **options):
    click.echo(f"{steps} {ExperimentOptions(**options)}")


def call(*words):
    return CliRunner().invoke(command, list(words), catch_exceptions=False).output


def test_the_options_of_the_command_are_the_fields():
    assert call() == f"7 {ExperimentOptions()}\n"
    given = call("--out", "x", "--preset", "quick", "--run", "r", "--seed", "3", "--quiet",
                 "--set", "a=1", "--set", "b=2")  # fmt: skip
    want = ExperimentOptions(out="x", preset="quick", run="r", seed=3, quiet=True,
                             overrides=("a=1", "b=2"))  # fmt: skip
    assert given == f"7 {want}\n"


def test_results_are_a_table_and_numbers(tmp_path):
    options = ExperimentOptions(out=tmp_path)
    assert options.write("timing", "a 1\n", {"a": 1}) == (
        f"a 1\n\ntable, numbers and figures: {tmp_path / 'timing'}\n"
    )
    assert (tmp_path / "timing" / "table.txt").read_text() == "a 1\n"
    assert json.loads((tmp_path / "timing" / "numbers.json").read_text()) == {"a": 1}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write the folder"):
        ExperimentOptions(out=tmp_path / "file").folder("timing")


def test_options_of_the_user_follow_those_of_the_experiment(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(sbi_core.api, "run", lambda plugin, **more: given.update(more, of=plugin))
    ExperimentOptions(out=tmp_path, overrides=("b=2",), seed=4).trained("toy", "run", ("a=1",))
    assert given["of"] == sbi_toy.ToySimulator.name
    assert given["out"] == tmp_path / "run"
    assert (given["overrides"], given["seed"]) == (["a=1", "b=2"], 4)
