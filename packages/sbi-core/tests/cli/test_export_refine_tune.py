"""``sbi-run export``, ``refine`` and ``tune``."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sbi_core.cli import app
from sbi_core.cli.export import command as export
from sbi_core.cli.refine import command as refine
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.files.posterior_file import read_posterior
from sbi_core.pipeline import runner


@pytest.fixture
def call(finished, registry, monkeypatch):
    """``call(command, *words)`` runs a command on the finished run; errors are raised."""
    monkeypatch.setattr(runner, "Registry", lambda names: registry)

    def run(command, *words):
        done = CliRunner().invoke(command, [str(finished.directory.root), *words])
        if done.exception is not None:
            raise done.exception
        return done.output

    return run


def test_chains_of_objects_and_combinations(call, finished):
    said = call(export)
    folder = finished.directory.root / "export"
    assert "20 objects" in said
    chain = np.loadtxt(folder / "0.txt")
    want = read_posterior(finished.directory.posterior)["slope"].sel(object="0").values[0]
    np.testing.assert_allclose(chain[:, 2], want, rtol=1e-5)
    assert (folder / "0.paramnames").read_text() == "slope\ts\noffset\to\n"
    combined = np.loadtxt(folder / "combined-all_gaussian.txt")
    np.testing.assert_allclose(
        combined[:, 2:].mean(0),
        [finished.report["combined"][-1]["parameters"][n]["mean"] for n in ("slope", "offset")],
        rtol=0.2,
    )


def test_one_object_and_other_formats(call, tmp_path):
    call(export, "--format", "csv", "--object", "3", "--out", str(tmp_path / "a"))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["posterior.csv"]
    call(export, "--format", "npz", "--out", str(tmp_path / "b"))
    with np.load(tmp_path / "b" / "draws.npz", allow_pickle=False) as f:
        assert f["posterior/slope"].shape == (100, 20)
        assert f["id"].shape == (20,)
        assert "combined/all/gaussian" in f.files


def test_unknown_objects_are_named(call):
    with pytest.raises(ConfigError, match="no object 'star'"):
        call(export, "--object", "star")
    with pytest.raises(ObservationError, match="no object 'star'"):
        call(refine, "--object", "star")


def test_one_object_is_refined(call, finished, toy, monkeypatch):
    from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
    from sbi_core.pipeline.context import Context

    def small(self):
        return MixtureEstimator(MixtureConfig(components=1, hidden=(8,)))

    monkeypatch.setattr(Context, "new_estimator", small)
    said = call(refine, "--object", "3", "--rounds", "2", "--simulations", "200", "--draws", "50")
    assert "round 1: 0 new simulations, trained on 1200, 1 of the prior" in said
    record = json.loads((finished.directory.root / "refined-3.json").read_text())
    assert record["object"] == "3"
    assert record["rounds"][0]["trained_on"] == 1200
    draws = read_posterior(finished.directory.root / "refined-3.nc")
    assert draws["offset"].shape == (1, 50, 1)


def test_tune_tells_what_is_wrong_before_it_works():
    done = CliRunner().invoke(app, ["tune"])
    assert done.exit_code == 2
    assert "--plugin" in done.output
