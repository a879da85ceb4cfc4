"""A simulator in a child process, which may crash or be ended without harm to the run."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from threadpoolctl import threadpool_limits

from sbi_core.components import Simulator
from sbi_core.errors import SbiError, SimulationError
from sbi_core.simulate.executors import end_with_parent

__all__ = ["CRASHED", "RAISED", "TOO_LONG", "Child", "LostError", "described", "exit_error"]

RAISED, CRASHED, TOO_LONG = -1, -2, -3  # failure codes; those of simulators are positive
_FORKS = sys.platform == "linux"


class LostError(Exception):
    """A call of ``simulate`` that returned nothing; ``code`` tells why (see ``REASONS``)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Child:
    """A process that holds a pickled copy of a simulator and calls its ``simulate``."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._process: Any = None
        self._connection: Any = None

    def call(self, theta: Any, rng: Any, seconds: float | None) -> tuple[Any, Any]:
        """Return what ``simulate(theta, rng)`` returns, and the generator after the call.

        Raises
        ------
        LostError
            If it raises an exception, ends the process or takes too long.
        SimulationError
            If the process cannot start.
        """
        finished = False
        try:
            self._start()
            self._connection.send_bytes(pickle.dumps((theta, rng, seconds)))
            if not self._connection.poll(seconds):
                raise LostError(TOO_LONG, f"took longer than {seconds:g} s")
            kind, *content = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our child
            finished = True
        except (EOFError, OSError):
            self._process.join()
            raise LostError(CRASHED, _ending(self._process.exitcode)) from None
        finally:
            if not finished:  # also when the run is interrupted
                self.close()
        if kind == "returned":
            return content[0], content[1]
        if kind == "raised":
            raise LostError(RAISED, content[0])
        raise content[0]

    def _start(self) -> None:
        if self._process is not None:
            return
        # a server that has imported everything forks a new process in milliseconds after a crash
        context: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
        if _FORKS:
            context.set_forkserver_preload([__name__])
        try:
            image = pickle.dumps(self.simulator)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            msg = (
                f"simulator '{self.simulator.name}' cannot be sent to another process ({error}); "
                "keep no open files, lambdas or locks in it, or set simulate.protect = false"
            )
            raise SimulationError(msg) from None
        self._connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name="simulator", daemon=True)
        with _may_have_children():
            process.start()
        theirs.close()
        self._process = process
        try:
            # the server was started earlier, perhaps with other variables
            self._connection.send_bytes(pickle.dumps(dict(os.environ)))
            self._connection.send_bytes(image)
            self._connection.recv_bytes()  # it is ready
        except (EOFError, OSError):
            process.join()
            msg = (
                f"the process of simulator '{self.simulator.name}' could not start "
                f"({_ending(process.exitcode)}). In a script, call sbi_core.run below "
                "`if __name__ == '__main__':`"
            )
            raise SimulationError(msg) from None

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        return {"simulator": self.simulator, "_process": None, "_connection": None}


def _ending(code: int | None) -> str:
    """Return how a process ended, from its exit code."""
    if code is None or code >= 0:
        return f"ended its process with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"crashed with {name}{memory}"


@contextlib.contextmanager
def _may_have_children() -> Iterator[None]:
    """Allow this process to start another one; workers of dask are daemons."""
    process = multiprocessing.current_process()
    before = process.daemon
    process.daemon = False
    try:
        yield
    finally:
        process.daemon = before


def _serve(connection: Connection[Any, Any]) -> None:
    """Answer one call after the other; the end of the parent ends this process."""
    import torch

    try:
        environment, image = connection.recv_bytes(), connection.recv_bytes()
    except EOFError:
        return
    os.environ.clear()
    os.environ.update(pickle.loads(environment))  # noqa: S301
    simulator: Simulator = pickle.loads(image)  # noqa: S301
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    end_with_parent()
    torch.set_num_threads(1)
    multiprocessing.current_process().daemon = False  # simulators may start processes
    nowhere = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    connection.send_bytes(b"ready")
    while True:
        try:
            theta, rng, seconds = pickle.loads(connection.recv_bytes())  # noqa: S301
        except EOFError:
            return
        if seconds is not None:  # where the parent is gone and the simulator blocks all threads
            faulthandler.dump_traceback_later(2 * seconds + 1, exit=True, file=nowhere)
        answer: tuple[Any, ...]
        try:
            with threadpool_limits(1, user_api="blas"):
                answer = ("returned", simulator.simulate(theta, rng), rng)
        except SbiError as error:
            answer = ("error", error)
        except SystemExit as error:
            answer = ("error", exit_error(simulator, error))
        except BaseException as error:  # noqa: BLE001 - recorded by the run
            answer = ("raised", described(error))
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(pickle.dumps(answer))


def described(error: BaseException) -> str:
    """Return type and first line of an exception."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def exit_error(simulator: Simulator, error: SystemExit) -> SimulationError:
    """Return the error of a simulator that tried to end the program."""
    return SimulationError(
        f"simulator '{simulator.name}' called sys.exit({error.code!r}); let simulate return "
        "ok=False for rows that fail, or raise an exception"
    )
