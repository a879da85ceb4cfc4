"""The Python twin of the command line."""

import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import sbi_toy
import torch
from astropy import units
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal
from pandas import DataFrame, Series
from scipy import stats
from xarray import DataArray

import sbi_core
from sbi_core import Run
from sbi_core.data.tables import as_table
from sbi_core.errors import ConfigError, ObservationError, PluginError, RunDirectoryError, SbiError


@pytest.fixture
def run(registry, tmp_path):
    def call(**options):
        options = {"preset": "quick", "out": tmp_path / "run", "registry": registry} | options
        return sbi_core.run("toy", **options)

    return call


def test_every_public_name_exists_and_is_documented():
    for name in sbi_core.__all__:
        value = getattr(sbi_core, name)
        if callable(value):
            assert value.__doc__, name
    assert set(sbi_core.__all__) <= set(dir(sbi_core))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No sbi_core attribute rnu"):
        _ = sbi_core.rnu


def test_importing_the_package_is_light():
    code = "import sys, sbi_core; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_run_returns_a_run_that_can_be_loaded(run):
    made = run(overrides={"simulate.n": 600}, seed=5)
    assert made.report["simulation"]["n"] == 600
    assert made.report["seed"] == 5
    assert made.config.simulate.n == 600
    assert repr(made) == f"Run(toy, quick, '{made.directory.root}')"
    shown = made._repr_html_()
    assert "gaussian" in shown
    assert f"calibration {made.report['calibration']['verdict']}" in shown
    again = sbi_core.load_run(made.directory.root)
    assert again.config == made.config
    assert again.report == made.report


def test_a_simulator_may_change_the_working_directory(run, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    simulate = sbi_toy.ToySimulator.simulate

    def moved(self, theta, rng):
        os.chdir(tmp_path / "other")
        return simulate(self, theta, rng)

    monkeypatch.setattr(sbi_toy.ToySimulator, "simulate", moved)
    made = run(out="relative", overrides={"simulate.workers": 1})
    assert made.directory.root == tmp_path / "relative"
    assert made.report["command"].endswith("--out relative")
    assert (tmp_path / "relative" / "report.html").exists()
    assert list((tmp_path / "other").iterdir()) == []


def test_the_default_directory_is_named_after_plugin_and_preset(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(out=None, stages=["simulate"])
    assert (tmp_path / "runs" / "toy-quick" / "sims").is_dir()


def test_observations_given_as_object_keep_truth_and_errors(run, toy, rng):
    objects = toy.example_observations(rng, 7)
    made = run(observations=objects)
    assert made.report["observations"]["n"] == 7
    last = [c for c in made.report["combined"] if c["combiner"] == "gaussian"][-1]
    assert last["parameters"]["slope"]["truth"] == 1.0
    assert_allclose(made._context.observations.batch.x, objects.batch.x)
    again = run(observations=objects)  # the same objects: nothing to do
    assert again.report == made.report


def one_star(kind):
    """Objects a to d in memory: b has no id, c a bad error, d repeats a with less."""
    nan = np.nan
    columns = {
        "id": ["a", None, "c", "a"], "a": [0.1, 0.2, 0.3, 0.1], "e_a": [0.1, 0.1, -1.0, 0.1],
        "b": [0.1, 0.2, 0.3, nan], "e_b": [0.1] * 4, "c": [0.1] * 4, "e_c": [0.1] * 4,
    }  # fmt: skip
    table = as_table(columns)
    return {
        "dict": columns, "Table": table, "QTable": QTable(table), "DataFrame": DataFrame(columns),
        "index": DataFrame(columns).set_index("id"),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["dict", "Table", "QTable", "DataFrame", "index"])
def test_tables_in_memory_are_inferred_combined_and_run(kind, finished, run, tmp_path):
    table = one_star(kind)
    samples = finished.infer(table, 50)
    assert samples.id.tolist() == ["a", "row-1-without-id"]
    summary = samples.summary()
    assert [str(f) for f in summary["flags"]][2:] == ["not_positive:e_a", "repeated_id"]
    assert summary.meta["source"] == "table in memory"
    combined = finished.combine(table)
    assert combined.n == 2
    assert [(e.row, e.reason) for e in combined.excluded] == [
        (2, "not_positive:e_a"),
        (3, "repeated_id"),
    ]
    with pytest.raises(ObservationError, match="'e_a' must be positive, but is -1 in row 2"):
        finished.infer(table, strict=True)
    with pytest.raises(ConfigError, match="expected the name of a file, got an empty text"):
        finished.infer(" ")
    assert finished.infer(table, missing=(0.2,)).id.tolist() == ["a", "row-1-without-id"]
    if kind == "Table":
        made = run(observations=table, out=tmp_path / "other")
        assert made.report["observations"]["n"] == 2
        notes = made.report["observations"]["notes"]
        assert "1 row without identifier, called row-N-without-id" in notes
        assert any("'e_a' must be positive, but is -1 in row 2" in note for note in notes)


def test_one_object_of_single_values_is_inferred(finished):
    got = finished.infer({"a": 0.1, "e_a": 0.1, "b": 0.2, "e_b": 0.1, "c": 0.1, "e_c": 0.1}, 50)
    assert got.id.tolist() == ["0"]
    with pytest.raises(ObservationError, match="columns differ in length: a 3, b 2"):
        finished.infer({"a": [0.1] * 3, "b": [0.1] * 2})


def test_a_file_of_options_is_read(run, tmp_path):
    (tmp_path / "mine.toml").write_text("[infer]\ndraws = 33\n")
    assert run(config=tmp_path / "mine.toml", stages=["simulate"]).config.infer.draws == 33


def test_the_seed_is_one_unless_named(run, tmp_path):
    assert run(stages=["simulate"]).config.seed == 1
    options = {"overrides": ["seed=4"], "stages": ["simulate"], "out": tmp_path / "other"}
    assert run(**options).config.seed == 4


def test_the_posterior_of_a_run_is_the_exact_one(finished, toy, rng):
    import sbi_toy

    objects = toy.example_observations(rng, 3)
    mean, cov, draws = finished.posterior.gaussian_moments(objects.batch)
    want, want_cov = sbi_toy.exact_moments(objects.batch)
    assert draws is None
    assert_allclose(mean, want)
    assert_allclose(cov, want_cov)
    samples = finished.infer(objects, draws=4000)
    z = (samples.values - sbi_toy.LOC) / sbi_toy.SCALE
    sd = np.sqrt(np.einsum("nii->ni", cov))
    assert (np.abs(z.mean(0) - mean) < 5 * sd / np.sqrt(4000)).all()  # false alarm 1e-6


def test_objects_keep_their_draws_in_any_order_and_company(finished, toy, rng):
    objects = toy.example_observations(rng, 6)
    whole = finished.infer(objects)
    assert_array_equal(finished.infer(objects[[4]]).values[:, 0], whole.values[:, 4])
    turned = finished.infer(objects[::-1])
    assert_array_equal(turned.values[:, ::-1], whole.values)


def test_samples_show_themselves(finished, toy, rng):
    samples = finished.infer(toy.example_observations(rng, 3))
    assert samples["slope"].shape == (100, 3)
    assert repr(samples) == "PosteriorSamples(draws=100, objects=3, parameters=['slope', 'offset'])"
    array = samples.to_xarray()
    assert array.dims == ("draw", "object", "parameter")
    assert_array_equal(array.sel(parameter="offset"), samples["offset"])
    table = samples.summary()
    assert_allclose(table["slope_p50"], np.median(samples["slope"], 0))
    assert table["offset_sd"].unit == "dex"
    shown = samples._repr_html_()
    assert "slope_p16" in shown
    assert "more row" not in shown
    assert not re.search(r"\d\.\d{6}", shown)
    assert (
        "<p>and 2 more rows</p>" in finished.infer(toy.example_observations(rng, 12))._repr_html_()
    )


def test_a_posterior_shows_its_parameters(finished):
    posterior = finished.posterior
    shown = posterior._repr_html_()
    assert "posterior of 2 parameters<" in shown  # an exact one: nothing was trained
    assert all(f"<td>{name}</td>" in shown for name in posterior.space.names)


def test_components_are_built_by_name():
    assert sbi_core.get_combiner("gaussian", draws=200).config.draws == 200
    assert sbi_core.get_estimator("mixture", components=3).name == "mixture"
    assert sbi_core.get_embedding("identity").takes_sets is False
    with pytest.raises(PluginError, match="unknown combiner 'gausian'; did you mean 'gaussian'"):
        sbi_core.get_combiner("gausian")
    with pytest.raises(ConfigError, match="unknown option 'combiner.draw'; did you mean 'draws'"):
        sbi_core.get_combiner("gaussian", draw=200)


def test_simulators_are_built_by_name(toy_installed):
    toy = sbi_core.get_simulator("toy", error=0.1)
    assert toy.default_error == 0.1
    assert [p.name for p in sbi_core.plugins()].count("toy") == 1


def test_a_run_finds_its_plugin_in_a_registry_and_survives_pickling(finished, registry, toy, rng):
    objects = toy.example_observations(rng, 4)
    again = sbi_core.load_run(finished.directory.root, registry=registry)
    assert_array_equal(again.infer(objects).values, finished.infer(objects).values)
    copy = pickle.loads(pickle.dumps(again))
    assert_array_equal(copy.infer(objects).values, finished.infer(objects).values)


def test_options_of_reading_can_change_after_the_training(finished, registry, toy, rng, tmp_path):
    path = tmp_path / "objects.ecsv"
    toy.example_observations(rng, 4).write(path)
    shifted = Run(finished.directory.root, registry, ["simulator.shift=1"])
    assert_allclose(
        shifted.observations(path).batch.x, finished.observations(path).batch.x + 1, rtol=1e-6
    )
    assert shifted.infer(path).values.shape == finished.infer(path).values.shape
    with pytest.raises(ConfigError, match="'simulator.error' is fixed by the training of the run"):
        _ = Run(finished.directory.root, registry, ["simulator.error=1"]).simulator


def test_the_home_directory_may_be_a_tilde(finished, registry, toy, rng, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    toy.example_observations(rng, 4).write(tmp_path / "objects.csv")
    run = sbi_core.load_run("~/run", registry=registry)
    assert len(run.infer("~/objects.csv").id) == 4


def test_what_is_not_a_file_is_refused_at_once(finished, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", "/dev/stdin", "/dev/null"):
        with pytest.raises(SbiError, match="is not a regular file"):
            finished.infer(path)


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="does not exist"):
        sbi_core.load_run(tmp_path / "nothing")


def test_a_run_of_a_plugin_that_is_gone_still_shows_its_report(finished, monkeypatch):
    again = sbi_core.load_run(finished.directory.root)  # the toy is not installed here
    assert again.report["plugin"] == "toy"
    with pytest.raises(PluginError, match="unknown simulator 'toy'"):
        _ = again.simulator


# -- fit ------------------------------------------------------------------------------------

FAST = {
    "train.epochs": 3,
    "train.batch_size": 512,
    "estimator.name": "mixture",
    "diagnose.draws": 60,
}


def own_simulations(n=600, seed=1):
    rng = np.random.default_rng(seed)
    theta = DataFrame({"a": rng.uniform(-1, 1, n), "b": rng.normal(2, 1, n)})
    x = theta.to_numpy() @ rng.standard_normal((2, 3)) + 0.1 * rng.standard_normal((n, 3))
    return theta, DataFrame(x, columns=["u", "v", "w"])


PRIOR = {"b": {"family": "normal", "loc": 2, "scale": 1}, "a": stats.uniform(-1, 2)}


def test_a_posterior_is_fitted_to_arrays_and_tested_on_held_out_rows(tmp_path, capsys):
    theta, x = own_simulations()
    posterior = sbi_core.fit(theta, x, PRIOR, overrides=FAST)
    assert "train" in capsys.readouterr().err  # progress is shown
    assert posterior.space.names == ("a", "b")
    calibration = posterior.calibrate(quiet=True)
    assert 40 < calibration.objects < 90
    assert calibration.verdict in repr(calibration)
    assert calibration.table.colnames[:3] == ["parameter", "sbc_p", "coverage_0.50"]
    for objects in (x.iloc[:3], x.to_numpy()[:3], x.to_numpy()[:3].tolist()):
        drawn = posterior.sample(objects, 50)
        assert drawn.values.shape == (50, 3, 2)
    single = posterior.sample(x.iloc[0], 50).values[:, 0]
    assert_allclose(single, drawn.values[:, 0], rtol=1e-5, atol=1e-5)
    assert posterior.log_prob(theta.to_numpy()[:3], x.iloc[:3]).shape == (3,)
    page = posterior.report(tmp_path / "mine.html", quiet=True)
    assert "held-out simulations" in page.read_text()
    posterior.report(page, x.iloc[:5], quiet=True)
    assert posterior.run.report["observations"]["n"] == 5
    posterior.save(tmp_path / "saved")
    again = sbi_core.load_run(tmp_path / "saved")
    assert_array_equal(again.posterior.sample(x.iloc[:3], 50).values, drawn.values)
    assert again.calibrate().verdict == calibration.verdict
    with pytest.raises(RunDirectoryError, match="exists; choose another folder"):
        posterior.save(tmp_path / "saved")


def test_the_same_seed_gives_the_same_posterior_for_every_kind_of_array():
    theta, x = own_simulations(300)
    kinds = [
        (theta, x),
        (torch.as_tensor(theta.to_numpy()), torch.as_tensor(x.to_numpy())),
        (QTable(theta.to_dict("list")), QTable(x.to_dict("list"))),
    ]
    fast = {**FAST, "train.epochs": 1}
    values = []
    for parameters, data in kinds:
        prior = {name: PRIOR[name] for name in ("a", "b")}
        fitted = sbi_core.fit(parameters, data, prior, seed=3, overrides=fast, quiet=True)
        values.append(fitted.sample(x.to_numpy()[:2], 20).values)
    assert_array_equal(values[0], values[1])
    assert_array_equal(values[0], values[2])
    other = sbi_core.fit(theta, x, PRIOR, seed=4, overrides=fast, quiet=True)
    assert np.any(other.sample(x.iloc[:2], 20).values != values[0])


def test_named_parameters_and_objects_are_read_by_name():
    theta, x = own_simulations()
    posterior = sbi_core.fit(theta, x, PRIOR, overrides=FAST, quiet=True)
    rows = theta.to_numpy()
    log_q = posterior.log_prob(rows[:3], x[:3])
    for named in (theta[["b", "a"]][:3], DataArray(
        rows[:3, ::-1], dims=("k", "p"), coords={"p": ["b", "a"]}
    )):  # fmt: skip
        assert_array_equal(posterior.log_prob(named, x[:3]), log_q)
    assert_array_equal(posterior.log_prob(rows[:1], x[:1]), log_q[:1])
    assert posterior.log_prob(rows[0], x[:1]).shape == ()
    for one in (rows[:5], {"a": rows[:5, 0], "b": rows[:5, 1]}):
        assert posterior.log_prob(one, x.iloc[0]).shape == (5,)
    first = posterior.sample(x.iloc[0], 20).values
    row = DataArray(x.to_numpy()[0, ::-1], dims="p", coords={"p": ["w", "v", "u"]})
    assert_array_equal(posterior.sample(row, 20).values, first)


def test_objects_unlike_the_simulations_are_flagged():
    theta, x = own_simulations()
    posterior = sbi_core.fit(theta, x, PRIOR, overrides=FAST, quiet=True)
    objects = np.r_[x.to_numpy()[:3], 50 + x.to_numpy()[:1]]
    flags = posterior.run.infer(objects, 10).flags
    assert "far_outside_training" in flags[3]
    for _ in range(2):  # the second time from memory
        assert posterior.sample(objects, 10).flags == flags
    assert posterior.sample(posterior.run.observations(objects), 10).flags == ()


def test_with_one_observable_every_number_is_an_object():
    theta, _ = own_simulations()
    a, prior = theta["a"].to_numpy(), {"a": PRIOR["a"]}
    posterior = sbi_core.fit(a, a, prior, noise=0.1, overrides=FAST, quiet=True)
    assert posterior.sample(0.4, 10).values.shape == (10, 1, 1)
    for three in ([0.1, 0.2, 0.3], Series([0.1, 0.2, 0.3], index=["one", "two", "three"])):
        assert posterior.sample(three, 10).values.shape == (10, 3, 1)
    assert posterior.log_prob([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).shape == (3,)


def test_arrays_with_a_unit_are_converted_to_that_of_the_simulations():
    theta, x = own_simulations()
    quantity = x.to_numpy() * units.km / units.s
    posterior = sbi_core.fit(theta, quantity, PRIOR, overrides=FAST, quiet=True)
    drawn = posterior.sample(quantity[0], 10).values
    assert_allclose(posterior.sample(quantity[0].to("m/s"), 10).values, drawn, rtol=1e-3)
    with pytest.raises(ObservationError, match="unit 's', expected 'km / s'"):
        posterior.sample(x.to_numpy()[0] * units.s)


@pytest.mark.parametrize("noise", [None, 0.1])
def test_a_single_parameter_is_fitted_with_the_default_estimator(noise):
    rng = np.random.default_rng(1)
    theta = rng.uniform(size=200)
    x = theta[:, None] + 0.1 * rng.standard_normal((200, 2))
    short = {"train.epochs": 1}
    prior = [stats.uniform(0, 1)]
    posterior = sbi_core.fit(theta, x, prior, noise=noise, overrides=short, quiet=True)
    assert posterior.sample(x[0], 50).values.shape == (50, 1, 1)


def test_simulations_with_missing_values_flag_what_is_unlike_them():
    theta, x = own_simulations(2000)
    gaps = np.random.default_rng(3).random(x.shape) < 0.2
    gaps[:, 0] = False
    values = np.where(gaps, np.nan, x.to_numpy())
    posterior = sbi_core.fit(
        theta, values, PRIOR, noise=0.05, nan="missing", overrides=FAST, quiet=True
    )
    seen = values[:400].copy()
    seen[-1, 0] = 50.0
    found = posterior.sample(seen, 10)
    outside = ["outside_training" in words for words in found.flags]
    assert outside[-1]
    assert np.mean(outside) < 0.05
    assert posterior.run.infer(seen, 10).flags == found.flags


def test_without_a_prior_the_assumed_one_is_shown(capsys):
    theta, x = own_simulations(300)
    posterior = sbi_core.fit(theta.to_numpy(), x, overrides={**FAST, "train.epochs": 1})
    assert posterior.space.names == ("theta1", "theta2")
    assert "no prior given; assumed from the simulations: theta1 Prior(uniform" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "give both theta and x"),
        ({"theta": np.zeros((600, 3))}, "theta has 3 columns, the prior 2 parameters"),
        ({"prior": {"a": stats.uniform(0, 1), "b": stats.norm()}}, "outside the prior in .* rows"),
        ({"x": np.full((600, 3), np.nan)}, "x has 1800 values that are NaN .* in 600 rows"),
        ({"x": np.zeros((600, 3))}, "all simulations have the same outputs"),
        ({"noise": 0.1, "x_err": np.ones((600, 3))}, "leave noise out"),
        ({"preset": "fast"}, "no preset 'fast'"),
        ({"nan": "mask"}, "nan"),
    ],
)
def test_wrong_input_of_fit_is_refused_in_one_sentence(change, message, tmp_path):
    theta, x = own_simulations()
    given = {"theta": theta, "x": x, "prior": PRIOR, "overrides": FAST, "quiet": True} | change
    with pytest.raises(SbiError, match=message):
        sbi_core.fit(**given)
