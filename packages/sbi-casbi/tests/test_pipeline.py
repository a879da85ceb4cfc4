import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from astropy.table import Table

import sbi_core
from sbi_casbi.analysis import CasbiAnalysis
from sbi_core.files.directory import RunDirectory
from sbi_core.files.integrity import read_records, write_records
from sbi_core.testing.pipelines import assert_one_product

SMALL = {
    "simulate.n": 500,
    "simulate.shard_size": 500,
    "simulate.executor": "serial",
    "train.epochs": 2,
    "simulator.stems": 300,
    "simulator.split_fractions": [0.7, 0.1, 0.2],
    "diagnose.objects": 40,
    "diagnose.draws": 50,
    "infer.draws": 50,
    "infer.n_example": 2,
}
TINY = {**SMALL, "simulator.counts": "absolute"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "casbi"
    return sbi_core.run("casbi", preset="quick", out=out, overrides=TINY)


def test_a_run_writes_report_sets_and_sections(run):
    root = run.directory.root
    page = (root / "report.html").read_text(encoding="utf-8")
    for words in (
        "halo-1</h3>",
        "Number and members",
        "Members by decreasing",
        "This run is a first look",
        "N uniform from 2 to 100, members uniform in log M_star",
        "The sample is complete, with 6.67e-07 stars per Msun",
        "The zero points of [Fe/H] and [O/Fe] are taken as exact",
        "infall [Gyr since the Big Bang]",
        "closest to the Milky Way",
        "above a stellar mass: median, 68 and 95 %",
    ):
        assert words in page
    report = json.loads((root / "report.json").read_text())
    assert {"n_sub", "members", "n_major", "halos"} <= set(report["domain"])
    assert set(report["domain"]["halos"]) == {"halo-1", "halo-2"}
    assert "n_sub" in report["calibration"]["parameters"]
    import xarray as xr

    sets = xr.load_dataset(root / "posterior.nc", group="derived", engine="h5netcdf")
    assert sets["log_mstar"].dims == ("chain", "draw", "object", "member")
    drawn = xr.load_dataset(root / "posterior.nc", group="posterior", engine="h5netcdf")
    assert int(np.isfinite(sets["tau"]).sum()) == int(np.rint(drawn["n_sub"]).sum())


def star_list(n):
    rng = np.random.default_rng(1)
    return Table({"fe_h": rng.normal(-1.2, 0.4, n), "o_fe": rng.normal(0.2, 0.1, n)})


def test_a_loaded_run_infers_a_star_list(run, tmp_path):
    star_list(500).write(tmp_path / "halo.ecsv")
    samples = sbi_core.load_run(run.directory.root).infer(tmp_path / "halo.ecsv", 20)
    assert samples.values.shape == (20, 1, 10)


def test_halos_are_compared_with_references_that_the_run_keeps(run, tmp_path, monkeypatch):
    """The stage diagnose makes them; a run without them gives the same numbers."""
    star_list(500).write(tmp_path / "halo.ecsv")
    checks = ["deviance_percentile", "summary_percentile"]
    older = shutil.copytree(run.directory.root, tmp_path / "older")
    (older / "reference.npz").unlink()
    directory = RunDirectory(older)
    records = read_records(directory)
    records["stages"]["diagnose"]["artefacts"].pop("reference.npz")
    write_records(directory, records)
    slow = sbi_core.load_run(older).infer(tmp_path / "halo.ecsv", 20)
    monkeypatch.setattr(CasbiAnalysis, "make_reference", None)
    fast = sbi_core.load_run(run.directory.root).infer(tmp_path / "halo.ecsv", 20)
    assert [fast.columns[k] for k in checks] == [slow.columns[k] for k in checks]
    assert fast.flags == slow.flags


def test_run_command_and_python_give_one_halo_for_a_list_of_any_length(run, tmp_path):
    table = star_list(30_000)
    table.write(tmp_path / "halo.fits")
    summary = assert_one_product(run, tmp_path / "halo.fits", tmp_path)
    assert len(summary) == 1
    assert summary["id"][0] == "halo"
    assert {"deviance_percentile", "summary_percentile", "support_percentile"} <= set(
        summary.colnames
    )
    assert run.infer(table).summary().colnames == summary.colnames


def test_a_survey_of_magnesium_from_list_to_summary(tmp_path):
    """300 stars with errors of 0.2 dex, of which 12 repeat others, 8 are marked as missing."""
    rng = np.random.default_rng(2)
    table = Table({"APOGEE_ID": [f"2M{k}" for k in range(320)]})
    table["FE_H"], table["MG_FE"] = rng.normal(-1.3, 0.5, 320), rng.normal(0.2, 0.22, 320)
    table["FE_H_ERR"] = table["MG_FE_ERR"] = np.float32(0.2)
    table["APOGEE_ID"][300:312] = table["APOGEE_ID"][:12]
    table["MG_FE"][312:] = -9999.99
    table.write(tmp_path / "halo.fits")
    run = sbi_core.run(
        "casbi",
        preset="survey",
        out=tmp_path / "run",
        observations=tmp_path / "halo.fits",
        overrides=SMALL | {"simulator.alpha": "mg"},
    )
    summary = Table.read(tmp_path / "run" / "summary.ecsv")
    assert len(summary) == 1
    assert 2 <= summary["n_sub_p50"][0] <= 100
    page = (run.directory.root / "report.html").read_text(encoding="utf-8")
    assert "300 stars, columns FE_H and MG_FE" in page
    assert "(50 to 100000) carries no information on the mass" in page
    assert "[Fe/H] and [Mg/Fe] are unknown by 0.1 dex" in page
    assert "not that of the simulations" not in page


def test_a_list_of_unknown_meaning_is_refused_before_training(tmp_path):
    star_list(50).write(tmp_path / "halo.ecsv")
    with pytest.raises(sbi_core.ConfigError, match="preset survey"):
        sbi_core.run(
            "casbi",
            preset="quick",
            out=tmp_path / "run",
            observations=tmp_path / "halo.ecsv",
            overrides=SMALL,
        )
    assert not (tmp_path / "run" / "sims").exists()


def test_discovery_stays_light():
    code = (
        "import sys, sbi_casbi.plugin; "
        "print([m for m in ('torch', 'pynbody', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_halos_unlike_any_simulation_are_flagged(run):
    sim = run.simulator
    obs = sim.example_observations(3, 2)
    x = obs.batch.x.clone()
    plane = x[:, :4096].reshape(-1, 64, 64)
    x[:, :4096] = torch.roll(plane, 20, 2).reshape(len(x), -1)  # 0.4 dex in [O/Fe]
    moved = sbi_core.Observations.from_batch(obs.batch.with_(x=x))
    samples = run.infer(moved, 20)
    assert all("outside_training" in f for f in samples.flags)
