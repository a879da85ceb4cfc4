"""Executors: whichever is used, the same results; a dead worker is explained."""

import multiprocessing
import os
import subprocess
import sys

import pytest
import sbi_toy

from sbi_core.errors import ConfigError, SimulationError
from sbi_core.simulate.executors import (
    EXECUTORS,
    ProcessExecutor,
    SerialExecutor,
    default_workers,
    get_executor,
)

ADD = "{} + {}".format


def test_serial_keeps_the_order():
    assert list(SerialExecutor().map(ADD, 1, [3, 1, 2])) == ["1 + 3", "1 + 1", "1 + 2"]


def test_serial_works_only_as_far_as_it_is_asked():
    done = []
    results = SerialExecutor().map(lambda shared, item: done.append(item), None, [1, 2, 3])
    next(results)
    assert done == [1]


def test_processes_return_every_result():
    found = list(ProcessExecutor(1).map(ADD, 1, [3, 1, 2]))
    assert sorted(found) == ["1 + 1", "1 + 2", "1 + 3"]


def test_nothing_to_do_starts_no_process():
    assert list(ProcessExecutor(2).map(ADD, 1, [])) == []
    assert multiprocessing.active_children() == []


def test_an_error_of_a_worker_reaches_the_caller():
    with pytest.raises(ValueError, match="invalid literal"):
        list(ProcessExecutor(1).map(sbi_toy.parse, None, ["x"]))


def test_a_worker_that_dies_is_explained():
    with pytest.raises(SimulationError, match="a worker process died; finished shards are kept"):
        list(ProcessExecutor(1).map(sbi_toy.die, None, [9]))


def test_one_worker_needs_no_process():
    assert isinstance(get_executor("process", 1), SerialExecutor)
    assert isinstance(get_executor("process", 2), ProcessExecutor)
    assert isinstance(get_executor("serial", 5), SerialExecutor)


def test_the_default_is_every_core_this_process_may_use():
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["proces", "dusk"])
def test_an_unknown_executor_lists_the_known_ones(name):
    with pytest.raises(ConfigError, match=f"unknown executor '{name}'.*known: serial, process"):
        get_executor(name)
    assert {"serial", "process"} <= set(EXECUTORS)


def test_a_script_without_main_guard_ends_with_advice_also_where_much_is_sent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from sbi_core.simulate.executors import ProcessExecutor\n"
        "list(ProcessExecutor(2).map(np.add, np.zeros(100_000), [1, 2]))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert "call sbi_core.run below `if __name__ == '__main__':`" in done.stderr
