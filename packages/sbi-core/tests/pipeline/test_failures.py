"""Runs of simulators that raise, crash or hang: they end, and say what failed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sbi_core.errors import SimulationError
from sbi_core.simulate.rows import ShardedBatch

FRAGILE = ("simulator.name=fragile", "simulate.n=600", "simulate.shard_size=100")


@pytest.fixture
def fragile_run(toy_run, monkeypatch):
    """``fragile_run("raise", ...)`` executes the toy with rows that fail in one way."""

    def run(how, *overrides, above=2.2, **options):
        words = (*FRAGILE, f"simulator.how={how}", f"simulator.above={above}", *overrides)
        return toy_run(*words, **options)

    return run


def rows(run):
    """All successful simulations."""
    return ShardedBatch(sorted((run.directory.root / "sims").glob("part-*.h5"))).load().numpy()


def test_a_run_goes_on_without_the_rows_that_raise(fragile_run):
    run, marked = fragile_run("raise", out="a"), fragile_run("mark", out="b")
    part, other = run.report["simulation"], marked.report["simulation"]
    assert part["failed"] == other["failed"] > 0
    assert part["failures"] == {"raised an exception": part["failed"]}
    assert other["failures"] == {"unlucky": part["failed"]}
    (message,) = part["messages"]
    n = part["failed"]
    assert message.startswith(f"ValueError: size is too large (rows: {n}; first in shard ")
    assert ", size = " in message
    a, b = rows(run), rows(marked)
    assert all(np.array_equal(a[k], b[k], True) for k in a)
    page = run.directory.report_html.read_text()
    assert "the effective prior is restricted to parameters for which the simulation" in page
    assert "ValueError: size is too large" in page
    card = run.directory.card.read_text()
    assert "failed and were left out: the effective prior is restricted" in card


def test_too_many_failures_end_the_run_and_a_higher_limit_continues_it(fragile_run):
    with pytest.raises(SimulationError, match=r"of 600 rows, more than simulate.max_failed = 0.01"):
        fragile_run("raise", "simulate.max_failed=0.01", above=1.8)
    run = fragile_run("raise", "simulate.max_failed=0.2", above=1.8)
    assert 0.01 < run.report["simulation"]["failed"] / 600 < 0.2
    assert "--set simulate.max_failed=0.2" in run.report["command"]


@pytest.mark.parametrize("executor", ["process", "dask"])
def test_the_crash_of_a_worker_costs_the_rows_that_crash_it(executor, fragile_run, monkeypatch):
    if executor == "dask":
        pytest.importorskip("distributed")
        monkeypatch.setattr("sbi_core.simulate.executors_dask._LOSSES", 0)
        paths = [os.path.dirname(sys.modules["sbi_toy"].__file__), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    words = (f"simulate.executor={executor}", "simulate.workers=2", "simulate.n=100")
    run = fragile_run("segv", *words, out="a", above=1.9, stages=["simulate"])
    marked = fragile_run("mark", "simulate.n=100", out="b", above=1.9, stages=["simulate"])
    a, b = rows(run), rows(marked)
    assert len(a["x"]) < 100
    assert all(np.array_equal(a[k], b[k], True) for k in a)
    facts = json.loads(run.directory.provenance.read_text())["stages"]["simulate"]["facts"]
    assert facts["failures"] == {"crashed": 100 - len(a["x"])}
    assert facts["messages"][0].startswith("crashed with SIGSEGV (rows: ")


def test_a_hang_costs_the_rows_that_hang(fragile_run):
    words = ("simulate.time_limit=0.2", "simulate.n=100")
    run = fragile_run("hang", *words, out="a", above=1.9, stages=["simulate"])
    marked = fragile_run("mark", "simulate.n=100", out="b", above=1.9, stages=["simulate"])
    facts = json.loads(run.directory.provenance.read_text())["stages"]["simulate"]["facts"]
    assert facts["failures"] == {"exceeded the time limit": facts["failed"]}
    a, b = rows(run), rows(marked)
    assert all(np.array_equal(a[k], b[k], True) for k in a)


def test_a_killed_run_continues_to_the_same_rows(fragile_run, tmp_path, toy_installed):
    words = [w for o in FRAGILE for w in ("--set", o)]
    words += ["--set", "simulator.how=raise", "--set", "simulator.above=2.2"]
    command = [sys.executable, "-m", "sbi_core.cli", "run", "toy", "--preset", "quick"]
    command += ["--out", str(tmp_path / "a"), *words]
    slow = {**os.environ, "SBI_TOY_SIMULATE_SECONDS": "0.3"}
    process = subprocess.Popen(command, env=slow, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("a/sims/part-*.h5")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.glob("a/sims/part-*.h5"))) < 6
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    import h5py

    whole = fragile_run("raise", out="b", stages=["simulate"]).directory.root / "sims"
    for path in sorted(whole.glob("part-*.h5")):
        with h5py.File(path) as one, h5py.File(tmp_path / "a" / "sims" / path.name) as other:
            assert all(np.array_equal(one[k], other[k], True) for k in one if k != "ok")
            assert np.array_equal(one["ok"], other["ok"])
