"""Runs of a fixed set of simulations: no copies on both sides, nothing simulated."""

import json

import h5py
import numpy as np
import pytest
from astropy.table import Table

import sbi_core
from sbi_core import Parameter, ParameterSpace, Prior
from sbi_core.errors import ConfigError, RunDirectoryError, SimulationError
from sbi_core.pipeline.config import assignments, command_words, resolve
from sbi_core.pipeline.fixed import options_of_files, sized_options
from sbi_core.pipeline.runner import execute
from sbi_core.registry import Registry
from sbi_core.simulate import arrays
from sbi_core.training.splits import split_by_key, splits_of

FAST = [
    "train.epochs=2",
    "train.batch_size=512",
    "estimator.name=mixture",
    "diagnose.draws=60",
    "infer.n_example=20",
]
PRIORS = (
    "a = { family = 'uniform', low = 0, high = 1 }\nb = { family = 'normal', loc = 0, scale = 1 }\n"
)

SPACE = ParameterSpace((Parameter("a", Prior("uniform", {"low": 0, "high": 1})),))


@pytest.fixture
def files(tmp_path, rng):
    """A table of 300 simulations of 3 observations each, half of them copied, and its priors."""
    theta = np.c_[rng.uniform(size=300), rng.standard_normal(300)].repeat(3, axis=0)
    x = theta @ rng.standard_normal((2, 4)) + 0.1 * rng.standard_normal((900, 4))
    order = rng.permutation(np.r_[:900, :450])
    table = Table({"a": theta[:, 0], "b": theta[:, 1]} | {f"m{k}": x[:, k] for k in range(4)})[
        order
    ]
    table.write(tmp_path / "sims.csv")
    table["halo"] = order // 30
    table.write(tmp_path / "halos.csv")
    (tmp_path / "prior.toml").write_text(PRIORS)
    table[:5]["m0", "m1", "m2", "m3"].write(tmp_path / "objects.csv")
    return tmp_path


def configured(files, *overrides, name="sims.csv", group="", preset="quick"):
    registry = Registry(["simulations"])
    file, prior = str(files / name), str(files / "prior.toml")
    given = dict(assignments([*FAST, *overrides]))
    options = options_of_files(file, prior, preset, group, given)
    return registry, resolve(
        registry, "simulations", preset=preset, overrides=[*FAST, *overrides], defaults=options
    )


def run_of(files, *overrides, out="run", stages=None, **options):
    registry, config = configured(files, *overrides, **options)
    return execute(config, files / out, registry, stages=stages)


def twins_of(run, sides):
    """Return how many held-out simulations have a twin in the training, and of how many."""
    theta = run._context.training.batch.theta.numpy()
    seen = {row.tobytes() for row in theta[np.r_[sides.train, sides.val]]}
    return sum(row.tobytes() in seen for row in theta[sides.test]), len(sides.test)


def test_copies_are_never_on_both_sides(files, monkeypatch):
    run = run_of(files, stages=["simulate"])
    twins, rows = twins_of(run, splits_of(run._context.training))
    assert (twins, rows > 60) == (0, True)
    # the same without grouping: the test can fail
    twins, rows = twins_of(run, split_by_key(np.arange(1350), run.config.seed))
    assert twins > 0.9 * rows
    # and a set without it does not start
    monkeypatch.setattr(
        arrays, "units_of", lambda simulations, *_: arrays.Checked(np.arange(len(simulations)), 0)
    )
    with pytest.raises(SimulationError, match="are copies of others"):
        run_of(files, out="leaking", stages=["simulate"])


def test_rounded_copies_are_never_on_both_sides(files, rng):
    theta = np.c_[rng.uniform(size=600), rng.standard_normal(600)]
    x = theta @ rng.standard_normal((2, 4)) + 0.1 * rng.standard_normal((600, 4))
    rows = np.c_[theta, x]
    rows = np.r_[rows, np.round(rows, 4)]
    Table(rows, names=["a", "b", "m0", "m1", "m2", "m3"]).write(files / "sims.csv", overwrite=True)
    run = run_of(files, stages=["simulate"])
    sides = splits_of(run._context.training)
    seen = run._context.training.batch.theta.numpy()
    trained = {row.tobytes() for row in np.round(seen[np.r_[sides.train, sides.val]], 3)}
    assert not [row for row in np.round(seen[sides.test], 3) if row.tobytes() in trained]
    assert run._context.simulator.near_copies == 1200


def test_groups_are_never_on_both_sides(files):
    run = run_of(files, name="halos.csv", group="halo", stages=["simulate"])
    training = run._context.training
    sides = splits_of(training)
    keys = training.batch.split_key.numpy()
    assert len(np.unique(keys)) == 30
    assert not {*keys[sides.train]} & {*keys[sides.test]}
    assert run.config.simulator.options["group_column"] == "halo"


def test_a_file_gives_a_whole_run(files):
    run = run_of(files)
    training = run._context.training
    keys = training.batch.split_key.numpy()[splits_of(training).test]  # independent tests
    assert run.report["calibration"]["objects"] == len(np.unique(keys)) < len(keys)
    facts = json.loads(run.directory.provenance.read_text())
    assert facts["simulator"]["sha256"] == run.config.simulator.options["sha256"]
    assert run.report["simulation"]["n"] == 1350
    assert run.report["observations"]["source"] == "held-out simulations"
    assert run.directory.report_html.exists()
    assert "true_a" not in run.infer(files / "objects.csv", 50).summary().colnames
    (files / "sims.csv").unlink()  # a trained posterior needs no simulations
    again = sbi_core.load_run(run.directory.root)
    assert again.infer(files / "objects.csv", 50).values.shape == (50, 5, 2)


def test_options_of_the_chosen_components_are_taken(files, tmp_path):
    words = ("estimator.members=2", "estimator.options.hidden=[16]", "embedding.hidden=[8]")
    file, prior = str(files / "sims.csv"), str(files / "prior.toml")
    registry, options = Registry(["simulations"]), options_of_files(file, prior, "quick")
    config = resolve(registry, "simulations", preset="quick", overrides=words, defaults=options)
    assert (config.estimator.name, config.estimator.parameters) == ("ensemble", "all")
    assert config.estimator.options["members"] == 2
    assert config.estimator.options["options"] == {"hidden": [16]}
    assert config.embedding.options["hidden"] == [8]
    more = tmp_path / "more.toml"
    more.write_text("train = { epochs = 7 }\nestimator = { members = 4 }\n")
    config = resolve(registry, "simulations", preset="quick", file=more, defaults=options)
    assert (config.train["epochs"], config.estimator.options["members"]) == (7, 4)


def test_the_command_of_a_run_makes_it_again(files):
    registry, config = configured(files, "train.weight_decay=0.5", name="halos.csv", group="halo")
    words = command_words(config, registry, "runs/sims-quick")
    assert words[:6] == [
        "--simulations", str(files / "halos.csv"), "--prior", str(files / "prior.toml"),
        "--group-column", "halo",
    ]  # fmt: skip
    settings = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    assert "train.weight_decay=0.5" in settings
    assert not [s for s in settings if s.startswith(("simulator.", "simulate.n"))]
    given = dict(assignments(settings))
    options = options_of_files(words[1], words[3], "quick", words[5], given)
    again = resolve(registry, "simulations", preset="quick", overrides=settings, defaults=options)
    assert again == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["emulate.enabled=true"], r"the emulator .* needs new simulations"),
        (["combiner.name=simulated-moments"], "combiner 'simulated-moments' needs new.*gaussian"),
        (["combiner.name=deepset"], "combiner 'deepset' needs new simulations"),
        (["combiner.name=likelihood"], "combiner 'likelihood' needs new simulations"),
        (["combine.calibration_groups=10"], "the test of combinations .* needs new simulations"),
        (["combine.reference=100"], "the check of the model .* needs new simulations"),
    ],
)
def test_what_needs_new_simulations_says_so_before_anything_is_done(files, overrides, message):
    (files / "prior.toml").write_text(PRIORS.replace("scale = 1", "scale = 1, scope = 'global'"))
    with pytest.raises(ConfigError, match=message):
        run_of(files, *overrides)
    assert not (files / "run").exists()


def test_objects_that_share_parameters_are_combined(files):
    (files / "prior.toml").write_text(PRIORS.replace("scale = 1", "scale = 1, scope = 'global'"))
    run = run_of(files)
    # simulations with the parameters of one held-out simulation
    assert run.report["combined"][-1]["n"] in (3, 6)
    assert list(run.report["combined"][0]["parameters"]) == ["b"]


def test_images_larger_than_memory_are_streamed_from_hdf5(files, rng):
    theta = np.c_[rng.uniform(size=400), rng.standard_normal(400)]
    x = theta[:, :1, None] + 0.1 * rng.standard_normal((400, 4, 4))
    with h5py.File(files / "sims.h5", "w") as f:
        f["theta"], f["x"] = theta, x
    run = run_of(files, "simulate.shard_size=100", "train.max_memory_gb=1e-9", name="sims.h5")
    assert len(list(run.directory.sims.glob("*.h5"))) == 4
    assert type(run._context.training.batch).__name__ == "ShardedBatch"
    assert run.config.embedding.name == "cnn"
    assert run.infer(x[:3].astype(np.float32), 50).values.shape == (50, 3, 2)
    assert run.infer(x[0], 50).values.shape == (50, 1, 2)


def test_presets_are_numbers_of_steps():
    for n in (2000, 50_000):
        epochs = [
            sized_options(p, n, (3,), SPACE, noise=False)["train.epochs"]
            for p in ("quick", "large")
        ]
        assert 6 < epochs[1] / epochs[0] < 10
    assert sized_options("quick", 2000, (3,), SPACE, noise=True)["train.weight_decay"] == 0


def test_units_of_a_file_are_those_of_the_prior(files, rng):
    table = Table.read(files / "sims.csv")
    table["a"] *= 1000
    table["a"].unit = "Myr"
    table.write(files / "sims.ecsv")
    prior = files / "prior.toml"
    prior.write_text(PRIORS.replace("high = 1 ", "high = 1, unit = 'Gyr' "))
    run = run_of(files, name="sims.ecsv", stages=["simulate"])
    np.testing.assert_allclose(
        run._context.training.batch.theta.numpy()[:, 0].mean(), table["a"].mean() / 1000, rtol=1e-5
    )
    prior.write_text(PRIORS.replace("high = 1 ", "high = 1000 "))
    run = run_of(files, name="sims.ecsv", out="other", stages=["simulate"])
    assert run._context.space.units == ("Myr", "")


def test_a_wrong_prior_is_told_in_the_report(files):
    (files / "prior.toml").write_text(PRIORS.replace("high = 1", "high = 10"))
    run = run_of(files)
    _, note = run.report["simulation"]["messages"]
    assert "the simulations do not follow the prior of 'a'" in note
    assert "68 % lie in" in run.directory.report_html.read_text()


def test_columns_of_a_table_are_said_to_be_parameters_or_data(files, capsys):
    table = Table.read(files / "halos.csv")
    table["e_m0"] = 0.1
    table.remove_columns(["m1", "m2", "m3"])
    table.rename_columns(["b", "halo"], ["x", "group"])
    table["e_x"] = 0.2
    table["name"] = "s"
    table.write(files / "few.csv")
    (files / "one.toml").write_text(PRIORS.split("\n")[0])
    said = (
        "'few.csv' has 1 parameter named by the prior (a), 2 columns of data (x, m0), "
        "their errors (e_x, e_m0), groups (group), not used (name)"
    )
    posterior = sbi_core.fit(
        files / "few.csv",
        prior=files / "one.toml",
        preset="quick",
        out=files / "run",
        overrides=FAST[:3],
    )
    assert said in capsys.readouterr().err
    page = posterior.report(quiet=True).read_text()
    assert "1 parameter named by the prior (a), 2 columns of data (x, m0)" in page
    assert said in posterior.run.report["simulation"]["messages"]


def test_messages_of_fit_name_no_option_of_the_command_line(files, rng):
    theta, x = rng.uniform(size=(200, 1)), rng.standard_normal((200, 3))
    options = {"prior": {"a": Prior("uniform", {"low": 0, "high": 1})}, "overrides": FAST[:3]}
    sbi_core.fit(theta, x, **options, out=files / "run", quiet=True)
    (files / "other").mkdir()
    (files / "other" / "notes.txt").touch()
    for out, seed in (("run", 5), ("other", 1)):
        with pytest.raises(RunDirectoryError, match="choose another run directory .out.") as caught:
            sbi_core.fit(theta, x, **options, out=files / out, seed=seed, quiet=True)
        assert "--" not in str(caught.value)
