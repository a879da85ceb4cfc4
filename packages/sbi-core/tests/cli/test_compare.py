"""``sbi-run compare``."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from sbi_core.cli.compare import command
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError
from sbi_core.pipeline import opening
from sbi_core.pipeline.run import Run


@pytest.fixture
def two_runs(finished, registry, monkeypatch, tmp_path):
    """Two runs of the same simulator, and a file of its objects."""
    monkeypatch.setattr(opening, "Registry", lambda names: registry)
    other = tmp_path / "other"
    shutil.copytree(finished.directory.root, other)
    objects = finished.simulator.example_observations(3, 6)
    objects.write(tmp_path / "objects.npz")
    return [str(finished.directory.root), str(other)], tmp_path


def invoke(*words):
    done = CliRunner().invoke(command, list(words))
    if done.exception is not None:
        raise done.exception
    return done.output


def test_equal_simulators_are_equally_probable_and_average_to_themselves(two_runs):
    runs, folder = two_runs
    said = invoke(
        *runs, "--observations", str(folder / "objects.npz"), "--simulations", "2000",
        "--steps", "30", "--out", str(folder / "numbers.json"),
    )  # fmt: skip
    assert "average over the models, N = 6: slope" in said
    found = json.loads((folder / "numbers.json").read_text())
    p = [m["probability"] for m in found["models"].values()]
    assert np.sum(p) == pytest.approx(1)
    assert max(p) < 0.95
    one = next(iter(found["models"].values()))["parameters"]["slope"]
    assert found["average"]["slope"]["mean"] == pytest.approx(one["mean"])
    assert found["average"]["slope"]["sd"] == pytest.approx(one["sd"])


def test_flags_of_a_combination_are_shown(two_runs, monkeypatch):
    runs, folder = two_runs
    whole = Run.combine
    monkeypatch.setattr(
        Run,
        "combine",
        lambda *a, **k: replace(whole(*a, **k), flags=("unlike_trained_groups",)),
    )
    said = invoke(
        *runs, "--observations", str(folder / "objects.npz"), "--simulations", "2000",
        "--steps", "5", "--out", str(folder / "numbers.json"),
    )  # fmt: skip
    assert said.count("unlike_trained_groups: Errors or missing values") == 2
    found = json.loads((folder / "numbers.json").read_text())
    assert all(m["flags"] == ["unlike_trained_groups"] for m in found["models"].values())


@pytest.mark.parametrize(
    ("failing", "flag"),
    [(1, "unlike_the_simulator"), (2, "unlike_the_simulator"), (2, "unlike_nominal_model")],
)
def test_models_that_do_not_make_the_objects_are_named_first(two_runs, monkeypatch, failing, flag):
    runs, folder = two_runs
    original = Run.combine
    made = []

    def combine(*args, **options):
        made.append(original(*args, **options))
        return replace(made[-1], flags=(flag,) if len(made) <= failing else ())

    monkeypatch.setattr(Run, "combine", combine)
    said = invoke(
        *runs, "--observations", str(folder / "objects.npz"), "--simulations", "2000",
        "--steps", "5", "--out", str(folder / "numbers.json"),
    )  # fmt: skip
    none = failing == 2
    assert ("None of these models makes these objects" in said) == none
    whole = flag == "unlike_the_simulator"
    assert said.count("are not what this model makes") == (failing if whole else 0)
    assert ("The error bars do not hold" in said) == (none and whole)
    assert said.count(": relative probability") == (2 if none else 0)
    assert said.count(": probability") == (0 if none else 2)
    if none:
        assert said.index("None of these") < said.index("probability")
    found = json.loads((folder / "numbers.json").read_text())
    assert found["none_of_these_models"] == none


def test_what_it_cannot_compare_is_said(two_runs):
    runs, folder = two_runs
    file = str(folder / "objects.npz")
    with pytest.raises(ConfigError, match="different folder names"):
        invoke(runs[0], runs[0], "--observations", file)
    with pytest.raises(ConfigError, match="at least two models"):
        invoke(runs[0], "--observations", file)
    objects = Observations.read(file)
    several = Observations(objects.batch, objects.id, np.array(["a"] * 3 + ["b"] * 3))
    several.write(folder / "several.npz")
    with pytest.raises(ConfigError, match="belong to 2 groups"):
        invoke(*runs, "--observations", str(folder / "several.npz"))
