"""Hyper-parameter search."""

import json
import sys
import tomllib

import pytest

from sbi_core.errors import ConfigError
from sbi_core.pipeline.tune import Search, default_search, tune

SMALL = [
    "simulate.n=400", "estimator.name=mixture", "estimator.hidden=[16]", "train.epochs=2",
    "train.batch_size=64",
]  # fmt: skip
RATE = Search("train.learning_rate", None, 1e-5, 1e-1, True)


@pytest.fixture
def search(registry, tmp_path, one_thread):
    pytest.importorskip("optuna", reason="optuna is an extra: sbi-core[tune]")

    def run(trials, searched=(RATE,), **options):
        return tune(
            registry, "toy", tmp_path / "tuned", trials=trials, search=searched,
            preset="quick", overrides=SMALL, **options,
        )  # fmt: skip

    return run


def test_it_finds_goes_on_and_is_used(search, toy_run, tmp_path):
    first = search(2)
    assert len(first.trials) == 2
    second = search(4)
    assert len(second.trials) == 4
    assert second.trials[:2] == first.trials
    assert second.score == min(t["score"] for t in second.trials if t["score"] is not None)
    assert second.score <= first.score
    rate = second.options["train.learning_rate"]
    assert tomllib.loads(second.path.read_text()) == {"train": {"learning_rate": rate}}
    assert len(search(4).trials) == 4  # nothing left to do


def test_lists_may_be_searched_and_the_simulations_are_made_once(search, tmp_path):
    searched = [Search("estimator.hidden", ([8], [16, 16])), Search("train.epochs", None, 1, 3)]
    found = search(2, searched)
    shards = sorted((tmp_path / "tuned" / "sims").glob("part-*.h5"))
    before = [p.stat().st_mtime_ns for p in shards]
    assert found.options["estimator.hidden"] in ([8], [16, 16])
    assert found.options["train.epochs"] in (1, 2, 3)
    search(3, searched)
    assert [p.stat().st_mtime_ns for p in shards] == before


def test_another_search_is_not_mixed_in(search):
    search(1)
    with pytest.raises(ConfigError, match="holds another search"):
        search(2, [Search("train.epochs", None, 1, 3)])


def test_a_wrong_key_is_said_before_anything_is_simulated(search, tmp_path):
    with pytest.raises(ConfigError, match=r"learning_rat"):
        search(1, [Search("train.learning_rat", None, 1e-3, 1e-2)])
    assert not (tmp_path / "tuned").exists()


def test_optuna_absent_is_said(registry, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'sbi-core\[tune\]'"):
        tune(registry, "toy", tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("train.epochs=1:9", Search("train.epochs", None, 1, 9)),
        (
            "train.learning_rate=1e-4:1e-2:log",
            Search("train.learning_rate", None, 1e-4, 1e-2, True),
        ),
        ("estimator.hidden=[64],[64, 64]", Search("estimator.hidden", ([64], [64, 64]))),
        ('train.optimizer="schedulefree"', Search("train.optimizer", ("schedulefree",))),
    ],
)
def test_ranges_and_choices_are_read(text, want):
    assert Search.parse(text) == want


@pytest.mark.parametrize("text", ["train.epochs", "a=3:1", "a=0:1:log", "a=1:2:lin", "a=x", "=1,2"])
def test_what_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="KEY=LOW:HIGH"):
        Search.parse(text)


def test_the_default_search_fits_the_estimator(registry):
    from sbi_core.pipeline.config import resolve

    keys = {
        name: {s.key for s in default_search(resolve(registry, "toy", preset="quick",
                                                     overrides=[f"estimator.name={name}"]))}
        for name in ("nsf", "mixture")
    }  # fmt: skip
    assert "estimator.transforms" in keys["nsf"] - keys["mixture"]
    assert "estimator.components" in keys["mixture"] - keys["nsf"]
    assert json.dumps(sorted(keys["nsf"]))
