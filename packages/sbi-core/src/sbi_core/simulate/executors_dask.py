"""Executor ``dask``: tasks on the workers of dask.distributed, near or far.

Without an address a cluster of worker processes is started on this machine and closed at the end;
with one, its scheduler is used as it is: whatever started it (a terminal, dask-jobqueue, a cloud)
keeps it. A worker that is lost costs the tasks it held, which run again elsewhere; a task is a pure
function of its item, so that it gives the same bits there.

References:
    | Rocklin (2015), Dask: Parallel Computation with Blocked algorithms and Task Scheduling,
      Proc. 14th Python in Science Conf., 126
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sbi_core.errors import ConfigError, SimulationError, WorkerLostError, first_line

__all__ = ["DaskExecutor"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_LOSSES = 3  # workers that may be lost under one task before the task itself is suspected
_CONNECT_SECONDS = 20


class DaskExecutor:
    """Tasks on dask workers; ``shared`` is sent once and held by the scheduler.

    Parameters
    ----------
    workers
        Processes of the local cluster; with ``scheduler``, of no meaning.
    scheduler
        Address such as ``tcp://host:8786``, or a scheduler file (``.json``); None starts a local
        cluster.
    processes
        Whether workers of the local cluster are processes; threads are for tests.

    Raises
    ------
    ConfigError
        If dask.distributed is not installed.
    """

    def __init__(
        self, workers: int, scheduler: str | None = None, *, processes: bool = True
    ) -> None:
        _import_distributed()
        self.workers, self.scheduler, self.processes = workers, scheduler, processes

    def map(
        self, fn: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yield results as they are finished.

        Raises
        ------
        ConfigError
            If no scheduler answers at the address.
        WorkerLostError
            If a task loses worker after worker.
        SimulationError
            If the scheduler is lost.
        """
        if not items:
            return
        distributed = _import_distributed()
        from distributed.scheduler import KilledWorker

        with self._client(len(items)) as client:
            # a task, not scattered data: what a lost worker held can be made again
            held = client.submit(pickle.loads, pickle.dumps(shared), pure=False)
            futures = [client.submit(fn, held, item, pure=False) for item in items]
            try:
                for future in distributed.as_completed(futures, loop=client.loop):
                    result = future.result()
                    future.release()
                    yield result
            except KilledWorker:
                msg = (
                    f"{_LOSSES + 1} dask workers in a row died with the same work; finished work "
                    "is kept: look at their logs (memory?), run the same command again"
                )
                raise WorkerLostError(msg) from None
            except (CancelledError, asyncio.CancelledError, OSError) as error:
                if isinstance(error, OSError) and client.status == "running":
                    raise
                msg = (
                    "the dask scheduler was lost; finished work is kept, run the same command again"
                )
                raise SimulationError(msg) from None
            finally:
                left = [f for f in futures if f.status == "pending"]
                if left and client.status == "running":
                    client.cancel(left)

    @contextmanager
    def _client(self, tasks: int) -> Iterator[Any]:
        """Yield a client of the scheduler, or of a local cluster that lasts as long."""
        import dask

        distributed = _import_distributed()
        quiet = {
            "distributed.scheduler.allowed-failures": _LOSSES,
            "distributed.admin.large-graph-warning-threshold": "1GB",
        }
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(quiet))
            stack.enter_context(_silence())
            address: Any = self.scheduler
            if self.scheduler is None:
                address = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=min(self.workers, tasks),
                        threads_per_worker=1,
                        processes=self.processes,
                        dashboard_address=None,
                        silence_logs=logging.CRITICAL,
                    )
                )
            from_file = self.scheduler is not None and str(address).endswith(".json")
            try:
                if from_file and not Path(address).is_file():
                    msg = "no such file"
                    raise ValueError(msg)
                client = distributed.Client(
                    **{"scheduler_file" if from_file else "address": address},
                    timeout=_CONNECT_SECONDS,
                    set_as_default=False,
                )
            except (OSError, ValueError, TypeError) as error:
                msg = (
                    f"no dask scheduler answers at '{self.scheduler}' ({first_line(error)}); start "
                    "one with `dask scheduler`, or leave --dask-scheduler out for a local cluster"
                )
                raise ConfigError(msg) from None
            yield stack.enter_context(client)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the messages of the library back: what is wrong is said once, in our own words."""
    names = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] == "distributed"]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        msg = (
            "executor 'dask' needs dask.distributed: python -m pip install 'sbi-core[dask]' "
            f"({error})"
        )
        raise ConfigError(msg) from None
    return distributed
