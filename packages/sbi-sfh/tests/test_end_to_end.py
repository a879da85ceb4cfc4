"""A tiny run through every stage, and the commands."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner
from numpy.testing import assert_allclose
from survey_spectra import galaxy

import sbi_core
from sbi_core import SbiError, stream
from sbi_core.cli import app as sbi_run
from sbi_sfh import cli, estimator, refine

TINY = {
    "simulate.n": 400,
    "simulate.shard_size": 200,
    "embedding.components": 12,
    "embedding.hidden": [32],
    "estimator.encoder_epochs": 1,
    "estimator.components": 3,
    "estimator.hidden": [16],
    "train.epochs": 1,
    "train.retries": 0,
    "diagnose.objects": 30,
    "diagnose.draws": 60,
    "infer.n_example": 2,
    "infer.draws": 60,
}
PROJECTED = []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from sbi_sfh import recover

    folder = tmp_path_factory.mktemp("run")
    project = estimator.project_training

    def recorded(*arguments):
        PROJECTED.append(project(*arguments))
        return PROJECTED[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover.Recovery.__init__, "__kwdefaults__", {"size": 500})
        patch.setattr(estimator, "project_training", recorded)
        yield sbi_core.run("sfh", preset="quick", out=folder / "run", overrides=TINY)


def test_a_run_trains_on_projected_spectra(run):
    """The estimator must find the simulator's noise behind ``training.observe``."""
    assert PROJECTED
    assert PROJECTED[0] is not None


def test_the_report_has_numbers_and_sections_of_the_domain(run):
    report = run.report
    assert report["domain"]["ordered draws"] == 1.0
    assert report["domain"]["library"] == "fastar-MILES"
    assert 0 < report["domain"]["median residual rms"] < 1
    assert set(report["accuracy"]) == {*(f"t{k}0" for k in range(1, 10)), "mh"}
    page = run.directory.report_html.read_text()
    for title in (
        "Residuals of recovered spectra",
        "Recovered histories and spectra",
        "Latents",
    ):
        assert title in page


def test_two_runs_give_the_same_draws(run):
    example = run.simulator.example_observations(stream(1, "x"), 2)
    first, second = (run.infer(example, 20).values for _ in range(2))
    np.testing.assert_array_equal(first, second)


def call(command, *words):
    return CliRunner().invoke(command, [str(w) for w in words], catch_exceptions=False).output


def test_run_command_and_python_give_the_same_table(run, simulator, tmp_path):
    made = [galaxy(simulator, seed=k + 1, z=0.0, snr=100.0)[0] for k in range(3)]
    noise = np.random.default_rng(1).standard_normal((3, len(made[0]["WAVE"])))
    columns = {n: np.stack([m[n] for m in made]) for n in ("WAVE", "FLUX", "IVAR")}
    columns["FLUX"] += noise / np.sqrt(columns["IVAR"])
    columns["IVAR"][1] = 0.0
    columns["WAVE"][2] *= 1.001  # 300 km/s
    table = Table({"ID": ["a", "bad", "c"], **columns}, meta={"VACUUM": True, "FRAME": "rest"})
    table["WAVE"].unit = "Angstrom"
    path = tmp_path / "mine.fits"
    table.write(path)
    out = tmp_path / "out"
    shutil.copytree(run.directory.root, out)
    again = {**TINY, "infer.observations": str(path)}
    full = sbi_core.run("sfh", preset="quick", out=out, overrides=again, restart="infer")
    by_run = Table.read(full.directory.summary, format="ascii.ecsv")
    target = tmp_path / "infer.ecsv"
    command = ["infer", str(run.directory.root), "--observations", str(path), "--out", str(target)]
    done = CliRunner().invoke(sbi_run, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    by_command = Table.read(target, format="ascii.ecsv")
    in_python = run.infer(table).summary()
    assert by_run.colnames == by_command.colnames == in_python.colnames
    assert {"residual_rms", "chi2_per_pixel", "snr", "latent_percentile"} <= set(by_run.colnames)
    assert by_run["id"].tolist() == ["a", "bad", "c"]
    assert by_run["flags"][1] == "nothing_observed"
    assert "velocity_offset" in by_run["flags"][2].split(",")
    for name in by_run.colnames:
        if by_run[name].dtype.kind == "f":
            assert_allclose(by_run[name], by_command[name], rtol=1e-9)
            assert_allclose(by_run[name], in_python[name], rtol=1e-9)
        else:
            words = [np.ma.filled(t[name], "").tolist() for t in (by_run, by_command, in_python)]
            assert words[0] == words[1] == words[2]


def test_latents_are_written_with_their_meaning(run):
    assert "R2 of linear probes" in call(cli.interpret, run.directory.root, "--n", "150")
    with np.load(run.directory.root / "latents" / "latents.npz") as f:
        assert f["latents"].shape == (150, 16)
        assert f["wave_correlation"].shape == f["saliency"].shape == (16, 4300)
        assert str(f["map_method"]) in ("PCA", "UMAP")
        assert "feature/Dn4000" in f.files
        assert (np.abs(f["pearson"]) <= 1 + 1e-9).all()


def test_recovered_spectra_are_written(run, tmp_path):
    example = run.simulator.example_observations(stream(2, "x"), 1)
    example.write(tmp_path / "mock.npz")
    out = tmp_path / "recovered.npz"
    words = [run.directory.root, "--observations", tmp_path / "mock.npz"]
    figures = tmp_path / "figures"
    more = ["--out", out, "--draws", "30", "--figures", figures]
    assert str(out) in call(cli.recover, *words, *more)
    assert [f.name for f in figures.iterdir()] == [f"{example.id[0]}.png"]
    with np.load(out) as f:
        assert f["growth"].shape == (1, 30, 1000)
        assert f["recovered"].shape == (1, 4300)


def test_spectra_that_are_left_out_are_told(run, simulator, tmp_path):
    made = [galaxy(simulator, seed=k + 1, z=0.0, snr=100.0)[0] for k in range(2)]
    table = Table({n: np.stack([m[n] for m in made]) for n in ("WAVE", "FLUX", "IVAR")})
    table["IVAR"][1] = 0.0
    table.meta |= {"VACUUM": True, "FRAME": "rest"}
    table.write(tmp_path / "two.fits")
    words = [run.directory.root, "--observations", tmp_path / "two.fits", "--draws", "30"]
    shown = call(cli.recover, *words, "--out", tmp_path / "recovered.npz")
    assert "observations: not inferred: 'two.fits', HDU 1, row 1: all" in shown


def test_refined_posteriors_are_one_table(run, tmp_path, monkeypatch):
    monkeypatch.setattr(refine.Refiner.__init__, "__kwdefaults__", {"bank": 600})
    example = run.simulator.example_observations(stream(2, "x"), 2)
    errors = example.batch.x_err.clone()
    errors[1] *= 30.0  # a signal to noise of 3
    replace(example, batch=example.batch.with_(x_err=errors)).write(tmp_path / "mock.npz")
    out, draws = tmp_path / "refined.ecsv", tmp_path / "draws.npz"
    words = [run.directory.root, "--observations", tmp_path / "mock.npz", "--out", out]
    shown = call(cli.refine, *words, "--particles", "50", "--draws-out", draws)
    assert str(out) in shown
    made = Table.read(out)
    assert made["id"].tolist() == example.id.tolist()
    assert (made["t50_p16"] <= made["t50_p84"]).all()
    assert (made["age_light_p50"] > 0).all()
    assert np.isfinite(made["t50_network_p50"]).all()
    units = {str(made[n].unit) for n in ("t10_p16", "t50_network_sd", "age_mass_p84")}
    assert units == {"Gyr"}
    assert made["mh_p50"].unit is None
    assert " Gyr (network" in shown
    assert ["snr_above_tested" in str(flags) for flags in made["flags"]] == [True, False]
    with np.load(draws) as f:
        assert f[str(example.id[0])].shape == (100, 10)


COMMANDS = {
    "recover": (cli.recover, ["--out"], "npz"),
    "refine": (cli.refine, ["--out", "--draws-out"], "ecsv npz"),
    "sensitivity": (cli.sensitivity, ["--out"], "ecsv"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_overwrites_what_it_reads(run, tmp_path, name):
    command, outputs, suffixes = COMMANDS[name]
    root = str(run.directory.root)
    runs = [root, root] if name == "sensitivity" else [root]
    for option, suffix in zip(outputs, suffixes.split(), strict=True):
        spectra = tmp_path / f"mine.{suffix}"
        spectra.write_text("do not touch")
        for given in (spectra, tmp_path):
            words = [*runs, "--observations", str(given), option, str(spectra)]
            result = CliRunner().invoke(command, words)
            assert "is a file that the command reads" in str(result.exception), result.output
        assert spectra.read_text() == "do not touch"
        words = [*runs, "--observations", str(spectra), option, str(tmp_path / "new" / "x.npz")]
        assert isinstance(CliRunner().invoke(command, words).exception, SbiError)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_reading_are_those_of_infer(run, simulator, tmp_path, monkeypatch, name):
    monkeypatch.setattr(refine.Refiner.__init__, "__kwdefaults__", {"bank": 600})
    made, *_ = galaxy(simulator, seed=1, z=0.0, snr=100.0)
    names = {"WAVE": "pixels", "FLUX": "light", "IVAR": "IVAR"}
    Table({names[n]: made[n] for n in names}, meta={"FRAME": "rest"}).write(tmp_path / "own.fits")
    command, outputs, suffixes = COMMANDS[name]
    root = run.directory.root
    out = tmp_path / f"out.{suffixes.split()[0]}"
    words = [*([root, root] if name == "sensitivity" else [root]), outputs[0], out]
    words += ["--observations", tmp_path / "own.fits"]
    words += ["--particles", "50"] if name == "refine" else ["--draws", "20"]
    with pytest.raises(SbiError):
        call(command, *words)
    options = ["--column", "wave=pixels", "--column", "flux=light", "--unit", "wave=Angstrom"]
    call(command, *words, *options, "--set", "simulator.vacuum=true")
    assert out.exists()


def test_folders_of_figures_are_checked_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("x")
    root, file = str(run.directory.root), str(tmp_path / "file")
    out = ["--observations", "none.fits", "--out", str(tmp_path / "r.npz")]
    for command, words in (
        (cli.recover, [*out, "--figures", file]),
        (cli.interpret, ["--out", file]),
    ):
        result = CliRunner().invoke(command, [root, *words])
        assert "a file has this name" in str(result.exception)


def test_a_run_of_another_plugin_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sbi_core.Run, "simulator", property(lambda _: "that of another plugin"))
    root, out = str(run.directory.root), str(tmp_path / "x")
    cube = tmp_path / "cube.fits"
    hdu = fits.ImageHDU(np.ones((300, 2, 2)), name="FLUX")
    hdu.header.update({"CRVAL3": 4000.0, "CDELT3": 10.0, "CTYPE3": "WAVE"})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(cube)
    spectra = ["--observations", "none.fits"]
    for command, words in (
        (cli.recover, [root, *spectra, "--out", out]),
        (cli.refine, [root, *spectra]),
        (cli.interpret, [root]),
        (cli.map_cube, [root, str(cube), "--out", out]),
        (cli.sensitivity, [root, root, *spectra]),
        (cli.experiments, ["timing", "--run", root, "--out", out]),
        (cli.experiments, ["early-types", "--run", root, "--out", out, *spectra]),
    ):
        result = CliRunner().invoke(command, words)
        assert "expected one of sfh" in str(result.exception), result.output


def test_libraries_are_described(tmp_path):
    assert "11 [M/H] x 53 ages" in call(cli.library, "embedded")
    with pytest.raises(SbiError, match="not a directory"):
        call(cli.library, tmp_path / "nowhere")


def test_show_knows_the_options(run):
    text = json.dumps(run.config.model_dump(mode="json"))
    assert "sfh-percentiles" in text


def test_two_alpha_planes_are_inferred(make_library):
    library = make_library("two-planes-synthetic", planes=(0.0, 0.4))
    simulator = sbi_core.get_simulator("sfh", library=str(library), afe=True, components=20)
    batch = simulator.draw(40, 1)
    assert simulator.parameters.names[-1] == "afe"
    afe = batch.theta[:, -1].numpy()
    assert 0 <= afe.min() < afe.max() <= 0.4
    assert "synthetic" in simulator.example_observations(1, 2).source


def test_the_same_spectra_under_two_runs_are_one_table(run, tmp_path):
    run.simulator.example_observations(1, 2).write(tmp_path / "two.npz")
    root = str(run.directory.root)
    words = [root, root, "--observations", str(tmp_path / "two.npz"),
             "--out", str(tmp_path / "s.ecsv"), "--draws", "50"]  # fmt: skip
    result = CliRunner().invoke(cli.sensitivity, words, catch_exceptions=False)
    assert result.exit_code == 0
    made = Table.read(tmp_path / "s.ecsv")
    assert len(made) == 4
    assert made["id"][0] == made["id"][1]
    assert set(made["families"]) == {"gp delayed declining constant rising quenching bursts"}
    assert np.abs(made["t50_shift"]).max() == 0
    alone = CliRunner().invoke(cli.sensitivity, words[1:])
    assert "two runs" in str(alone.exception)


def test_spectra_that_the_posterior_mean_does_not_reproduce_are_flagged(run):
    objects = run.simulator.example_observations(1, 4)
    x = objects.batch.x.clone()
    x[2, ::2] *= 1.3
    samples = run.infer(replace(objects, batch=objects.batch.with_(x=x)), 20)
    poor = ["poor_fit" in f.split(",") for f in samples.flags]
    assert poor[2]
    chi2, rms = (samples.columns[n] for n in ("chi2_per_pixel", "residual_rms"))
    beyond_noise = rms**2 * (1 - 1 / chi2) > 0.03**2
    assert poor == ((chi2 > 1.3) | beyond_noise).tolist()
    assert "poor_fit" in run._context.analysis.flag_meanings
