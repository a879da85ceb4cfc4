"""Work of later stages, done beside the stage that runs: one background process.

A stage that declares :attr:`StageSpec.ahead` has a function ``ahead(context, after)`` in its
module, called once after each of the stages it declares. It returns a job for the background
process, ``job(context) -> StageResult | None``, or None if there is nothing to do. A job that
returns a result has done the whole stage. Results do not depend on where they are computed;
whatever the process did not finish, the stage does itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from time import perf_counter
from traceback import format_exc
from types import TracebackType
from typing import Any

from sbi_core.data.writing import current_fences, fenced
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages import Job, StageResult, StageSpec
from sbi_core.progress import Progress
from sbi_core.simulate.executors import end_with_parent
from sbi_core.threads import single_thread

__all__ = ["Ahead"]

_log = logging.getLogger("sbi_core")
_SECONDS = 5.0  # for the process to end by itself


class Ahead:
    """The background process of a run; a context manager, so that it ends with the run.

    There is none where simulations run in one process (``simulate.workers = 1``,
    ``simulate.executor = "serial"``) or on a cluster.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked: set[tuple[str, str]] = set()
        self._waiting: list[str] = []  # names of stages in the order of their jobs
        self._done: dict[str, tuple[StageResult, float]] = {}
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None
        self.possible = context.cores > 1

    def start(self, spec: StageSpec, after: Stage) -> bool:
        """Begin the work of a stage that can be done after another one, once.

        Returns whether there was any.
        """
        if not self.possible or (spec.name, after) in self._asked:
            return False
        self._asked.add((spec.name, after))
        job = spec.work_ahead(self._context, after)
        if job is None or not self._begin():
            return False
        assert self._connection is not None
        try:
            self._connection.send(job)
        except OSError:
            self._lost()
            return False
        self._waiting.append(spec.name)
        _log.info("stage %s: work ahead in the background", spec.name)
        return True

    def result(self, spec: StageSpec) -> tuple[StageResult, float] | None:
        """Wait for the work of a stage; return its result and seconds, if it is complete."""
        while spec.name in self._waiting:
            assert self._connection is not None
            try:
                result, seconds, error = self._connection.recv()
            except (EOFError, OSError):
                self._lost()
                break
            name = self._waiting.pop(0)
            if error:
                _log.warning("stage %s failed in the background:\n%s", name, error)
            elif result is not None:
                self._done[name] = result, seconds
        return self._done.pop(spec.name, None)

    def _begin(self) -> bool:
        """Start the process, unless it runs; False if the run cannot be sent to it."""
        if self._process is not None:
            return True
        config = self._context.config
        section = config.simulate.model_copy(update={"workers": self._context.cores - 1})
        config = config.model_copy(update={"simulate": section})
        context = replace(self._context, config=config, progress=Progress(), facts={})
        context.cores = self._context.cores
        try:
            image = pickle.dumps((context, current_fences()))
        except (pickle.PicklingError, TypeError, AttributeError):
            self.possible = False
            return False
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(image, theirs), name="ahead")
        self._process.start()
        theirs.close()
        return True

    def _lost(self) -> None:
        _log.warning("the background process ended early; the stages do its work")
        self._waiting.clear()
        self.possible = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is None or self._process is None:
            return
        self._connection.close()  # ends it when it waits for a job
        if self._waiting or kind is not None:
            self._process.terminate()
        self._process.join(_SECONDS)
        self._process.kill()
        self._process.join()


def _work(image: bytes, connection: Connection[Any, Any]) -> None:
    """Do one job after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run itself is interrupted, and ends this
    signal.signal(signal.SIGTERM, _end)
    end_with_parent()
    context, fences = pickle.loads(image)  # noqa: S301 - sent by the run itself
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        start = perf_counter()
        try:
            with single_thread(), fenced(*fences), context.tolerance.active():
                result = job(context)
            connection.send((result, perf_counter() - start, ""))
        except Exception:  # noqa: BLE001 - reported by the run, which then does the work itself
            connection.send((None, 0.0, format_exc()))


def _end(number: int, frame: object) -> None:
    sys.exit(1)
