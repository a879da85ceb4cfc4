"""Simulators that fail for some rows: the rows are found, recorded and left out.

Within :meth:`Tolerance.active`, every ``simulate(theta, rng)`` that raises, crashes or takes too
long is repeated on parts of its rows until the rows that fail stand alone. It is then repeated as
a whole, with the theta of a good row in their place: the other rows have the random numbers that
they would have had anyway, and no result depends on the number of workers. Rows that fail return
as ``ok=False``, with one of the codes of ``REASONS``.
"""

from __future__ import annotations

import copy
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from sbi_core.components import Rng, Simulator, simulate_handler
from sbi_core.data.batch import Batch
from sbi_core.errors import SbiError, SimulationError, counted
from sbi_core.priors.space import as_float64
from sbi_core.rng import as_generator, stream
from sbi_core.simulate.child import (
    CRASHED,
    RAISED,
    TOO_LONG,
    Child,
    LostError,
    described,
    exit_error,
)
from sbi_core.simulate.probe import check_batch, refuse_other_theta

__all__ = ["REASONS", "Caught", "Tolerance", "values_of"]

REASONS = {
    RAISED: "raised an exception",
    CRASHED: "crashed",
    TOO_LONG: "exceeded the time limit",
}
_FEW = 30  # rows that may fail before the fraction of them is judged
_PARTS = 16  # of a call that crashed: every crash costs the start of a process
_log = logging.getLogger("sbi_core")


@dataclass(frozen=True, slots=True)
class Caught:
    """A row for which the simulator failed.

    Parameters
    ----------
    row
        Its number in the call of ``simulate``.
    code
        Failure code, a key of ``REASONS``.
    message
        What happened.
    theta
        Its parameters.
    """

    row: int
    code: int
    message: str
    theta: tuple[float, ...]


@dataclass
class Tolerance:
    """How failures of a simulator are treated.

    Parameters
    ----------
    max_failed
        Fraction of rows above which the failures are an error.
    time_limit
        Seconds for one call of ``simulate``.
    protect
        Whether ``simulate`` runs in a child process; a time limit needs one, too.
    """

    max_failed: float = 0.05
    time_limit: float | None = None
    protect: bool = False
    _local: Any = field(init=False, repr=False, compare=False, default_factory=threading.local)

    @contextmanager
    def active(self) -> Iterator[list[Caught]]:
        """Treat failures of any simulator in this block, and list them."""
        caught: list[Caught] = []
        token = simulate_handler.set(partial(self._simulate, caught))
        try:
            yield caught
        finally:
            simulate_handler.reset(token)

    def close(self) -> None:
        """End the child process of this thread, if there is one."""
        child = vars(self._local).pop("child", None)
        if child is not None:
            child.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _local=threading.local())

    def _simulate(
        self, caught: list[Caught], method: Any, simulator: Simulator, theta: Any, rng: Rng
    ) -> Batch:
        call = _Call(self, partial(method, simulator), simulator, _copied(theta), _copied(rng))
        try:
            return call.attempt(call.theta, rng)
        except LostError as lost:
            batch, failed = call.repeated(lost, rng)
        caught += failed
        for c in failed:
            values = values_of(simulator, c.theta)
            _log.info("simulator '%s', row %d (%s): %s", simulator.name, c.row, values, c.message)
        return batch

    def child_of(self, simulator: Simulator) -> Child:
        """Return the child process of a simulator; there is one per thread."""
        child = getattr(self._local, "child", None)
        if child is None or child.simulator is not simulator:
            self.close()
            child = self._local.child = Child(simulator)
        return child


@dataclass
class _Call:
    """One call of ``simulate``, repeated until the rows that fail are known."""

    tolerance: Tolerance
    method: Any
    simulator: Simulator
    theta: Any  # as it was given
    rng: Any
    good: list[tuple[int, Batch]] = field(default_factory=list)
    failed: list[Caught] = field(default_factory=list)

    def attempt(self, theta: Any, rng: Any) -> Batch:
        """Simulate rows; LostError when nothing comes back."""
        tolerance = self.tolerance
        token = simulate_handler.set(None)
        try:
            with _interrupts() as interrupts:
                if not (tolerance.protect or tolerance.time_limit):
                    batch: Batch = self.method(_copied(theta), rng)
                else:
                    child = tolerance.child_of(self.simulator)
                    batch, after = child.call(theta, rng, tolerance.time_limit)
                    _set_state(rng, after)
        except SimulationError as error:
            if f"'{self.simulator.name}'" in str(error):
                raise
            msg = f"simulator '{self.simulator.name}': simulate: {error}"
            raise SimulationError(msg) from error
        except (LostError, SbiError):
            raise
        except SystemExit as error:
            raise exit_error(self.simulator, error) from None
        except BaseException as error:
            if interrupts:
                raise
            _log.info("simulator '%s' raised", self.simulator.name, exc_info=True)
            raise LostError(RAISED, described(error)) from error
        finally:
            simulate_handler.reset(token)
        if _comparable(batch, theta):
            refuse_other_theta(self.simulator, batch, theta)
        return batch

    def repeated(self, lost: LostError, rng: Rng) -> tuple[Batch, list[Caught]]:
        """Return the batch with rows that failed marked, and these rows."""
        n = len(self.theta)
        key = int(as_generator(_copied(self.rng)).integers(2**63 - 1))
        self._divide(0, n, lost, key)
        if not self.good:
            msg = (
                f"simulator '{self.simulator.name}': simulate failed for every row of a call "
                f"({counted(n, 'row')}): {self._first()}"
            )
            raise SimulationError(msg)
        bad = [c.row for c in self.failed]
        theta = _copied(self.theta)
        if bad:
            theta[bad] = self.theta[self.good[0][0]]
        _set_state(rng, self.rng)
        try:
            batch = self.attempt(theta, rng)
            check_batch(self.simulator, batch, n, "simulate")
        except LostError:  # the failures depend on more than theta
            batch = Batch.cat([part for _, part in sorted(self._parts(), key=lambda p: p[0])])
        return self._marked(batch, bad), self.failed

    def _divide(self, start: int, stop: int, lost: LostError, key: int) -> None:
        """Find the rows that fail among rows start..stop, which failed together."""
        n = stop - start
        if n > 1:
            parts = min(n, 2 if lost.code == RAISED else _PARTS)
            ends = np.linspace(start, stop, parts + 1).astype(int)
        else:
            ends = np.array([start, stop])
        for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if n == len(self.theta) == 1 and lost.code == RAISED:
                again = lost
            else:
                try:
                    rng = stream(key, "rows", a, b)
                    batch = self.attempt(self.theta[a:b], rng)
                    check_batch(self.simulator, batch, b - a, "simulate")
                    self.good.append((a, batch))
                    continue
                except LostError as error:
                    again = error
            if b - a > 1:
                self._divide(a, b, again, key)
            else:
                theta = tuple(as_float64(self.theta[a : a + 1])[0].tolist())
                self.failed.append(Caught(a, again.code, str(again), theta))
                self._judge(b)

    def _judge(self, rows: int) -> None:
        """Give up when far too many of the first rows failed."""
        count, limit = len(self.failed), self.tolerance.max_failed
        if limit == 0 or (count >= _FEW and count > 3 * limit * rows):
            msg = (
                f"simulator '{self.simulator.name}' failed for {count} of {rows} rows, more than "
                f"simulate.max_failed = {limit:g} allows: {self._first()}; mend it, or return "
                "ok=False for rows that cannot be simulated"
            )
            raise SimulationError(msg)

    def _first(self) -> str:
        first = self.failed[0]
        return f"{first.message} (row {first.row}, {values_of(self.simulator, first.theta)})"

    def _parts(self) -> Iterator[tuple[int, Batch]]:
        yield from self.good
        like = self.good[0][1][:1]
        for caught in self.failed:
            theta = torch.as_tensor(np.array([caught.theta])).to(like.theta)
            yield caught.row, like.with_(theta=theta)

    def _marked(self, batch: Batch, bad: list[int]) -> Batch:
        """Return the batch with the rows that failed as failures, with their own theta."""
        if not bad:
            return batch
        assert batch.theta is not None
        x, theta, ok, failure = (t.clone() for t in (batch.x, batch.theta, batch.ok, batch.failure))
        x[bad] = torch.nan
        theta[bad] = torch.as_tensor(as_float64(self.theta[bad])).to(theta)
        ok[bad] = False
        failure[bad] = torch.tensor([c.code for c in self.failed]).to(failure)
        return batch.with_(x=x, theta=theta, ok=ok, failure=failure)


def values_of(simulator: Simulator, theta: Sequence[float]) -> str:
    """Return parameters as text, ``a = 0.3, b = 0.99``."""
    names = simulator.parameters.names
    shown = [f"{k} = {v:.6g}" for k, v in zip(names, theta, strict=False)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """List the SIGINT that arrive: simulators may raise KeyboardInterrupt themselves."""
    arrived: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def note(number: int, frame: Any) -> Any:
        arrived.append(number)
        return handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGINT, handler)


def _comparable(batch: Any, theta: Any) -> bool:
    """Return whether a batch has theta of the shape that was given, and no sets."""
    if not isinstance(batch, Batch) or batch.theta is None or batch.theta_mask is not None:
        return False  # what is wrong is found by check_batch
    return tuple(batch.theta.shape) == tuple(theta.shape)


def _copied(value: Any) -> Any:
    """Return a copy of theta or of a generator."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        new = torch.Generator(device=value.device)
        return new.set_state(value.get_state())
    if isinstance(value, (np.random.Generator, int, np.integer)):
        return copy.deepcopy(value)
    return np.array(value)


def _set_state(rng: Rng, like: Rng) -> None:
    """Give a generator the state of another one."""
    if isinstance(rng, torch.Generator):
        rng.set_state(like.get_state())  # type: ignore[union-attr]
    elif isinstance(rng, np.random.Generator):
        rng.bit_generator.state = like.bit_generator.state  # type: ignore[union-attr]
