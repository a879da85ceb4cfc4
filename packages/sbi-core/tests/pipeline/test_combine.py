"""The stage combine: remedies beside the result, and whether the objects fit the simulator."""

import re

import numpy as np
import pytest
import sbi_toy
from astropy.table import Table

from sbi_core.cli.run import _echo
from sbi_core.combiners import group_moments
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.data.observations import Observations
from sbi_core.errors import ObservationError, RunDirectoryError
from sbi_core.pipeline.groups import GroupSimulator, SimulatedGroups
from sbi_core.pipeline.model_check import with_model_check
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream

OPTIONS = ("combine.remedies=true", "combine.reference=500", "infer.n_example=40")


def test_remedies_are_shown_beside_the_result_never_instead(toy_run):
    run = toy_run(*OPTIONS, "combine.calibration_groups=20")
    names = [entry["combiner"] for entry in run.report["combined"]]
    assert names[0] == "gaussian"
    assert {"gaussian+tau", "gaussian+beta", "toy-wrong"} <= set(names)
    plain, tau, beta = (
        next(e for e in run.report["combined"][::-1] if e["combiner"] == f"gaussian{r}")
        for r in ("", "+tau", "+beta")
    )
    assert plain["n"] == tau["n"] == beta["n"] == 40
    for name, value in plain["parameters"].items():
        assert tau["parameters"][name]["mean"] == value["mean"]
        assert tau["parameters"][name]["sd"] >= value["sd"]
        assert beta["parameters"][name]["sd"] >= 0.999 * value["sd"]
    page = run.directory.report_html.read_text()
    assert "gaussian+tau" in page


def test_without_the_options_nothing_is_added(finished):
    assert "misspecification" not in finished.report
    assert not any("+" in entry["combiner"] for entry in finished.report["combined"])


def test_objects_of_the_simulator_are_not_flagged(toy_run):
    run = toy_run(*OPTIONS)
    (entry,) = run.report["misspecification"]
    assert entry["n"] == 40
    assert "are consistent with the simulator" in entry["verdict"]
    assert "unlike_the_simulator" not in run.report["flags"]
    combined = run.combine(run._context.observations)
    assert combined.diagnostics["misspecification_p"] == pytest.approx(entry["p"])
    assert "unlike_the_simulator" not in combined.flags


SENTENCE = (
    r"These objects are not what this model makes \(chi2 = \d+ for \d+ numbers\): "
    r"the error bar does not hold\."
)


@pytest.fixture
def others(toy, tmp_path):
    """A file of objects that the toy does not make, in a group; the first 30 are those of it."""
    objects = toy.example_observations(np.random.default_rng(1), 90)
    x = objects.batch.x.clone()
    x[30:, 2] += 4.0 * sbi_toy.ERROR

    def write(rows, **names):
        batch = objects.batch.with_(x=x)[rows]
        path = tmp_path / "objects.npz"
        group = ["good" if k < 30 else "bad" for k in range(90)][rows] if names else "all"
        Observations.from_batch(batch, observables=objects.observables, group=group).write(
            path, overwrite=True
        )
        return path

    return write


def test_other_objects_are_flagged_and_named_first_of_all(toy_run, others, capsys):
    path = others(slice(30, 90))
    run = toy_run(*OPTIONS, f"infer.observations={path}")
    report = run.report
    assert "unlike_the_simulator" in report["flags"]
    assert report["status"] == "unlike_the_simulator"
    assert all("unlike_the_simulator" in e["flags"] for e in report["combined"])
    assert report["calibration"]["verdict"] == "pass"  # the check tests objects
    sentence = report["misspecification"][0]["verdict"]
    assert "No value of the shared parameters reproduces" in sentence
    page = run.directory.report_html.read_text()
    assert sentence.split(";")[0] in page
    title = page[page.index("<h1>") : page.index("</h1>")]
    assert re.search(SENTENCE.replace("chi2", "χ²"), title)
    assert re.search(SENTENCE, run._repr_html_()[:200])
    _echo(report, run.directory.given)
    assert re.match(SENTENCE, capsys.readouterr().out)
    flags = Table.read(run.directory.combined)["flags"]
    assert all("unlike_the_simulator" in f for f in flags)


def test_other_objects_combined_with_a_saved_run_are_named_first(toy_run, others):
    run = toy_run(*OPTIONS)
    assert run.report["status"] == "ok"
    path = others(slice(30, 90))
    combined = run.combine(path)
    assert "unlike_the_simulator" in combined.flags
    assert re.match(SENTENCE, combined.warning)
    plain = GaussianCombiner().combine(run.posterior, run.observations(path))
    again = with_model_check(plain, run.simulator, run.posterior, run.observations(path))
    assert plain.warning == ""
    assert re.match(SENTENCE, repr(again))
    few = with_model_check(plain, run.simulator, run.posterior, run.observations(path)[:10])
    assert few is plain


def test_groups_are_named_that_the_model_does_not_make(toy_run, others):
    run = toy_run(*OPTIONS, f"infer.observations={others(slice(90), group=True)}")
    flagged = {
        e["group"]
        for e in run.report["combined"]
        if "flags" in e and "unlike_the_simulator" in e["flags"]
    }
    assert flagged == {"bad"}
    page = run.directory.report_html.read_text()
    assert "The objects of group &#39;bad&#39; are not what this model makes" in page
    assert page.count("The error bar does not hold for these objects.") == 2  # parameters


def test_results_for_the_nominal_model_are_marked_where_it_does_not_make_the_objects(
    toy_run, others, capsys
):
    path = others(slice(30, 90))
    run = toy_run(
        *OPTIONS, "combiner.name=group-moments", "combiner.groups=200", "combiner.size=20",
        "combiner.epochs=2", 'combine.compare=["gaussian"]', f"infer.observations={path}",
    )  # fmt: skip
    flags = {e["combiner"]: e.get("flags", []) for e in run.report["combined"]}
    assert "unlike_the_simulator" in flags["gaussian"]
    _echo(run.report, run.directory.given)
    note = "  (not what this model makes: the error bar does not hold)"
    lines = {line.split(",")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["gaussian"].endswith(note)
    assert lines["group-moments"].endswith(note) == (
        "unlike_the_simulator" in flags["group-moments"]
    )
    page = run.directory.report_html.read_text()
    assert page.count('aria-label="the error bar does not hold">✗') >= flags["gaussian"].count(
        "unlike_the_simulator"
    )
    one = {"unlike_nominal_model", "unlike_the_simulator"} & {*run.combine(path).flags}
    assert len(one) == 1  # not both: the second says that no nuisance parameters help
    assert "unlike_nominal_model" not in run.combine(others(slice(30))).flags
    assert "single_object" in run.combine(others(slice(1))).flags


def test_the_combination_is_tested_at_the_number_of_objects_that_are_combined(toy_run):
    options = ("combine.sizes=[1, 10, 50]", "infer.n_example=12", "combine.calibration_groups=20")
    run = toy_run(*options)
    assert [entry["n"] for entry in run.report["combined_calibration"]] == [1, 10, 12]
    assert "more_objects_than_calibrated" not in run.report["flags"]


def test_truths_of_groups_can_be_spread_wider_than_the_prior(toy):
    space = sbi_toy.SPACE.select("global")
    for spread in (1.0, 1.25):
        rows = GroupSimulator(toy, 2, spread).draw(4000, stream(1, "x")).theta.numpy()
        truth = space.to_unconstrained(rows[:, :2])
        assert np.array_equal(truth[::2], truth[1::2])
        assert np.allclose(truth.std(0), spread, atol=0.1)  # 2000 groups: 6 sigma


def test_a_set_network_is_trained_stored_and_used_again(toy_run, toy, rng):
    run = toy_run(
        "combiner.name=deepset", "combiner.max_objects=20", "combiner.simulations=3000",
        "combiner.steps=30", "combiner.rows=256", "combiner.member=[16]", "combiner.hidden=[16]",
        "infer.n_example=12", "combine.sizes=[1, 5]",
    )  # fmt: skip
    entries = [e for e in run.report["combined"] if e["combiner"] == "deepset"]
    assert [e["n"] for e in entries] == [1, 5, 12]
    assert (run.directory.combiner("deepset") / "weights.safetensors").exists()
    objects = toy.example_observations(rng, 8)
    got, again = run.combine(objects), run.combine(objects, "deepset")
    assert got.n == 8
    assert np.array_equal(got.z_mean, again.z_mean)


def test_another_combiner_learns_from_groups_of_its_own(finished):
    context = finished._context
    own, other = (SimulatedGroups(context, "correction", 3, 4, o) for o in ("", "deepset"))
    assert own._shards[0].directory.name == "correction"
    assert other._shards[0].directory.name == "correction-deepset"


MARGINAL = (
    "combiner.name=group-moments", "combiner.groups=200", "combiner.size=20", "combiner.epochs=1",
    "combine.sizes=[10]", "infer.n_example=10",
)  # fmt: skip


def test_results_with_other_widths_of_nuisance_parameters_are_not_used_again(toy_run, monkeypatch):
    toy_run(*MARGINAL)
    toy_run(*MARGINAL)  # nothing to do
    monkeypatch.setattr(sbi_toy.ToySimulator, "population", {"size": (0.9, 0.2)})
    with pytest.raises(RunDirectoryError, match=r"nuisance parameters.* invalidates combine;"):
        toy_run(*MARGINAL)


def test_groups_that_were_drawn_differently_are_not_used_again(finished, monkeypatch):
    def groups(size=4, marginalise=True):
        return SimulatedGroups(finished._context, "correction", 60 // size, size, "x", marginalise)

    groups().simulate()
    old = groups()._shards[0].path.read_bytes()
    groups().simulate()
    assert groups()._shards[0].path.read_bytes() == old
    with pytest.raises(RunDirectoryError, match="made by another simulator"):
        groups(size=6).simulate()  # the same rows in groups of another size
    with pytest.raises(RunDirectoryError, match="made by another simulator"):
        groups(marginalise=False).simulate()  # the truths are spread wider
    for name, value in {"population": {"size": (0.9, 0.2)}, "nuisances": {"n": SHIFT}}.items():
        with monkeypatch.context() as changed:
            changed.setattr(sbi_toy.ToySimulator, name, value)
            with pytest.raises(RunDirectoryError, match="made by another simulator"):
                groups().simulate()


SHIFT = ParameterSpace(
    (Parameter("n", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="nuisance"),)
)


def test_a_combiner_that_does_not_take_the_data_stops_a_run_before_its_simulations(
    toy_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(group_moments, "_MOST_VALUES", 2)
    message = "the group-moments combiner takes one row of at most 2 numbers per object"
    for option in ("combiner.name=group-moments", 'combine.compare=["group-moments"]'):
        with pytest.raises(ObservationError, match=message):
            toy_run(option)
        assert not list(tmp_path.rglob("part-*.h5"))
    toy_run(stages=["simulate"])
    with pytest.raises(ObservationError, match=message):
        toy_run("combiner.name=group-moments")  # the simulations are there, groups are not
    assert not list(tmp_path.rglob("groups/*"))


EMULATED = (
    "emulate.enabled=true", "emulate.epochs=60", "emulate.hidden=[32]", "emulate.batch_size=64",
    "emulate.optimizer=adam-onecycle", "emulate.learning_rate=0.01",
    'combine.compare=["likelihood"]', "combine.sizes=[10]", "infer.n_example=10",
)  # fmt: skip


def test_the_likelihood_takes_the_emulator_of_the_run(toy_run, monkeypatch):
    from sbi_core.combiners.likelihood import LikelihoodCombiner

    attached = []
    monkeypatch.setattr(
        LikelihoodCombiner,
        "attach",
        lambda self, s: (attached.append(s), setattr(self, "_simulator", s)),
    )
    run = toy_run(*EMULATED)
    assert {s.name for s in attached} == {"toy-emulator"}
    assert all(s.carry_error for s in attached)
    exact, emulated = run.report["combined"]
    for name, value in exact["parameters"].items():
        off = emulated["parameters"][name]["mean"] - value["mean"]
        assert abs(off) < 0.5 * value["sd"]  # an emulator of seconds: rms 0.03 of 0.5


def test_an_emulator_that_is_not_trained_yet_is_asked_for(toy_run):
    with pytest.raises(RunDirectoryError, match="stage 'emulate' has not run yet"):
        toy_run(*EMULATED, stages=["simulate", "train", "diagnose", "infer", "combine"])


def test_another_emulator_invalidates_its_users_only(toy_run):
    toy_run(*EMULATED)
    with pytest.raises(RunDirectoryError, match="invalidates emulate, combine;"):
        toy_run(*EMULATED, "emulate.hidden=[16]")
    toy_run(*EMULATED[:-3], out="plain")
    with pytest.raises(RunDirectoryError, match="invalidates emulate;"):
        toy_run(*EMULATED[:-3], "emulate.hidden=[16]", out="plain")
