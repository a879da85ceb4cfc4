"""Stars as old as the Universe, through a run: flagged, counted, and no error without bound."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose

import sbi_core
from sbi_core.cli import main

TINY = {
    "simulate.n": 2000,
    "simulate.executor": "serial",
    "estimator.hidden": [32, 32],
    "estimator.components": 3,
    "train.epochs": 6,
    "train.batch_size": 128,
    "diagnose.objects": 60,
    "diagnose.draws": 99,
    "infer.draws": 100,
    "combine.compare": [],
    "combine.calibration_groups": 20,
}


def old_stars(simulator, n):
    """Mock stars with ages as in Bensby et al. 2014: the oldest are older than the Universe."""
    rng = np.random.default_rng(n)
    table = simulator.example_observations(4, n=n).to_table()
    age = np.linspace(14.7, 0.3, n)
    table["age"], table["e_age"] = age, 0.3 + 0.15 * age * rng.uniform(0.8, 1.2, n)
    return table[[c for c in table.colnames if not c.startswith(("t_o", "e_t_o", "true"))]]


@pytest.mark.parametrize("n", [1, 40])
def test_a_run_on_stars_as_old_as_the_universe(n, tmp_path):
    simulator = sbi_core.get_simulator("chempy")
    old_stars(simulator, n).write(tmp_path / "old.ecsv")
    run = sbi_core.run(
        "chempy", preset="quick", observations=tmp_path / "old.ecsv", out=tmp_path / "run",
        overrides=TINY,
    )  # fmt: skip
    older = int(np.sum(np.linspace(14.7, 0.3, n) > 13.797617))
    assert any(f"{sbi_core.counted(older, 'star')} with a birth time outside" in note
               for note in run.report["observations"]["notes"])  # fmt: skip
    flags = [str(f) for f in Table.read(run.directory.summary)["flags"]]
    assert ["older_than_universe" in f for f in flags] == [k < older for k in range(n)]
    for entry in run.report["combined_calibration"]:
        # of 20 groups and a network this small; 430 before errors of ages had a bound
        assert entry["z_rms"] < 3


@pytest.mark.slow
@pytest.mark.skipif("SBI_DATA_DIR" not in os.environ, reason="needs the reference data")
@pytest.mark.parametrize("name", ["age_bug_40stars", "bensby2014_thin_340stars_ages"])
def test_the_quick_run_on_stars_of_the_thin_disk(name, tmp_path):
    """Bensby et al. 2014: with errors of ages scaled by e_t / t, f was 454 and z-rms 430 to 860."""
    stars = Path(os.environ["SBI_DATA_DIR"]) / "cases" / "chempy" / f"{name}.ecsv"
    if not stars.exists():
        pytest.skip(f"{stars} is not there")
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as raised:
        main(["--plugin", "chempy", "--preset", "quick", "--seed", "1", "--quiet",
              "--observations", str(stars), "--out", str(out)])  # fmt: skip
    assert raised.value.code == 0
    report = json.loads((out / "report.json").read_text())
    for entry in report["combined_calibration"]:
        # 25 groups, two parameters: 1 +- 0.1; with nuisance parameters a first look is rather wide
        low = 0.6 if entry["combiner"] == "group-moments" else 0.8
        assert low < entry["z_rms"] < 1.25
    last = [c for c in report["combined"] if c["combiner"] == "simulated-moments"][-1]
    slope = last["parameters"]["alpha_imf"]
    assert slope["sd"] < 0.05
    assert_allclose(slope["mean"], -2.6, atol=0.2)
