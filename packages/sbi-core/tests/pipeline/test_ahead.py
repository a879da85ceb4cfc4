"""Work of later stages in the background: the same numbers, and nothing outlives the run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import sbi_toy
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.ahead import Ahead
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.runner import Run, execute
from sbi_core.pipeline.stages import StageResult, combine
from sbi_core.progress import Progress

OPTIONS = (
    "emulate.enabled=true", "emulate.epochs=3", "emulate.hidden=[8]", "emulate.box_rows=100",
    "combiner.name=deepset", "combiner.max_objects=20", "combiner.simulations=2000",
    "combiner.steps=20", "combiner.rows=256", "combiner.member=[16]", "combiner.hidden=[16]",
    "combine.calibration_groups=10", "combine.sizes=[1, 10]",
)  # fmt: skip
PARALLEL = ("simulate.executor=process", "simulate.workers=2")
FILES = ("emulator/weights", "combiner/deepset/weights")
JOB = """
import signal, sys, sbi_toy
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import execute
from sbi_core.registry import Registry

if __name__ == "__main__":
    # a shell without job control starts programs in the background with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    registry = Registry(["toy"], extra={"toy": sbi_toy})
    execute(resolve(registry, "toy", preset="quick", overrides=sys.argv[2:]), sys.argv[1], registry)
"""


@dataclass
class Stage:
    """A stage with one job."""

    job: object
    name: str = "late"
    ahead: tuple = ("simulate",)

    def work_ahead(self, context, after):
        return self.job


@pytest.fixture
def context(registry, tmp_path):
    config = resolve(registry, "toy", preset="quick", overrides=PARALLEL)
    return Context(config, registry, RunDirectory(tmp_path / "run"), Progress())


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The run in one process."""
    from sbi_core.registry import Registry

    registry = Registry(["toy"], extra={"toy": sbi_toy})
    config = resolve(registry, "toy", preset="quick", overrides=OPTIONS)
    return execute(config, tmp_path_factory.mktemp("serial") / "run", registry)


def numbers(run):
    report = run.report
    for key in ("timing", "versions", "command", "created"):
        report.pop(key)
    report["simulation"].pop("per_second")
    report["training"].pop("seconds")
    return report


def assert_same(one, two):
    assert numbers(one) == numbers(two)
    for name in FILES:
        a, b = (load_file(r.directory.root / f"{name}.safetensors") for r in (one, two))
        assert set(a) == set(b)
        for key, value in a.items():
            assert_array_equal(value, b[key])
    for folder in ("sims", "groups/correction", "groups/test"):
        names = [{p.name for p in (r.directory.root / folder).iterdir()} for r in (one, two)]
        assert names[0] == names[1]


def test_the_numbers_do_not_depend_on_the_background(serial, toy_run):
    run = toy_run(*OPTIONS, *PARALLEL)
    assert_same(serial, run)
    log = run.directory.log.read_text()
    assert "stage emulate: work ahead in the background" in log
    assert log.count("stage combine: work ahead in the background") == 2  # groups, learning
    assert "failed" not in log
    timing, facts = run.report["timing"], json.loads(run.directory.provenance.read_text())["stages"]
    hidden = facts["emulate"]["facts"]["hidden_seconds"]
    assert 0 <= hidden <= timing["emulate_s"]
    parts = sum(v for k, v in timing.items() if k != "total_s")
    assert timing["total_s"] == pytest.approx(parts - hidden, abs=0.01)


def test_a_rule_that_needs_no_posterior_learns_before_the_training(registry, tmp_path):
    config = resolve(
        registry, "toy", preset="quick", overrides=("combiner.name=group-moments",
        "combiner.groups=200", "combiner.size=10", "combiner.epochs=1", "combiner.hidden=[8]"),
    )  # fmt: skip
    run = execute(config, tmp_path / "run", registry, stages=["simulate"])
    context = Context(run.config, registry, run.directory, Progress())
    context.facts["simulate"] = {}
    job = combine.ahead(context, "simulate")
    job(context)
    weights = run.directory.combiner("group-moments") / "member-0" / "weights.safetensors"
    assert weights.exists()
    assert combine.ahead(context, "train") is None
    before = weights.stat().st_mtime_ns
    whole = execute(config, tmp_path / "run", registry)
    assert weights.stat().st_mtime_ns == before
    assert whole.report["combined"][0]["combiner"] == "group-moments"


def test_one_process_has_no_background(serial, toy_run):
    assert "background" not in serial.directory.log.read_text()
    run = toy_run("simulate.executor=process", "simulate.workers=1", stages=["simulate"])
    assert "background" not in run.directory.log.read_text()


def test_a_stage_alone_is_not_done_in_the_background(toy_run):
    toy_run(*OPTIONS, stages=["simulate"])
    run = toy_run(*OPTIONS, *PARALLEL, stages=["emulate"])
    assert "background" not in run.directory.log.read_text()
    assert (run.directory.emulator / "weights.safetensors").exists()


def test_a_job_that_does_the_stage_returns_its_result(context):
    with Ahead(context) as ahead:
        assert ahead.start(Stage(sbi_toy.ahead_result), "simulate")
        assert not ahead.start(Stage(sbi_toy.ahead_result), "simulate")  # once
        result, seconds = ahead.result(Stage(sbi_toy.ahead_result))
    assert result == StageResult({"n": 1200})
    assert seconds > 0
    assert ahead.result(Stage(sbi_toy.ahead_result)) is None


@pytest.mark.parametrize("job", [sbi_toy.ahead_fails, sbi_toy.ahead_dies])
def test_the_stage_does_what_the_background_could_not(context, job, caplog):
    with Ahead(context) as ahead, caplog.at_level("WARNING", logger="sbi_core"):
        assert ahead.start(Stage(job), "simulate")
        assert ahead.result(Stage(job)) is None
    want = "no luck today" if job is sbi_toy.ahead_fails else "ended early"
    assert want in caplog.text


def test_a_run_that_cannot_be_sent_has_no_background(context):
    context.config.infer.observations = (n for n in ())  # no generator can be pickled
    with Ahead(context) as ahead:
        assert not ahead.start(Stage(sbi_toy.ahead_result), "simulate")
        assert ahead.result(Stage(sbi_toy.ahead_result)) is None


def test_an_error_ends_the_background_process(context, tmp_path, monkeypatch):
    monkeypatch.setenv("SBI_TOY_PID", str(tmp_path / "pid"))

    def interrupted():
        with Ahead(context) as ahead:
            ahead.start(Stage(sbi_toy.ahead_sleeps), "simulate")
            assert _alive(_pid(tmp_path / "pid"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not _alive(_pid(tmp_path / "pid"))


def test_learning_that_was_done_is_not_done_again(serial, registry, toy_run, tmp_path):
    import shutil

    shutil.copytree(serial.directory.root, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    records = json.loads(directory.provenance.read_text())
    for part in ("schema", "seal"):
        records.pop(part)
    records["stages"]["combine"]["status"] = "started"  # killed after it had learned
    directory.provenance.write_text(json.dumps(records))
    before = {p: p.stat().st_mtime_ns for p in directory.combiner("deepset").iterdir()}
    run = toy_run(*OPTIONS)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert_same(serial, run)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("file", ["emulator/checkpoint.safetensors", "groups/test/part-000000.h5"])
def test_killed_in_both_processes_it_goes_on_with_the_same_numbers(
    file, serial, registry, toy_run, tmp_path
):
    """Killed when a file is there that the background writes."""
    out = tmp_path / "run"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    env["SBI_TOY_OBSERVE_SECONDS"] = "0.1"
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(out), *OPTIONS, *PARALLEL], env=env, start_new_session=True
    )
    limit = time.monotonic() + 600
    while not (out / file).exists():
        assert job.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.wait()
    _wait_until_empty(job.pid)
    assert_same(serial, toy_run(*OPTIONS, *PARALLEL))
    assert Run(out, registry).verify()


@pytest.mark.skipif(sys.platform == "win32", reason="signals to process groups")
@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGKILL,)])
def test_signals_to_the_run_alone_leave_no_process(signals, tmp_path):
    """The workers, in the middle of a shard of an hour, end with the run."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SBI_TOY_PIDS": str(tmp_path)}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path / "run"), *PARALLEL, "simulate.shard_size=400"],
        env=env,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 600
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert job.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    for number in signals:
        job.send_signal(number)
        time.sleep(0.3)
    while job.poll() is None:  # on a busy machine two signals may arrive as one
        assert time.monotonic() < limit
        time.sleep(2)
        job.send_signal(signals[-1])
    assert job.returncode != 0
    _wait_until_empty(job.pid)


def _pid(path):
    limit = time.monotonic() + 600
    while not path.exists() or not path.read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    return int(path.read_text())


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_empty(group):
    """Wait until no process of a process group is left."""
    limit = time.monotonic() + 600
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < limit, "processes outlive the run"
        time.sleep(0.1)
