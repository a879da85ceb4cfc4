"""The dask executor: the same bits, lost workers replaced, files from workers that see no disk."""

import os
import sys

import numpy as np
import pytest
import sbi_toy

from sbi_core.data.writing import write_atomic
from sbi_core.errors import ConfigError, SimulationError
from sbi_core.files.lock import Hold, locked
from sbi_core.simulate.executors import SerialExecutor, get_executor
from sbi_core.simulate.executors_dask import DaskExecutor
from sbi_core.simulate.store import deliver_shard, plan, read_all
from sbi_core.simulate.tolerance import Tolerance

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def threads(workers=2):
    return DaskExecutor(workers, processes=False)


@pytest.fixture
def toy_path(monkeypatch):
    """Worker processes find the toy."""
    paths = [os.path.dirname(sbi_toy.__file__), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))


def test_every_result_comes_once():
    found = list(threads().map("{} + {}".format, 1, [3, 1, 2]))
    assert sorted(found) == ["1 + 1", "1 + 2", "1 + 3"]


def test_nothing_to_do_starts_no_cluster(monkeypatch):
    monkeypatch.setattr(DaskExecutor, "_client", None)
    assert list(threads().map(print, 1, [])) == []


def test_an_error_of_a_task_reaches_the_caller():
    with pytest.raises(ValueError, match="invalid literal"):
        list(threads(1).map(sbi_toy.parse, None, ["x"]))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'sbi-core\[dask\]'"):
        get_executor("dask", 2)


def test_an_address_is_for_dask_only():
    with pytest.raises(ConfigError, match="executor is 'process'; add --executor dask"):
        get_executor("process", 2, "tcp://host:8786")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "missing.json"])
def test_a_scheduler_that_does_not_answer_is_one_sentence(address, monkeypatch):
    monkeypatch.setattr("sbi_core.simulate.executors_dask._CONNECT_SECONDS", 0.2)
    with pytest.raises(ConfigError, match=f"no dask scheduler answers at '{address}'"):
        list(get_executor("dask", 1, address).map(print, None, [1]))


def test_shards_have_the_same_bits_as_in_one_process(tmp_path):
    ours, theirs = (plan(tmp_path / k, 500, 100, seed=5, identity="abc") for k in "ab")
    for shards, executor in ((ours, threads()), (theirs, SerialExecutor())):
        shards[0].directory.mkdir()
        with locked(tmp_path) as hold:
            for _, _, image in executor.map(
                deliver_shard, (sbi_toy.ToySimulator(), Tolerance(), (hold,)), shards
            ):
                assert image is None  # written where it was made
    for a, b in zip(ours, theirs, strict=True):
        x, y = (read_all([s])[0].numpy() for s in (a, b))
        assert all(np.array_equal(x[k], y[k], equal_nan=True) for k in x)


def test_a_worker_that_sees_another_disk_returns_the_file(tmp_path):
    (shard,) = plan(tmp_path / "far", 100, 100, seed=5, identity="abc")
    ((_, report, image),) = SerialExecutor().map(
        deliver_shard,
        (sbi_toy.ToySimulator(), Tolerance(), (Hold(tmp_path / "far" / ".lock", "x"),)),
        [shard],
    )
    assert report.rows == 100
    assert not shard.path.exists()
    write_atomic(shard.path, image)
    assert len(read_all([shard])[0]) == 100


@pytest.mark.usefixtures("toy_path")
def test_a_lost_worker_process_costs_nothing(tmp_path):
    """The first task that finds no trace of an earlier one kills its process."""
    found = list(DaskExecutor(2).map(sbi_toy.die_once, str(tmp_path / "trace"), [1, 2, 3, 4]))
    assert sorted(found) == [1, 2, 3, 4]
    assert (tmp_path / "trace").exists()


@pytest.mark.usefixtures("toy_path")
def test_work_that_kills_every_worker_is_given_up(monkeypatch):
    monkeypatch.setattr("sbi_core.simulate.executors_dask._LOSSES", 0)
    with pytest.raises(SimulationError, match="dask workers in a row died"):
        list(DaskExecutor(1).map(sbi_toy.die, None, [9]))
