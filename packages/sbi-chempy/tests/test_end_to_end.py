"""A tiny run through the command line and through Python: everything but the accuracy."""

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

import sbi_core
from sbi_core.cli import main
from sbi_core.testing.pipelines import assert_one_product

TINY = {
    "simulate.n": 2000,
    "simulate.shard_size": 1000,
    "simulate.executor": "serial",
    "estimator.hidden": [32, 32],
    "estimator.components": 3,
    "train.epochs": 6,
    "train.batch_size": 128,
    "diagnose.objects": 60,
    "diagnose.draws": 99,
    "infer.n_example": 15,
    "infer.draws": 100,
    "combiner.name": "gaussian",
    "combine.sizes": [1, 5],
    "combine.compare": [],
    "combine.calibration_groups": 0,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of 2000 simulations: enough to see that everything is connected."""
    out = tmp_path_factory.mktemp("chempy") / "run"
    return sbi_core.run("chempy", preset="quick", out=out, overrides=TINY)


@pytest.fixture
def stars(tiny):
    return tiny.simulator.example_observations(11, n=12)


def test_run_command_and_python_give_the_same_table(tiny, stars, tmp_path):
    table = stars.to_table()
    for name in ("fe_h", "mg_fe", "c_fe", "he_fe", "n_fe", "ne_fe", "o_fe", "si_fe"):
        table[name][3] = np.nan
    table.write(tmp_path / "stars.ecsv")
    summary = assert_one_product(tiny, tmp_path / "stars.ecsv", tmp_path)
    assert len(summary) == 12
    assert summary["flags"][3] == "nothing_observed"
    assert tiny.infer(table.to_pandas()).summary()["flags"][3] == "nothing_observed"


def test_a_combination_carries_the_flags_of_the_model_check(tiny):
    stars = tiny.simulator.example_observations(12, n=60)
    moved = replace(stars, batch=stars.batch.with_(x=stars.batch.x + 0.3))
    combined = tiny.combine(moved)
    assert combined.diagnostics["misspecification_p"] < 1e-6
    assert "unlike_the_simulator" in combined.flags


def test_the_report_says_what_was_done(tiny):
    report = tiny.report
    assert report["plugin"] == "chempy"
    assert report["simulation"]["n"] == 2000
    assert report["simulation"]["failed"] < 200
    assert report["training"]["epochs"] == 6
    assert set(report["calibration"]["parameters"]) == {"alpha_imf", "log10_n_ia"}
    assert [c["n"] for c in report["combined"]] == [1, 5, 15]
    assert report["combined"][-1]["parameters"]["alpha_imf"]["truth"] == -2.1
    assert "sbi-chempy" in report["versions"]


def test_the_summary_has_a_row_per_star_and_units(tiny):
    table = Table.read(tiny.directory.summary)
    assert len(table) == 15
    assert table["log10_n_ia_p50"].unit == "dex"
    assert (table["alpha_imf_p16"] < table["alpha_imf_p84"]).all()
    assert table.meta["plugin"] == "chempy"


def test_even_a_tiny_network_learns_something(tiny):
    """The posterior of a star is narrower than the prior in at least one parameter."""
    table = Table.read(tiny.directory.summary)
    assert table["log10_n_ia_sd"].mean() < 0.28


def test_a_finished_run_is_not_repeated(tiny):
    before = {p: p.stat().st_mtime_ns for p in tiny.directory.sims.iterdir()}
    again = sbi_core.run("chempy", preset="quick", out=tiny.directory.root, overrides=TINY)
    assert {p: p.stat().st_mtime_ns for p in tiny.directory.sims.iterdir()} == before
    assert again.report["combined"] == tiny.report["combined"]


def test_observations_may_come_as_object_or_file(tiny, stars, tmp_path):
    stars.write(tmp_path / "stars.ecsv")
    one, two = tiny.infer(stars), tiny.infer(tmp_path / "stars.ecsv")
    assert_allclose(one.values, two.values, rtol=1e-4, atol=1e-4)
    assert one["alpha_imf"].shape == (100, 12)


def test_a_star_is_inferred_the_same_in_any_company(tiny, stars):
    alone = tiny.infer(stars[[7]])
    together = tiny.infer(stars)
    assert_allclose(alone.values[:, 0], together.values[:, 7], atol=1e-4)


def test_stars_far_outside_are_inferred_flagged_and_counted(tiny, stars, tmp_path):
    x = stars.batch.x.clone()
    x[[2, 5]] += 3.0
    table = stars.to_table()
    for k, o in enumerate(stars.observables):
        table[o.name] = x[:, k].double().numpy()
    table.write(tmp_path / "far.ecsv")
    samples = tiny.infer(tmp_path / "far.ecsv")
    assert samples.flags[2] == samples.flags[5] == "outside_training,far_outside_training"
    assert sum(bool(f) for f in samples.flags) <= 4
    assert np.isfinite(samples.values).all()


def test_missing_elements_and_ages_are_inferred(tiny, stars, tmp_path):
    table = stars.to_table()
    table["o_fe"][:6] = np.nan
    del table["t_obs"]  # another column of ages
    table["age"] = 5.0
    table.write(tmp_path / "gaps.ecsv")
    samples = tiny.infer(tmp_path / "gaps.ecsv")
    assert np.isfinite(samples.values).all()
    assert not np.allclose(samples.values, tiny.infer(stars).values, atol=1e-3)


def test_one_star_works_and_gives_its_own_posterior(tiny, stars, tmp_path, capsys):
    stars[[0]].write(tmp_path / "one.ecsv")
    words = [f"--set={k}={json.dumps(v)}" for k, v in TINY.items()]
    with pytest.raises(SystemExit) as raised:
        main(["--plugin", "chempy", "--preset", "quick", "--out", str(tmp_path / "run"), "--quiet",
              "--observations", str(tmp_path / "one.ecsv"), *words])  # fmt: skip
    assert raised.value.code in (0, 3)  # a network this small may fail its calibration
    assert capsys.readouterr().out == ""
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "single_object" in report["flags"]
    (combined,) = report["combined"]
    assert combined["n"] == 1
    table = Table.read(tmp_path / "run" / "summary.ecsv")
    for name, value in combined["parameters"].items():
        # 100 draws of the star against its exact moments: 5 sigma of the mean
        assert abs(table[f"{name}_mean"][0] - value["mean"]) < 0.5 * value["sd"]
        assert_allclose(table[f"{name}_sd"][0], value["sd"], rtol=0.4)


def test_combining_any_order_gives_the_same(tiny, stars, rng):
    one = tiny.combine(stars)
    two = tiny.combine(stars[rng.permutation(12)])
    assert_allclose(one.mean, two.mean, atol=1e-4)
    assert_allclose(one.cov, two.cov, rtol=1e-3)


def test_a_loaded_run_gives_the_same_numbers(tiny, stars):
    again = sbi_core.load_run(tiny.directory.root)
    assert_array_equal(again.infer(stars).values, tiny.infer(stars).values)


def test_the_published_mock_stars_go_through(tiny, chempy_data):
    stars = tiny.simulator.read_observations(chempy_data / "Mock_Data_TNG.npz")[slice(20)]
    samples = tiny.infer(stars)
    assert np.isfinite(samples.values).all()
    assert len(samples.flags) == 20
    combined = tiny.combine(stars)
    assert combined.n == 20
    assert np.isfinite(combined.mean).all()
    assert (combined.sd < 0.3).all()  # narrower than the prior


def test_an_experiment_is_one_command(tiny, tmp_path):
    from click.testing import CliRunner

    from sbi_chempy.cli import experiments

    words = ["shifted", "--run", str(tiny.directory.root), "--n", "12", "--out", str(tmp_path)]
    said = CliRunner().invoke(experiments, words, catch_exceptions=False).output
    assert said.startswith("shifted: truth alpha_IMF -2.1, log10 N_Ia -3.0")
    assert "B25 plots" in said
    folder = tmp_path / "shifted"
    rows = json.loads((folder / "numbers.json").read_text())
    assert {r["combiner"] for r in rows} == {"gaussian", "simulated-moments", "published"}
    assert [r["n"] for r in rows if r["combiner"] == "gaussian"] == [1, 3, 10]
    first = next(r for r in rows if r["n"] == 3)
    assert first["subsets"] == 4
    assert (folder / "table.txt").read_text() in said
    for stem in ("convergence", "contours"):
        assert (folder / f"{stem}.png").read_bytes()[:4] == b"\x89PNG"


def test_an_experiment_with_stars_that_the_model_does_not_make_begins_with_that(
    tiny, tmp_path, monkeypatch
):
    from sbi_chempy import experiments

    stars = tiny.simulator.example_observations(12, n=40)
    moved = replace(stars, batch=stars.batch.with_(x=stars.batch.x + 0.3))
    monkeypatch.setattr(experiments, "stars", lambda *_, **__: moved)
    (text,) = experiments.perform(
        ["shifted"], experiments.Options(out=tmp_path, run=tiny.directory.root)
    )
    first = "These objects are not what this model makes"
    assert text.startswith(first)
    assert (tmp_path / "shifted" / "table.txt").read_text().startswith(first)


def test_the_stars_of_the_experiments(tiny):
    from sbi_chempy.experiments import stars as of_experiment

    shifted = of_experiment("shifted", tiny.simulator, n=40, seed=2)
    assert len(shifted) == 40
    truth = shifted.truth
    assert_allclose(truth["alpha_imf"], -2.1, atol=1e-6)
    assert_allclose(truth["log10_n_ia"], -3.0, atol=1e-6)
    assert truth["t_birth"].min() >= 2.0
    assert truth["t_birth"].max() <= 12.8
    assert_allclose(shifted.batch.x_err, 0.05)
    again = of_experiment("shifted", tiny.simulator, n=40, seed=2)
    assert_array_equal(shifted.batch.x, again.batch.x)
    with pytest.raises(sbi_core.ConfigError, match="unknown experiment 'other'"):
        of_experiment("other", tiny.simulator)


def test_without_the_file_the_galaxy_is_asked_for(tiny, monkeypatch, tmp_path):
    from sbi_chempy import experiments

    monkeypatch.setattr(experiments, "data_dirs", lambda: [tmp_path])
    with pytest.raises(sbi_core.DataFileError, match="pass --stars FILE"):
        experiments.stars("galaxy", tiny.simulator)
