"""The plugin as users meet it: discovery, a small run, a catalogue, the command line."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner
from numpy.testing import assert_allclose

import sbi_core
import sbi_sedflow
from sbi_core.files.posterior_file import read_posterior
from sbi_core.testing.pipelines import assert_one_product
from sbi_sedflow.arrays import fit
from sbi_sedflow.cli import ssp

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
