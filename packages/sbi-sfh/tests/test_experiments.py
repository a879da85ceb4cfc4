"""The experiments of the method by one command."""

import json

import pytest
from click.testing import CliRunner
from survey_spectra import galaxy, write
from test_end_to_end import TINY

import sbi_core
from sbi_core import ConfigError
from sbi_sfh import cli, experiments, recover
from sbi_sfh.experiments import Options


def call(*words):
    return CliRunner().invoke(cli.experiments, [str(w) for w in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"mock": {}, "observed": {"simulator.mode": "observed"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover.Recovery.__init__, "__kwdefaults__", {"size": 500})
        yield {
            name: sbi_core.run(
                "sfh", preset="quick", out=folder / name, overrides={**TINY, **more}
            ).directory.root
            for name, more in options.items()
        }


def test_timing_compares_the_network_with_other_ways(runs, tmp_path):
    result = call("timing", "--run", runs["mock"], "--out", tmp_path, "--steps", 20)
    folder = tmp_path / "timing"
    seconds = json.loads((folder / "numbers.json").read_text())
    assert {"network", "NNLS"} <= set(seconds)
    assert all(s > 0 for s in seconds.values())
    assert (folder / "table.txt").read_text() in result.output
    assert (folder / "timing.png").stat().st_size > 5000


def test_early_types_are_drawn_against_their_dispersion(runs, simulator, tmp_path):
    spectra = tmp_path / "spectra"
    spectra.mkdir()
    for k in range(3):
        columns, facts, _ = galaxy(simulator, seed=k, PLATEIFU=f"1-{k}")
        write(spectra / f"{k}.fits", columns, facts)
    call("early-types", "--run", runs["observed"], "--observations", spectra, "--out", tmp_path)
    folder = tmp_path / "early-types"
    rows = json.loads((folder / "numbers.json").read_text())
    assert [r["id"] for r in rows] == ["1-0", "1-1", "1-2"]
    assert all(r["t50_low"] <= r["t50"] <= r["t50_high"] <= 13.5 for r in rows)
    assert {p.name for p in folder.glob("*.png")} == {"1-0.png", "1-1.png", "1-2.png", "trends.png"}


def test_an_experiment_needs_spectra_and_a_run_of_its_mode(runs, tmp_path):
    with pytest.raises(ConfigError, match="--observations"):
        list(experiments.perform(["early-types"], Options(out=tmp_path)))
    options = Options(out=tmp_path, run=runs["observed"])
    with pytest.raises(ConfigError, match="mode=mock"):
        list(experiments.perform(["timing"], options))
    options = Options(out=tmp_path, run=runs["mock"], observations="spectra")
    with pytest.raises(ConfigError, match="mode=observed"):
        list(experiments.perform(["early-types"], options))
