"""How many threads compute what."""

import pytest
import torch
from threadpoolctl import threadpool_info

from sbi_core import available_threads
from sbi_core.simulate.executors import ProcessExecutor
from sbi_core.threads import single_thread


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def counts():
    blas = [v["num_threads"] for v in threadpool_info() if v["user_api"] == "blas"]
    return torch.get_num_threads(), *blas


def test_inside_single_thread_neither_torch_nor_blas_uses_more():
    before = counts()
    with single_thread():
        assert set(counts()) == {1}
    assert counts() == before


def test_independent_rows_have_the_threads_of_the_caller():
    assert available_threads() == 2
    with single_thread(), single_thread():
        assert available_threads() == 2
    torch.set_num_threads(1)
    assert available_threads() == 1
    with single_thread():
        assert available_threads() == 1


def _in_worker(shared, item):
    with single_thread():
        return available_threads()


def test_a_worker_has_one():
    with single_thread():
        assert list(ProcessExecutor(2).map(_in_worker, None, [1, 2])) == [1, 1]
