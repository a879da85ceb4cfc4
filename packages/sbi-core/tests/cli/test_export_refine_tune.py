"""``sbi-run export``, ``refine`` and ``tune``."""

import json

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner

from sbi_core.cli import app
from sbi_core.cli.export import command as export
from sbi_core.cli.refine import command as refine
from sbi_core.data.writing import safe_name, safe_names
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.files.posterior_file import read_posterior
from sbi_core.pipeline import opening


@pytest.fixture
def call(finished, registry, monkeypatch):
    """``call(command, *words)`` runs a command on the finished run; errors are raised."""
    monkeypatch.setattr(opening, "Registry", lambda names: registry)

    def run(command, *words):
        done = CliRunner().invoke(command, [str(finished.directory.root), *words])
        if done.exception is not None:
            raise done.exception
        return done.output

    return run


def test_draws_of_objects_and_combinations(call, finished):
    said = call(export)
    folder = finished.directory.root / "export"
    assert "20 objects" in said
    table = Table.read(folder / "posterior.csv")
    assert table.colnames == ["id", "slope", "offset"]
    want = read_posterior(finished.directory.posterior)["slope"].sel(object="3").values[0]
    np.testing.assert_allclose(table["slope"][table["id"] == 3], want, rtol=1e-8)
    combined = Table.read(folder / "combined-all_gaussian.csv")
    np.testing.assert_allclose(
        [combined[n].mean() for n in ("slope", "offset")],
        [finished.report["combined"][-1]["parameters"][n]["mean"] for n in ("slope", "offset")],
        rtol=0.2,
    )


def test_one_object_and_other_formats(call, tmp_path):
    call(export, "--object", "3", "--out", str(tmp_path / "a"))
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
    folder = finished.directory.root  # another object whose name makes the same file name
    (folder / "refined-a_b.json").write_text('{"object": "a/b", "rounds": []}')
    with pytest.raises(ConfigError, match="holds the draws of object 'a/b'; choose another --out"):
        call(refine, "--object", "3", "--out", str(folder / "refined-a_b.nc"))


def test_names_of_objects_become_file_names():
    assert safe_name("../a b") == "_a_b"
    names = safe_names(["a/b", "a b", "A_B", "a_b-2", "c"])
    assert names == ["a_b", "a_b-2", "A_B-3", "a_b-2-2", "c"]


def test_tune_tells_what_is_wrong_before_it_works():
    done = CliRunner().invoke(app, ["tune"])
    assert done.exit_code == 2
    assert "--plugin" in done.output
