"""Executors map a function over shards; the numbers do not depend on which is used.

``serial`` works in this process, ``process`` in spawned worker processes, ``dask`` on the workers
of dask.distributed (:mod:`sbi_core.simulate.executors_dask`).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.util import Finalize, _exit_function  # type: ignore[attr-defined]
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

from sbi_core.errors import ConfigError, WorkerLostError, near_matches

__all__ = [
    "EXECUTORS",
    "Executor",
    "ProcessExecutor",
    "SerialExecutor",
    "default_workers",
    "end_with_parent",
    "get_executor",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Maps ``fn(shared, item)`` over items; results come in any order."""

    def map(
        self, fn: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yield a result per item as it is finished."""
        ...


class SerialExecutor:
    """One item after the other, in this process."""

    def map(
        self, fn: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yield the results in order."""
        for item in items:
            yield fn(shared, item)


class ProcessExecutor:
    """Spawned worker processes; ``shared`` is sent once to each."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self, fn: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yield results as they are finished.

        Raises
        ------
        WorkerLostError
            If workers cannot start or die; finished shards are kept.
        """
        if not items:
            return
        folder = TemporaryDirectory(prefix="sbi-")
        # a file: through a pipe, the start would hang where the worker dies before it reads
        file = Path(folder.name) / "shared"
        file.write_bytes(pickle.dumps(shared))
        pool = ProcessPoolExecutor(
            max_workers=min(self.workers, len(items)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(str(file),),
        )
        try:
            futures: list[Future[Result]] = [pool.submit(_call, fn, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            msg = (
                "a worker process died; finished shards are kept, run the same command again. "
                "In a script, call sbi_core.run below `if __name__ == '__main__':`, or set "
                "simulate.executor = 'serial'"
            )
            raise WorkerLostError(msg) from None
        except BaseException:  # interrupted, or an item failed
            _end_workers(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            folder.cleanup()


def _end_workers(pool: ProcessPoolExecutor) -> None:
    """End the workers at once; nobody waits for the items they are working on."""
    for process in list(pool._processes.values()):
        process.terminate()


_worker: dict[str, Any] = {}  # what this worker process was started with


def end_with_parent() -> None:
    """End this process when the process that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _start_worker(file: str) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    end_with_parent()
    torch.set_num_threads(1)
    Finalize(None, _leave, exitpriority=-1000)  # after all else that multiprocessing ends
    # from Python 3.13 on, threads are waited for before that
    threading._register_atexit(_exit_function)  # type: ignore[attr-defined]
    _worker["shared"] = pickle.loads(Path(file).read_bytes())


def _leave() -> None:
    """End this worker without waiting for threads that a simulator left."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _call(fn: Callable[[Any, Item], Result], item: Item) -> Result:
    return fn(_worker["shared"], item)


def default_workers() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


EXECUTORS = ("serial", "process", "dask")


def get_executor(
    name: str, workers: int | None = None, dask_scheduler: str | None = None
) -> Executor:
    """Return the executor of that name.

    Parameters
    ----------
    workers
        Processes; default: all cores.
    dask_scheduler
        Address of a running scheduler, for ``dask`` only.

    Raises
    ------
    ConfigError
        If there is none of that name, what it needs is not installed, or an address was given
        to an executor that has no use for it.
    """
    if dask_scheduler is not None and name != "dask":
        msg = f"--dask-scheduler was given, but the executor is '{name}'; add --executor dask"
        raise ConfigError(msg)
    count = default_workers() if workers is None else workers
    if name == "serial" or (name == "process" and count == 1):
        return SerialExecutor()
    if name == "process":
        return ProcessExecutor(count)
    if name == "dask":
        from sbi_core.simulate.executors_dask import DaskExecutor

        return DaskExecutor(count, dask_scheduler)
    msg = (
        f"unknown executor '{name}'{near_matches(name, EXECUTORS)} (known: {', '.join(EXECUTORS)})"
    )
    raise ConfigError(msg)
