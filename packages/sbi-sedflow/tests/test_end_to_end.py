"""The plugin as users meet it: discovery, a small run, a catalogue, the command line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner
from numpy.testing import assert_allclose

import sbi_core
import sbi_sedflow
from sbi_core.cli import main
from sbi_core.files.posterior_file import read_posterior
from sbi_core.testing.pipelines import assert_one_product
from sbi_sedflow.arrays import fit
from sbi_sedflow.bandsets import load_bands
from sbi_sedflow.cli import catalogue, ssp
from sbi_sedflow.flags import Flag

SMALL = {
    "simulator.ssp": "toy",
    "simulator.pixels": 128,
    "simulator.allow_toy": True,
    "simulate.n": 1500,
    "embedding.hidden": [32],
    "estimator.shifts": 1,
    "estimator.hidden": [32],
    "estimator.affine": [32],
    "train.epochs": 2,
    "diagnose.objects": 40,
    "diagnose.draws": 100,
    "infer.n_example": 5,
    "infer.draws": 100,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return sbi_core.run("sedflow", preset="quick", out=out, seed=2, overrides=SMALL)


def test_importing_the_package_is_light():
    code = "import sys, sbi_sedflow, sbi_sedflow.plugin; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_public_names_exist():
    for name in sbi_sedflow.__all__:
        assert getattr(sbi_sedflow, name) is not None
    with pytest.raises(AttributeError, match="No sbi_sedflow attribute nope"):
        _ = sbi_sedflow.nope


def test_a_run_writes_its_report(run):
    report = run.report
    assert report["observations"]["n"] == 5
    assert report["simulation"]["failed"] == 0
    assert report["domain"]["ppc_chi2_ratio"] > 0
    assert set(report["domain"]["derived_sbc_p"]) >= {"sfr_1gyr", "log_likelihood"}
    page = run.directory.report_html.read_text()
    assert "Derived quantities and sharpness" in page
    assert "PRIOR_EDGE" in page


def test_a_run_fits_arrays(run):
    flux = np.array([[5.0, 6.0, 30.0, 80.0, 120.0, 150.0, 170.0]] * 3)
    flux[1, 0] = np.nan
    table = fit(run, flux, 0.05 * flux, [0.05, 0.06, 0.5], draws=100).summary()
    assert table["flag_bits"][1] & sbi_sedflow.Flag.MISSING_BAND
    assert table["flags"][2] == "redshift_outside_model"
    assert np.isfinite(np.asarray(table["logmstar_mean"][:2])).all()
    with pytest.raises(sbi_core.ConfigError, match="flux has shape"):
        fit(run, flux[:, :5], flux[:, :5], [0.1] * 3)


def test_run_command_and_python_give_the_same_table(run, tmp_path):
    table = Table({"id": ["a", "b", "far", "c"], "z": [0.05, 0.07, 0.9, 0.1]})
    for b in "ugriz":
        table[f"mag_{b}"], table[f"mag_err_{b}"] = [17.5, 17.0, 17.0, 18.0], [0.05] * 4
    path = tmp_path / "mine.ecsv"
    table.write(path)
    found = assert_one_product(run, path, tmp_path)
    assert {"sfr_1gyr_p50", "logmsurv_mean", "z_mw_sd", "tage_mw_p84", "flag_bits"} <= set(
        found.colnames
    )
    assert found["flags"][2] == "redshift_outside_model"
    derived = read_posterior(tmp_path / "run" / "posterior.nc", "derived")
    drawn = np.median(derived["sfr_1gyr"][0], 0)
    assert_allclose(drawn, found["sfr_1gyr_p50"][[0, 1, 3]], rtol=1e-4)
    assert run.infer(table).summary().colnames == found.colnames  # a table in memory


def test_draws_are_written_as_the_published_catalogue_has_them(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sbi_sedflow.cli._PART", 2)
    table = Table({"id": ["7", "8", "far", "9"], "z": [0.05, 0.07, 0.9, 0.1]})
    for b in "ugriz":
        table[f"mag_{b}"], table[f"mag_err_{b}"] = [17.5, 17.0, 17.0, 18.0], [0.05] * 4
    table.write(tmp_path / "mine.ecsv")
    words = [str(run.directory.root), "--observations", str(tmp_path / "mine.ecsv")]
    words += ["--out", str(tmp_path / "a.h5"), "--draws", "40"]
    done = CliRunner().invoke(catalogue, words, catch_exceptions=False)
    assert "3 galaxies, 1 left out, 40 draws each" in done.output
    found = sbi_sedflow.read_catalogue(tmp_path / "a.h5")
    assert found.id.tolist() == ["7", "8", "9"]
    assert {v.shape for v in found.draws.values()} == {(3, 40)}
    assert {"log_mstar", "log_sfr_1gyr", "log_Z_MW", "beta4", "log_gamma2", "n_dust"} <= set(
        found.draws
    )
    assert_allclose(found.magnitude["r"], [17.5, 17.0, 18.0], atol=1e-3)
    assert_allclose(found.error["u"], 0.05, rtol=2e-3)
    assert np.isnan(found.magnitude["F"]).all()
    method = run.infer(tmp_path / "mine.ecsv", 40).columns["method"]
    assert found.network.tolist() == (method != "emcee").tolist()
    beta = np.stack([found.draws[f"beta{k}"] for k in (1, 2, 3, 4)])
    assert_allclose(beta.sum(0), 1, atol=1e-5)


def test_another_file_is_no_catalogue(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["log_mstar"] = np.ones((2, 3))
    with pytest.raises(sbi_core.DataFileError, match="lacks NSAID .it holds log_mstar"):
        sbi_sedflow.read_catalogue(tmp_path / "x.h5")
    (tmp_path / "x.csv").write_text("a,b\n")
    for name in ("x.csv", "nothing.h5"):
        with pytest.raises(sbi_core.DataFileError, match="cannot be read as HDF5"):
            sbi_sedflow.read_catalogue(tmp_path / name)


def test_the_commands_read_tables_with_the_options_of_infer(run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("name,zz,myr,drr\na,0.05,3.0,0.3\nb,0.06,4.0,0.4\n")
    words = ["--set", "simulator.allow_toy=true", "--set", "simulator.extinction=corrected"]
    for pair in ("id=name", "redshift=zz", "r=myr", "err_r=drr"):
        words += ["--column", pair]
    out = tmp_path / "t.hdf5"
    command = [str(run.directory.root), "--observations", str(table), "--draws", "20"]

    def invoke(*more):
        return CliRunner().invoke(catalogue, [*command, *words, *more], catch_exceptions=False)

    with pytest.raises(sbi_core.ObservationError, match="add --unit r=nmgy"):
        invoke("--out", str(out))
    with pytest.raises(sbi_core.ConfigError, match="unknown format, use .h5, .hdf5"):
        invoke("--out", str(tmp_path / "t.dat"), "--unit", "r=mJy")
    assert "write NAME=COLUMN" in invoke("--out", str(out), "--column", "r").output
    invoke("--out", str(out), "--unit", "r=mJy")
    found = sbi_sedflow.read_catalogue(out)
    assert found.id.tolist() == ["a", "b"]
    expected = 22.5 - 2.5 * np.log10(np.array([3.0, 4.0]) / 3.631e-3)
    assert_allclose(found.magnitude["r"], expected, rtol=1e-5)


def test_another_model_does_not_mix_with_a_run(run):
    with pytest.raises(sbi_core.SbiError, match="another configuration"):
        sbi_core.run(
            "sedflow", preset="quick", out=run.directory.root, seed=2,
            overrides={**SMALL, "simulator.variant": "provabgs"},
        )  # fmt: skip


def test_the_tools_answer(bc03_library):
    done = CliRunner().invoke(ssp, ["info"])
    assert "bc03_miles_stellar_grids.fits" in done.output
    assert CliRunner().invoke(ssp, ["build", "--provider", "nope"]).exit_code == 2


def tutorial():
    """Return the blocks of the section on own filters of the tutorial, by language."""
    page = (Path(__file__).parents[3] / "docs" / "sedflow.md").read_text(encoding="utf-8")
    text = page.split("### A filter of your own")[1].split("* **Errors**")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


def exit_code(words):
    try:
        main(words)
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_tutorial_of_own_filters_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = tutorial()
    exec(next(b for kind, b in blocks if kind == "python"), {})
    (tmp_path / "bands.toml").write_text(next(b for kind, b in blocks if kind == "toml"))
    bands = load_bands("bands.toml")
    assert bands.names == ("n545", "g", "r", "i")
    assert bands.bands[0].pivot == pytest.approx(5450, abs=5)
    flux = np.random.default_rng(5).lognormal(3, 1, 250)
    table = Table({"redshift": np.full(250, 0.05)})
    for k, b in enumerate(bands.names):
        table[f"flux_{b}"], table[f"flux_err_{b}"] = flux * (1 + 0.1 * k), 0.03 * flux
        table[f"flux_{b}"].unit = table[f"flux_err_{b}"].unit = "nmgy"
    table["flux_i"][:100] = np.nan
    table.write("mine.ecsv")
    small = [w for k, v in SMALL.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    commands = "".join(b for kind, b in blocks if kind == "console").replace("\\\n", " ")
    for line in commands.strip().splitlines():
        _, name, verb, *words = shlex.split(line)
        assert name == "sbi-run"
        small += ["--set", "analysis.refine=none"]
        extra = ["--preset", "quick", "--quiet", *small] if verb == "run" else []
        code = exit_code([verb, *words, *extra])
        assert code in (0, 3), line  # 3: a test of the tiny network failed
    found = Table.read("mine-result.ecsv")
    assert len(found) == 250
    assert np.isfinite(found["logmstar_p50"]).all()
    assert ((np.asarray(found["flag_bits"]) & Flag.MISSING_BAND) != 0).sum() == 100
    run = sbi_core.load_run("runs/fitted")
    assert run.simulator.bands.bands[0].error != bands.bands[0].error
    (tmp_path / "n545.dat").write_text("5000 0.1\n5500 1\n6000 0.1\n")
    with pytest.raises(sbi_core.SbiError, match="identity|filters|another"):
        sbi_core.load_run("runs/mine").infer("mine.ecsv")
