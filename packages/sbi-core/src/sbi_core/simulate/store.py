"""Sharded HDF5 store of simulations.

Shard k holds rows k*m .. (k+1)*m and is a pure function of (seed, simulator, prior, k): its
generator is ``stream(seed, "simulate", k)``. One shard is one file, written under a temporary
name, flushed, and renamed: the final name means done. Every dataset carries a checksum
(fletcher32), so that a damaged shard is found when it is read.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import h5py
import numpy as np

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.gate import UnsafeFileError, open_hdf5
from sbi_core.data.writing import Fence, fenced, write_atomic
from sbi_core.errors import RunDirectoryError, SbiError, SimulationError
from sbi_core.rng import stream
from sbi_core.simulate.child import described
from sbi_core.simulate.probe import check_batch
from sbi_core.simulate.tolerance import Caught, Tolerance
from sbi_core.threads import single_thread

__all__ = [
    "SCHEMA",
    "Message",
    "Shard",
    "ShardReport",
    "deliver_shard",
    "foreign_shards",
    "is_complete",
    "open_shard",
    "plan",
    "read_all",
    "read_reports",
    "shard_image",
]

SCHEMA = 1
_log = logging.getLogger(__name__)
_MESSAGES = 10  # that are kept per shard
_PACK = "pack.h5"  # of version 0.1.0
_NAME = re.compile(r"^part-(\d{6})\.h5$")


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit of simulation work.

    Parameters
    ----------
    directory
        Folder of the shards.
    number, rows
        Which shard, and how many rows it has.
    seed
        Root seed of the run.
    identity
        Hash of simulator, version, options and prior.
    start
        Number of its first row in the run.
    """

    directory: Path
    number: int
    rows: int
    seed: int
    identity: str
    start: int = 0

    @property
    def path(self) -> Path:
        """Final name of its file."""
        return self.directory / f"part-{self.number:06d}.h5"


@dataclass(frozen=True, slots=True)
class Message:
    """Rows of a shard for which the simulator failed in the same way.

    Parameters
    ----------
    text
        What happened.
    code
        Failure code of the rows.
    rows
        How many they are.
    row, theta
        The first of them: its number in the shard, and its parameters.
    """

    text: str
    code: int
    rows: int
    row: int
    theta: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """Facts of a finished shard.

    Parameters
    ----------
    number, rows
        Which shard, and how many rows it has.
    failed
        Rows that failed, for any reason.
    seconds
        Time of its simulation.
    caught
        Rows for which the simulator raised, crashed or took too long.
    messages
        The first reasons of these.
    """

    number: int
    rows: int
    failed: int
    seconds: float
    caught: int = 0
    messages: tuple[Message, ...] = ()


def plan(directory: Path, n: int, rows: int, seed: int, identity: str) -> list[Shard]:
    """Return the shards that hold n rows, ``rows`` each (the last one may be shorter)."""
    starts = range(0, n, rows)
    return [Shard(directory, k, min(rows, n - s), seed, identity, s) for k, s in enumerate(starts)]


def deliver_shard(
    shared: tuple[Simulator, Tolerance, tuple[Fence, ...]], shard: Shard
) -> tuple[Shard, ShardReport, bytes | None]:
    """Simulate one shard and write its file, or return it where the folder is not in sight.

    Parameters
    ----------
    shared
        The simulator, how its failures are treated, and the locks of the run. A worker that sees
        them shares the file system and writes; any other returns the content of the file.
    shard
        What to simulate.
    """
    simulator, tolerance, fences = shared
    image, report = shard_image(simulator, shard, tolerance)
    in_sight = bool(fences) and all(fence.valid for fence in fences)
    if in_sight:
        try:
            with fenced(*fences):
                write_atomic(shard.path, image)
        except OSError:
            in_sight = False
    return shard, report, None if in_sight else image


def shard_image(
    simulator: Simulator, shard: Shard, tolerance: Tolerance | None = None
) -> tuple[bytes, ShardReport]:
    """Simulate one shard and return the content of its file.

    Raises
    ------
    SimulationError
        If the simulator returns something else than it should (:func:`check_batch`), or fails too
        often; the message names the shard.
    """
    start = perf_counter()
    try:
        with single_thread(), (tolerance or Tolerance()).active() as caught:
            if simulator.fixed_set:
                batch = simulator.stored_rows(shard.start, shard.start + shard.rows)
            else:
                batch = simulator.draw(shard.rows, stream(shard.seed, "simulate", shard.number))
        check_batch(simulator, batch, shard.rows)
    except SimulationError as error:
        msg = f"{error} [shard {shard.number}]"
        raise SimulationError(msg) from error
    except SbiError:
        raise
    except Exception as error:
        msg = (
            f"simulator '{simulator.name}': draw raised {described(error)} [shard "
            f"{shard.number}]; only failures of simulate can be attributed to rows"
        )
        raise SimulationError(msg) from error
    failed = int((~batch.ok).sum())
    report = ShardReport(
        shard.number, shard.rows, failed, perf_counter() - start, len(caught), _messages(caught)
    )
    name = f"{shard.path.name}-{secrets.token_hex(8)}"  # threads share files of one name
    with h5py.File(name, "w", driver="core", backing_store=False) as f:
        for name, value in batch.numpy().items():
            f.create_dataset(name, data=value, chunks=True, fletcher32=True)
        f.attrs.update(_attributes(shard, report))
        f.flush()
        image = f.id.get_file_image()
    return image, report


def _messages(caught: list[Caught]) -> tuple[Message, ...]:
    """Return the first reasons of failures, with the number of rows."""
    reasons: dict[tuple[int, str], Message] = {}
    for c in caught:
        old = reasons.get((c.code, c.message))
        if old is not None:
            reasons[c.code, c.message] = replace(old, rows=old.rows + 1)
        elif len(reasons) < _MESSAGES:
            reasons[c.code, c.message] = Message(c.message, c.code, 1, c.row, c.theta)
    return tuple(reasons.values())


def _attributes(shard: Shard, report: ShardReport) -> Mapping[str, Any]:
    return {
        "schema": SCHEMA,
        "identity": shard.identity,
        "seed": shard.seed,
        "number": shard.number,
        "rows": shard.rows,
        "failed": report.failed,
        "seconds": report.seconds,
        "caught": report.caught,
        "messages": json.dumps([asdict(m) for m in report.messages]),
    }


@contextmanager
def open_shard(path: Path) -> Iterator[h5py.File]:
    """Open the file of a shard.

    Raises
    ------
    OSError
        If it is missing or damaged.
    DataFileError
        If the system cannot open or read it.
    RunDirectoryError
        If version 0.1.0 packed the shards of the run into one file.
    """
    if not path.exists() and path.with_name(_PACK).exists():
        msg = (
            f"'{path.with_name(_PACK)}' holds the simulations of this run in the layout of "
            "`sbi-run pack`, which is not read any more; pass --restart simulate"
        )
        raise RunDirectoryError(msg)
    with open_hdf5(path) as f:
        for name, data in f.items():
            # the data are not compressed: more promised than stored means damage
            if isinstance(data, h5py.Dataset) and data.nbytes > data.id.get_storage_size():
                msg = f"'{name}' of shape {data.shape} is not in the file"
                raise OSError(msg)
        yield f


def _read(shard: Shard) -> tuple[Batch, ShardReport]:
    """Return the content of the file; OSError when it is damaged."""
    with open_shard(shard.path) as f:
        found = str(f.attrs.get("identity", ""))
        seed = int(f.attrs.get("seed", -1))
        if found != shard.identity or seed != shard.seed:
            msg = (
                f"{shard.path.name} was made by another simulator, prior or seed "
                f"({found[:12]}, seed {seed}; this run: {shard.identity[:12]}, seed {shard.seed}); "
                "use the version of the plugin that made it, or make the run again"
            )
            raise RunDirectoryError(msg)
        if int(f.attrs["number"]) != shard.number:
            msg = f"{shard.path.name} holds shard number {f.attrs['number']}: it was renamed"
            raise RunDirectoryError(msg)
        if int(f.attrs["rows"]) != shard.rows or int(f.attrs["schema"]) != SCHEMA:
            msg = f"{shard.path.name} has other rows or another schema than this run"
            raise RunDirectoryError(msg)
        arrays = {name: np.asarray(f[name]) for name in f}
        stored = json.loads(f.attrs.get("messages", "[]"))
        report = ShardReport(
            shard.number,
            shard.rows,
            int(f.attrs["failed"]),
            float(f.attrs["seconds"]),
            int(f.attrs.get("caught", 0)),
            tuple(Message(**{**m, "theta": tuple(m["theta"])}) for m in stored),
        )
    if len(arrays["x"]) != shard.rows:
        msg = f"{shard.path.name} holds {len(arrays['x'])} rows, not {shard.rows}"
        raise OSError(msg)
    return Batch.of_arrays(**arrays), report


def is_complete(shard: Shard) -> bool:
    """Return whether the shard's file is there and whole; a damaged one is removed.

    Raises
    ------
    RunDirectoryError
        If the file belongs to another simulator, prior or seed.
    DataFileError
        If the system cannot open or read it.
    """
    if not shard.path.exists():
        return False
    try:
        _read(shard)
    except (OSError, KeyError, RuntimeError, UnsafeFileError) as error:
        _log.warning("%s is damaged and will be computed again: %s", shard.path.name, error)
        shard.path.unlink()
        return False
    return True


def read_reports(shards: list[Shard]) -> tuple[Counter[int], list[ShardReport]]:
    """Return how often each failure code occurs, and the shards' reports; one shard in memory.

    Raises
    ------
    RunDirectoryError
        If a shard is missing or damaged.
    """
    reasons: Counter[int] = Counter()
    reports = []
    for shard in shards:
        batch, report = _whole(shard)
        reasons.update(batch.failure[~batch.ok].tolist())
        reports.append(report)
    return reasons, reports


def read_all(shards: list[Shard]) -> tuple[Batch, list[ShardReport]]:
    """Return all rows in order, and the shards' reports.

    Raises
    ------
    RunDirectoryError
        If a shard is missing or damaged.
    """
    parts = [_whole(shard) for shard in shards]
    return Batch.cat([b for b, _ in parts]), [r for _, r in parts]


def _whole(shard: Shard) -> tuple[Batch, ShardReport]:
    try:
        return _read(shard)
    except (OSError, KeyError, UnsafeFileError) as error:
        msg = f"simulation shard '{shard.path}' is missing or damaged ({error}); run simulate"
        raise RunDirectoryError(msg) from None


def foreign_shards(directory: Path, shards: list[Shard]) -> Iterator[Path]:
    """Yield shard files in the folder that are not part of the plan."""
    planned = {s.path.name for s in shards}
    for path in sorted(directory.glob("part-*.h5")):
        if _NAME.match(path.name) and path.name not in planned:
            yield path
