"""A run: nothing is done twice, nothing is mixed, nothing is lost, nothing is executed."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

import sbi_core.training.loop as loop_module
from sbi_core.errors import ConfigError, RunDirectoryError, SbiError
from sbi_core.files.directory import RunDirectory
from sbi_core.files.posterior_file import read_posterior
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import Run, execute
from sbi_core.pipeline.stages import stage_names
from sbi_core.progress import Progress
from sbi_core.simulate.rows import ShardedBatch

NETWORK = (
    "estimator.name=mixture",
    "estimator.components=2",
    "estimator.hidden=[16]",
    "train.epochs=6",
    "train.batch_size=128",
    "combiner.name=toy-wrong",  # never refuses, however badly trained the network
    "diagnose.objects=20",
)
JOB = """
import sys, sbi_toy
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import execute
from sbi_core.registry import Registry
registry = Registry(["toy"], extra={"toy": sbi_toy})
config = resolve(registry, "toy", preset="quick", overrides=sys.argv[2:])
execute(config, sys.argv[1], registry)
"""


class Words(Progress):
    """A progress that keeps what was said."""

    def __init__(self):
        super().__init__()
        self.said, self.stages = [], []

    def start(self, stage, total, unit):
        self.stages.append(stage)

    def say(self, message):
        self.said.append(message.strip())


def results(run):
    """Every number of a run that its seed decides."""
    report = run.report
    for key in ("timing", "versions", "created", "command"):  # the command names the directory
        report.pop(key)
    report["simulation"].pop("per_second")
    report.get("training", {}).pop("seconds")
    samples = read_posterior(run.directory.posterior)
    arrays = {name: samples[name].values for name in samples}
    with np.load(run.directory.combined_samples) as f:
        arrays |= {name: f[name] for name in f.files}
    return report, arrays


def assert_same_results(one, two):
    (report, arrays), (other_report, other_arrays) = results(one), results(two)
    assert report == other_report
    assert set(arrays) == set(other_arrays)
    for name, value in arrays.items():
        assert_array_equal(value, other_arrays[name])


def age(path):
    return path.stat().st_mtime_ns


def stage_times(run):
    return {s: json.loads(run.directory.provenance.read_text())["stages"][s] for s in stage_names()}


def test_a_run_leaves_what_the_design_promises(finished):
    run = finished
    found = {p.name for p in run.directory.root.iterdir()}
    wanted = {
        "run.toml", "provenance.json", "sims", "estimator", "posterior.nc", "summary.ecsv",
        "combined.ecsv", "report.html", "report.json", "log.txt",
    }  # fmt: skip
    assert wanted <= found
    assert not [p for p in run.directory.root.rglob("*") if ".tmp" in p.name]
    assert not [p for p in run.directory.root.rglob("*") if p.suffix in (".pkl", ".pt", ".pth")]


def test_the_numbers_are_right(finished):
    """Combined: within 5 sigma of the truth (the prior mean); calibration of an exact q passes."""
    report = finished.report
    assert report["status"] == "ok"
    assert report["simulation"] == report["simulation"] | {"n": 1200, "failed": 0}
    assert report["observations"]["n"] == 20
    last = [c for c in report["combined"] if c["combiner"] == "gaussian"][-1]
    assert last["n"] == 20
    for value in last["parameters"].values():
        assert abs(value["mean"] - value["truth"]) < 5 * value["sd"]


def test_nothing_is_done_twice(finished, toy_run):
    first = finished
    files = {p: age(p) for p in first.directory.root.rglob("*.*") if p.name != "log.txt"}
    words = Words()
    second = toy_run(progress=words)
    assert words.stages == []
    assert words.said == [f"{name}: already done" for name in stage_names()]
    kept = {p: t for p, t in files.items() if p.name not in ("run.toml", ".lock")}
    assert {p: age(p) for p in kept} == kept
    assert_same_results(first, second)


@pytest.mark.parametrize(
    ("change", "first", "invalid"),
    [
        ("simulate.n=1300", "simulate.n: 1200 -> 1300", "simulate, emulate, train, diagnose"),
        ("simulator.error=0.4", "simulator.error: 0.5 -> 0.4", "simulate"),
        ("seed=2", "seed: 1 -> 2", "simulate"),
        ("train.epochs=9", "train.epochs: None -> 9", "train, diagnose, infer, combine"),
        ("infer.draws=120", "infer.draws: 100 -> 120", "infer, combine"),
        ("diagnose.draws=80", "diagnose.draws: 99 -> 80", "diagnose"),
        ("combine.sizes=[2]", r"combine.sizes: \[1, 3, 10\] -> \[2\]", "combine"),
    ],
)
def test_a_changed_option_names_what_it_invalidates_and_refuses(
    change, first, invalid, registry, tmp_path
):
    out = tmp_path / "run"
    directory = RunDirectory(out)
    config = resolve(registry, "toy", preset="quick")
    _pretend(directory, config, registry)
    changed = resolve(registry, "toy", preset="quick", overrides=[change])
    with pytest.raises(RunDirectoryError) as raised:
        execute(changed, out, registry)
    text = str(raised.value)
    import re

    assert re.search(first, text)
    assert f"invalidates {invalid}" in text
    stage = invalid.split(",")[0]
    assert "choose another run directory (out) to keep that run" in text
    assert text.endswith(f"pass --restart {stage} to delete its results from that stage on")
    assert directory.config.read_text() == _toml(config)  # the old one still stands


def _toml(config):
    from sbi_core.pipeline.config import to_toml

    return to_toml(config)


def _pretend(directory, config, registry):
    """Write the records of a finished run without running it."""
    from sbi_core.pipeline.context import Context
    from sbi_core.pipeline.runner import _fingerprints
    from sbi_core.progress import Progress

    directory.create()
    directory.config.write_text(_toml(config))
    prints = _fingerprints(Context(config, registry, directory, Progress()))
    stages = {
        name: {"status": "done", "fingerprint": p, "facts": {}, "artefacts": {}}
        for name, p in prints.items()
    }
    directory.provenance.write_text(json.dumps({"stages": stages}))


def test_where_it_is_computed_invalidates_nothing(finished, toy_run):
    words = Words()
    toy_run("simulate.executor=process", "simulate.workers=2", progress=words)
    assert words.stages == []


def test_a_stage_and_all_after_it_can_be_done_again(finished, toy_run):
    first = finished
    sims = {p: age(p) for p in first.directory.sims.iterdir()}
    before = results(first)
    words = Words()
    toy_run(restart="train", progress=words)
    assert words.stages == ["train", "diagnose", "check", "infer", "combine", "report"]
    assert {p: age(p) for p in first.directory.sims.iterdir()} == sims
    assert_array_equal(results(first)[1]["slope"], before[1]["slope"])


def test_restart_allows_a_changed_option_from_that_stage_on(finished, toy_run):
    words = Words()
    run = toy_run("infer.draws=120", restart="infer", progress=words)
    assert words.stages == ["check", "infer", "combine", "report"]
    assert read_posterior(run.directory.posterior).sizes["draw"] == 120


def test_restart_of_a_late_stage_does_not_hide_an_earlier_change(finished, toy_run):
    with pytest.raises(RunDirectoryError, match=r"invalidates simulate.*--restart simulate"):
        toy_run("simulate.n=1300", restart="infer")
    words = Words()
    toy_run(progress=words)  # and the refusal deleted nothing
    assert words.stages == []
    assert finished.directory.posterior.exists()


def test_stages_can_be_done_one_by_one(finished, toy_run):
    for name in stage_names():
        run = toy_run(out="parts", stages=[name])
    assert_same_results(finished, run)


def test_a_stage_whose_input_is_missing_says_which(toy_run):
    with pytest.raises(RunDirectoryError, match="stage 'train' needs 'simulate', which has not"):
        toy_run(stages=["train"])


@pytest.mark.parametrize("options", [{"stages": ["simulat"]}, {"restart": "simulat"}])
def test_an_unknown_stage_lists_near_matches(options, toy_run, tmp_path):
    with pytest.raises(ConfigError, match="unknown stage 'simulat'; did you mean 'simulate'"):
        toy_run(**options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("sims/part-000002.h5", "simulate"),
        ("estimator/config.json", "train"),
        ("diagnostics.npz", "diagnose"),
        ("posterior.nc", "infer"),
        ("summary.ecsv", "infer"),
        ("combined.ecsv", "combine"),
        ("report.json", "report"),
    ],
)
@pytest.mark.parametrize("fault", ["altered", "gone"])
def test_an_altered_or_missing_artefact_is_named(name, stage, fault, finished, toy_run):
    path = finished.directory.root / name
    if fault == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    what = "is missing" if fault == "gone" else "was altered"
    with pytest.raises(RunDirectoryError) as raised:
        toy_run()
    assert f"{name}' {what} since stage '{stage}' wrote it" in str(raised.value)
    assert f"--restart {stage}" in str(raised.value)


def test_an_altered_artefact_can_be_made_again(finished, toy_run):
    before = results(finished)
    finished.directory.combined.write_text("altered")
    words = Words()
    toy_run(restart="combine", progress=words)
    assert words.stages == ["combine", "report"]
    assert results(finished)[0] == before[0]


def test_the_same_seed_gives_the_same_numbers(finished, toy_run):
    assert_same_results(finished, toy_run(out="two"))


def test_another_seed_gives_other_numbers(finished, toy_run):
    other = toy_run(out="two", seed=2)
    assert not np.array_equal(results(finished)[1]["slope"], results(other)[1]["slope"])


def test_changed_observations_invalidate_the_inference(toy_run, toy, rng, tmp_path):
    file = tmp_path / "objects.ecsv"
    toy.example_observations(rng, 5).write(file)
    toy_run(f"infer.observations={file}")
    toy.example_observations(rng, 6).write(file, overwrite=True)
    with pytest.raises(RunDirectoryError, match="invalidates infer, combine.*--restart infer"):
        toy_run(f"infer.observations={file}")
    run = toy_run(f"infer.observations={file}", restart="infer")
    assert run.report["observations"]["n"] == 6


def test_failed_simulations_are_counted_by_reason_and_flagged(toy_run):
    report = toy_run("simulator.failing=0.1").report
    failed = report["simulation"]["failed"]
    assert 60 < failed < 180  # binomial(1200, 0.1): 5.8 sigma
    assert report["simulation"]["failures"] == {"unlucky": failed}
    assert "failed_simulations_above_1_percent" in report["flags"]


def test_a_simulator_that_always_fails_says_so(toy_run):
    with pytest.raises(SbiError, match=r"all 1200 simulations failed \(unlucky: 1200\)"):
        toy_run("simulator.failing=1.0", "infer.n_example=1")


# -- kill -9 --------------------------------------------------------------------------------------


def killed(out, overrides, when, **environment):
    """Start the job in another process, kill it when ``when(out)`` is true."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    job = subprocess.Popen([sys.executable, "-c", JOB, str(out), *overrides], env=env)
    limit = time.monotonic() + 600
    while not when(out):
        assert job.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_while_simulating_it_goes_on_with_the_same_numbers(finished, toy_run, tmp_path):
    whole = finished

    def some_shards(out):
        return len(list((out / "sims").glob("part-*.h5"))) >= 2

    killed(tmp_path / "killed", [], some_shards, SBI_TOY_SIMULATE_SECONDS="0.3")
    directory = RunDirectory(tmp_path / "killed")
    kept = {p: age(p) for p in directory.sims.glob("part-*.h5")}
    assert 2 <= len(kept) < 6
    assert not directory.estimator.exists()
    run = toy_run(out="killed")
    assert {p: age(p) for p in kept} == kept
    assert_same_results(whole, run)
    for path in whole.directory.sims.iterdir():
        _same_shard(path, run.directory.sims / path.name)


def _same_shard(one, two):
    import h5py

    with h5py.File(one) as a, h5py.File(two) as b:
        assert set(a) == set(b)
        for name in a:
            assert_array_equal(a[name][()], b[name][()])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_while_training_it_goes_on_to_the_same_weights(toy_run, tmp_path, one_thread):
    whole = toy_run(*NETWORK, out="whole")

    def some_epochs(out):
        lines = out / "estimator" / "metrics.jsonl"
        return lines.exists() and 2 <= len(lines.read_text().splitlines()) < 6

    killed(tmp_path / "run", NETWORK, some_epochs, SBI_TOY_OBSERVE_SECONDS="0.1")
    assert not (tmp_path / "run" / "posterior.nc").exists()
    run = toy_run(*NETWORK)
    one, two = (load_file(r.directory.estimator / "weights.safetensors") for r in (whole, run))
    assert set(one) == set(two)
    for name, value in one.items():
        assert_array_equal(value, two[name])
    assert_same_results(whole, run)


def test_interrupted_between_stages_it_goes_on_with_the_next(finished, toy_run, monkeypatch):
    from sbi_core.pipeline.stages import infer

    def stop(context):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(infer, "execute", stop)
        with pytest.raises(KeyboardInterrupt):
            toy_run(out="again")
    words = Words()
    run = toy_run(out="again", progress=words)
    assert words.stages == ["check", "infer", "combine", "report"]
    assert_same_results(run, finished)


# -- the directory --------------------------------------------------------------------------------


def test_a_directory_with_foreign_files_is_left_alone(toy_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match=r"not empty and holds no run \(thesis.tex\)"):
        toy_run()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_directory_that_cannot_be_written_is_refused(toy_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="cannot write to run directory '.*': Not a dir"):
        toy_run(out="file/run")
    with pytest.raises(RunDirectoryError, match="file': a file has this name"):
        toy_run(out="file")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(RunDirectoryError, match="cannot write to .*: Permission denied"):
        toy_run()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_directory_is_refused(toy_run, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(RunDirectoryError, match="cannot write to run directory"):
        toy_run()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 5}', '{"stages": {"train": 1}}'])
def test_a_damaged_provenance_is_named(content, finished, toy_run):
    finished.directory.provenance.write_text(content)
    with pytest.raises(
        RunDirectoryError, match=r"provenance.json' (is|was) damaged.*; restore it from"
    ):
        toy_run()


@pytest.mark.parametrize("content", ["", "a = [", "plugin = 'toy'\n", "\x00"])
def test_a_damaged_run_toml_is_named(content, finished):
    finished.directory.config.write_text(content)
    with pytest.raises(SbiError, match=r"run.toml' is damaged .*; restore it from a copy"):
        Run(finished.directory.root)


def test_a_directory_without_a_run_cannot_be_loaded(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no run \(no run.toml\)"):
        Run(tmp_path)
    with pytest.raises(RunDirectoryError, match="does not exist"):
        Run(tmp_path / "nothing")


def test_a_path_outside_the_run_is_never_read_or_deleted(toy_run, tmp_path):
    run = toy_run(stages=["simulate"])
    outside = tmp_path / "precious"
    outside.write_text("x")
    records = json.loads(run.directory.provenance.read_text())
    records["stages"]["simulate"]["artefacts"] = {"../precious": "0"}
    del records["schema"], records["seal"]  # as before there were seals
    run.directory.provenance.write_text(json.dumps(records))
    with pytest.raises(RunDirectoryError, match="names a file outside the run directory"):
        toy_run()
    assert outside.read_text() == "x"
    with pytest.raises(RunDirectoryError, match="refusing to delete"):
        run.directory.remove(outside)


# -- bad input leaves no trace --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("infer.observations=nothing.csv", "'nothing.csv' does not exist"),
        ("simulate.executor=dusk", "unknown executor 'dusk'"),
        ("device=gpu", "device 'gpu'"),
        ('estimator.parameters=["slop"]', "no parameter 'slop'"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(override, message, toy_run, tmp_path):
    with pytest.raises(SbiError, match=message):
        toy_run(override)
    assert list(tmp_path.iterdir()) == []


# -- a stranger's run directory -------------------------------------------------------------------


def test_loading_a_hostile_run_executes_nothing(toy_run, registry, toy, rng, hostile):
    run = toy_run(*NETWORK)
    root = run.directory.root
    observations = toy.example_observations(rng, 3)
    poison = pickle.dumps(hostile)
    for extra in ("estimator/network.pt", "estimator/weights.pkl", "posterior.pkl"):
        (root / extra).write_bytes(poison)
    Run(root, registry).infer(observations)  # files nobody asked for are not looked at
    targets = [
        p
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name not in ("run.toml", "log.txt", "report.html")
        if p.parent.name != "sims" or p.name == "part-000000.h5"
    ]
    assert len(targets) > 8
    for path in targets:
        content = path.read_bytes()
        if path.suffix == ".npz":
            np.savez(path, **{"a": np.array([hostile], dtype=object)})
        else:
            path.write_bytes(poison)
        actions = [
            lambda: Run(root, registry).infer(observations),
            lambda: Run(root, registry).report,
            lambda: toy_run(*NETWORK),
        ]
        if path.suffix in (".npz", ".jsonl") or path.name == "provenance.json":
            actions.append(lambda: Run(root, registry).write_report())
        for action in actions:
            try:
                action()
            except SbiError as error:
                assert str(error)  # noqa: PT017 - either outcome is fine, a traceback is not
        path.write_bytes(content)


def test_a_run_toml_cannot_name_code(finished, registry):
    run = finished
    text = run.directory.config.read_text()
    run.directory.config.write_text(text.replace('"toy-exact"', '"os:system"'))
    with pytest.raises(RunDirectoryError, match=r"run.toml' was altered"):
        _ = Run(run.directory.root, registry).posterior
    records = json.loads(run.directory.provenance.read_text())
    for part in ("schema", "seal", "config"):  # a stranger's run, written with this content
        records.pop(part)
    run.directory.provenance.write_text(json.dumps(records))
    with pytest.raises(SbiError, match="unknown estimator 'os:system'"):
        _ = Run(run.directory.root, registry).posterior


def before_analyses(run, old="", new=""):
    """Make a run look like one of sbi-core 0.1.0, which had no section [analysis]."""
    text = run.directory.config.read_text()
    head, _, rest = text.partition("[analysis]")
    rest = rest.partition("\n\n")[2]
    run.directory.config.write_text((head + rest).replace(old, new) if old else head + rest)
    records = json.loads(run.directory.provenance.read_text())
    for part in ("schema", "seal", "config"):
        records.pop(part, None)
    run.directory.provenance.write_text(json.dumps(records))


def test_a_run_of_the_first_version_is_completed_or_refused_with_the_command(
    finished, registry, toy, rng
):
    objects = toy.example_observations(rng, 2)
    want = finished.infer(objects, 50)
    before_analyses(finished)
    again = Run(finished.directory.root, registry)
    assert "analysis" not in again.config.model_fields_set
    assert_array_equal(again.infer(objects, 50).values, want.values)
    before_analyses(again, "[simulator]\n", "[simulator]\nrefine = 1\n")
    with pytest.raises(RunDirectoryError, match="earlier version.*--restart simulate"):
        Run(finished.directory.root, registry).infer(objects, 50)


def test_a_loaded_run_infers_and_combines_like_the_run_itself(finished, registry, toy, rng):
    run = finished
    again = Run(run.directory.root, registry)
    observations = toy.example_observations(rng, 12)
    assert_array_equal(run.infer(observations).values, again.infer(observations).values)
    assert_array_equal(run.combine(observations).samples, again.combine(observations).samples)
    assert again.combine(observations, "toy-wrong").combiner == "toy-wrong"


def test_a_loaded_run_knows_its_simulations_also_with_options_that_are_none(finished, registry):
    assert len(Run(finished.directory.root, registry)._context.simulations) == 1200


def test_simulations_that_exceed_the_memory_allowed_are_streamed(registry, tmp_path):
    config = resolve(
        registry,
        "toy",
        preset="quick",
        overrides=[*NETWORK, "train.max_memory_gb=1e-5", "simulate.shard_size=100"],
    )
    run = execute(config, tmp_path / "run", registry)
    context = run._context
    assert isinstance(context.training.batch, ShardedBatch)
    assert len(context.training.batch) == 1200
    assert "simulations" not in vars(context)  # never in memory as a whole
    assert run.report["training"]["epochs"] == 6
    assert run.report["calibration"]["objects"] == 20


def test_an_emulator_of_more_simulations_than_memory_is_refused(registry, tmp_path):
    options = ["emulate.enabled=true", "emulate.max_memory_gb=1e-6"]
    config = resolve(registry, "toy", preset="quick", overrides=options)
    with pytest.raises(ConfigError, match=r"1200 simulations take .* raise it, lower simulate.n"):
        execute(config, tmp_path / "run", registry)


def test_objects_of_several_groups_are_not_combined_into_one(finished, toy, rng):
    from dataclasses import replace

    observations = toy.example_observations(rng, 4)
    two = replace(observations, group=np.array(["a", "a", "b", "b"]))
    with pytest.raises(ConfigError, match="belong to 2 groups; combine one group at a time"):
        finished.combine(two)


def test_every_group_is_combined_on_its_own(toy_run, toy, rng, tmp_path):
    from dataclasses import replace

    observations = replace(
        toy.example_observations(rng, 6), group=np.array(["a", "b", "b", "a", "a", "a"])
    )
    observations.write(tmp_path / "two.ecsv")
    report = toy_run(f"infer.observations={tmp_path / 'two.ecsv'}").report
    found = {(c["group"], c["n"]) for c in report["combined"]}
    assert found == {("a", 1), ("a", 3), ("a", 4), ("b", 1), ("b", 2)}


@pytest.mark.parametrize(("epochs", "improving"), [(3, True), (60, False)])
def test_a_training_that_ends_too_early_is_flagged(epochs, improving, toy_run):
    report = toy_run(*NETWORK, f"train.epochs={epochs}").report
    assert ("still_improving" in report["flags"]) is improving
    assert report["training"]["still_improving"] is improving


def test_skipped_steps_of_the_training_are_in_the_report(toy_run, monkeypatch):
    skipped = []

    def step(loop, *args):
        value = original(loop, *args)
        if len(loop.history) == 1 and not skipped:  # the first step of the second epoch
            skipped.append(value)
            return math.nan
        return value

    original = loop_module._Loop.step
    monkeypatch.setattr(loop_module._Loop, "step", step)
    run = toy_run(*NETWORK, "train.epochs=3")
    assert run.report["training"]["skipped_steps"] == 1
    assert "steps skipped" in run.directory.report_html.read_text()


def test_one_object_is_inferred_and_flagged(toy_run, toy, rng, tmp_path):
    toy.example_observations(rng, 1).write(tmp_path / "one.ecsv")
    report = toy_run(f"infer.observations={tmp_path / 'one.ecsv'}").report
    assert report["flags"] == ["single_object"]
    assert {c["n"] for c in report["combined"]} == {1}


def test_objects_far_outside_are_inferred_flagged_and_counted(toy_run, toy, rng, tmp_path):
    from dataclasses import replace

    observations = toy.example_observations(rng, 20)
    x = observations.batch.x.clone()
    x[[3, 7]] += 50.0
    far = replace(observations, batch=observations.batch.with_(x=x))
    far.write(tmp_path / "far.ecsv")
    run = toy_run(f"infer.observations={tmp_path / 'far.ecsv'}")
    report = run.report
    assert report["observations"]["unsupported"] >= 2
    assert "objects_outside_training" in report["flags"]
    samples = run.infer(far)
    assert "objects_far_outside_training" in report["flags"]
    assert [samples.flags[k] for k in (3, 7)] == ["outside_training,far_outside_training"] * 2
    assert sum("far" in f for f in samples.flags) == 2
    combined = run.combine(far)
    assert {"objects_outside_training", "objects_far_outside_training"} <= {*combined.flags}
    assert np.isfinite(samples.values).all()


def test_a_run_never_writes_over_its_observations(finished, registry, tmp_path):
    summary = finished.directory.summary
    before = summary.read_bytes()
    words = {"overrides": {"infer.observations": summary}}
    config = resolve(registry, "toy", preset="quick", **words)
    with pytest.raises(ConfigError, match="is a file that this run writes; copy it, or choose"):
        execute(config, finished.directory.root, registry, restart="infer")
    assert summary.read_bytes() == before


def test_two_threads_run_at_once_with_the_same_numbers_and_separate_logs(toy_run, tmp_path):
    threads = [
        threading.Thread(target=toy_run, args=NETWORK, kwargs={"out": name}) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        log = (tmp_path / name / "log.txt").read_text(encoding="utf-8")
        assert [log.count(f"stage {stage} done") for stage in ("simulate", "train", "report")] == [
            1,
            1,
            1,
        ]
    a, b = (tmp_path / name / "estimator" / "weights.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_a_thread_that_outlives_the_main_thread_gets_one_sentence(tmp_path):
    script = (
        "import threading, time, sbi_core\n"
        "def go():\n"
        "    time.sleep(1)\n"
        "    try:\n"
        "        sbi_core.run('toy', out='run')\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
        "threading.Thread(target=go).start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("SbiError the main thread has ended; join the threads")
    assert not (tmp_path / "run").exists()
