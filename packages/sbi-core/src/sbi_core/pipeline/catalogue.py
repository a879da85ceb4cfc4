"""Inference of a catalogue of any length: read, inferred and written in chunks.

First every chunk is read and checked, so that a bad row is found before the work and not in the
middle of it. Then every chunk is inferred and written to a file of its own; one that is there
already, for the same rows, network, seed and draws, is not computed again. Last the table is put
together. Memory holds one chunk (and eight bytes per object, by which repeated identifiers are
found).

The draws of an object depend on its identifier and the seed. Its support percentile is taken on a
scale that all objects share: the errors and missing elements of the 4000 objects whose identifiers
have the smallest hashes. Neither depends on the order of the rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import Slices, WholeObservations, open_slices
from sbi_core.data.limits import check_disk, check_memory
from sbi_core.data.observations import Observations, holds_arrays
from sbi_core.data.tables import serving
from sbi_core.diagnostics.support import SupportScale
from sbi_core.errors import (
    DataFileError,
    NothingObservedError,
    ObservationError,
    RunDirectoryError,
)
from sbi_core.files.directory import sha256_of
from sbi_core.files.lock import locked
from sbi_core.files.posterior_file import stream_posterior
from sbi_core.files.table_file import write_parts
from sbi_core.pipeline.context import Context, read_objects
from sbi_core.pipeline.stages.infer import UNSUPPORTED, prior_draws, support_scale
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors.space import canonical_hash
from sbi_core.simulate.executors import Executor, SerialExecutor
from sbi_core.simulate.store import landmark, put_image, single_thread

if TYPE_CHECKING:
    from astropy.table import Table

    from sbi_core.components import Simulator

__all__ = ["Catalogue", "CatalogueResult", "infer_catalogue"]

SCHEMA = 1
U64 = NDArray[np.uint64]
_ROWS = 10_000
_CHUNK_BYTES = 2**27  # of the draws of one chunk
_COPIES = 5  # arrays as large as the draws that exist at one time
_DONORS = 4000
_FIELDS = ("x", "x_err", "mask", "context")


@dataclass(frozen=True)
class CatalogueResult:
    """What became of a catalogue.

    Parameters
    ----------
    n, excluded, flagged
        Objects inferred, rows without any observed value, objects unlike the simulations.
    chunks, resumed
        Chunks, and how many of them were there from an earlier call.
    seconds
        Of the inference, without reading and writing.
    notes
        Sentences of the reader.
    """

    n: int
    excluded: int
    flagged: int
    chunks: int
    resumed: int
    seconds: float
    notes: tuple[str, ...]


@dataclass
class Catalogue:
    """A catalogue to infer; can be sent to workers.

    Parameters
    ----------
    run
        Run directory, absolute.
    source
        Chunks of the file.
    draws
        Posterior draws per object.
    folder
        Where files of chunks go.
    keep_draws
        Whether files of chunks hold the draws, too.
    word
        By which workers know the folder.
    donors
        Fields of the batch that gives the support score its errors and missing elements.
    keys
        Identity of every chunk.
    context
        The run, where it is loaded already.
    """

    run: Path
    source: Slices
    draws: int
    folder: Path
    keep_draws: bool = False
    word: str = ""
    donors: dict[str, NDArray[Any]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    context: Context | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Send numbers only: a worker loads the run itself."""
        state = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {**state, "context": None}

    @property
    def loaded(self) -> Context:
        """The run."""
        if self.context is None:
            from sbi_core.pipeline.runner import Run

            if not landmark(self.folder, self.word).exists():
                msg = (
                    f"a worker does not see '{self.folder}': catalogues need a file system that "
                    "all workers share; use --executor process on one machine"
                )
                raise RunDirectoryError(msg)
            self.context = Run(self.run)._context
        return self.context

    @cached_property
    def scale(self) -> SupportScale:
        """The scale of the support score."""
        return support_scale(self.loaded, Batch.of_arrays(**self.donors))

    def path(self, chunk: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"chunk-{chunk:06d}.h5"


def infer_catalogue(
    context: Context,
    path: str | Path,
    target: Path,
    *,
    draws: int,
    samples: Path | None = None,
    rows: int | None = None,
    executor: Executor | None = None,
) -> CatalogueResult:
    """Infer all objects of a file and write their summaries.

    Parameters
    ----------
    context
        A run with a trained estimator.
    path
        The objects.
    target
        Summary table (see :func:`sbi_core.files.table_file.write_parts`).
    draws
        Posterior draws per object.
    samples
        Also write the draws, netCDF.
    rows
        Objects per chunk; default: 10 000, fewer where their draws would exceed 128 MiB.
    executor
        What maps over chunks; default: this process.

    Raises
    ------
    DataFileError, ObservationError
        If the file cannot be read, or a row cannot be used; found before anything is inferred.
    ConfigError
        If memory or disk cannot hold the work; the message has the numbers.
    RunDirectoryError
        If another process works on the same target.
    """
    per_object = draws * context.space.dim * 8
    rows = rows or int(np.clip(_CHUNK_BYTES // per_object, 1, _ROWS))
    check_memory(
        f"{rows} objects with {draws} draws", _COPIES * rows * per_object, "pass a smaller --chunk"
    )
    simulator = context.simulator
    source = _opened(simulator, Path(path), rows)
    columns = 5 * len(context.space.names) + 3
    disk = source.n * columns * 30  # the files of the chunks and the table, 25 characters a number
    disk += 0 if samples is None else source.n * context.space.dim * draws * 8
    check_disk(f"inferring {source.n} objects", disk, target.parent, "choose another --out")
    folder = target.with_name(f".{target.name}.chunks").resolve()
    _make(folder)
    with locked(folder):
        work = Catalogue(
            context.directory.root.resolve(), source, draws, folder, samples is not None
        )
        work.context = context
        seen = _examine(context, work)
        done = _infer(context, work, executor or SerialExecutor())
        context.progress.start("write", done.n, "objects")
        write_parts(target, lambda: _tables(work), done.n)
        if samples is not None:
            _write_samples(work, samples, done.n)
        context.progress.finish(str(target))
        for chunk in range(len(source)):
            work.path(chunk).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return CatalogueResult(
        done.n, seen.excluded, done.flagged, len(source), done.resumed, done.seconds, seen.notes
    )


# -- reading ------------------------------------------------------------------------------


def _opened(simulator: Simulator, path: Path, rows: int) -> Slices:
    """Return the chunks; a simulator that opens files by itself reads its file whole."""
    if path.suffix == ".npz" and not holds_arrays(path):
        whole = read_objects(simulator, path)
        return WholeObservations(path, rows, len(whole), whole)
    source = open_slices(path, rows)
    first = source.read(0)
    if isinstance(first, Observations):
        return source
    with serving(source.name(0), first) as served:
        try:
            simulator.read_observations(source.name(0))
        except Exception:
            if served.taken:
                return source  # said again, with its row, when the chunks are checked
    if served.taken:
        return source
    whole = read_objects(simulator, path)
    return WholeObservations(path, rows, len(whole), whole)


def _objects(simulator: Simulator, source: Slices, chunk: int) -> Observations | None:
    """Return the objects of a chunk, None when no row of it has any observed value."""
    part = source.read(chunk)
    if isinstance(part, Observations):
        return part
    name = source.name(chunk)
    try:
        with serving(name, part):
            return simulator.read_observations(name)
    except NothingObservedError:
        return None
    except (ObservationError, DataFileError) as error:
        start = source.bounds(chunk)[0]
        if not start:
            raise
        msg = f"{error} (rows of this message count from row {start} of the file)"
        raise type(error)(msg) from None


@dataclass
class _Seen:
    """What the check of all rows found."""

    excluded: int
    notes: tuple[str, ...]


def _examine(context: Context, work: Catalogue) -> _Seen:
    """Read all chunks; raise for what cannot be used; set donors and identities of the chunks."""
    source = work.source
    context.progress.start("check", source.n, "objects")
    hashes: list[U64] = []
    digests: list[str] = []
    notes: dict[str, tuple[str, int]] = {}
    donors: Batch | None = None
    kept = np.empty(0, np.uint64)
    n = 0
    for chunk in range(len(source)):
        objects = _objects(context.simulator, source, chunk)
        start, stop = source.bounds(chunk)
        digests.append("" if objects is None else _digest(objects))
        if objects is not None:
            n += len(objects)
            hashes.append(_hashes(objects.id))
            donors, kept = _smallest(donors, kept, objects.batch, hashes[-1])
            for note in objects.notes:
                said = re.sub(r"\d+", "#", note)
                notes[said] = (notes.get(said, (note, 0))[0], notes.get(said, (note, 0))[1] + 1)
        context.progress.advance(stop - start)
    if donors is None:
        msg = f"{source.path}: no row has any observed value"
        raise NothingObservedError(msg)
    _refuse_repeated(context.simulator, source, np.concatenate(hashes))
    work.donors = {k: v for k, v in donors.numpy().items() if k in _FIELDS}
    shared = _shared_identity(context, work)
    work.keys = [canonical_hash({"shared": shared, "rows": d}) for d in digests]
    context.progress.finish(f"{n} objects in {len(source)} chunks")
    said_notes = tuple(
        note if count == 1 or len(source) == 1 else f"{note} (and alike in {count - 1} more chunks)"
        for note, count in notes.values()
    )
    return _Seen(source.n - n, said_notes)


def _hashes(ids: NDArray[np.str_]) -> U64:
    words = [hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids]
    return np.frombuffer(b"".join(words), np.uint64)


def _smallest(donors: Batch | None, kept: U64, batch: Batch, hashes: U64) -> tuple[Batch, U64]:
    """Return the objects with the smallest hashes so far, in order of these."""
    fields = {k: v for k, v in batch.numpy().items() if k in _FIELDS}
    best = np.argsort(hashes, kind="stable")[:_DONORS]
    part, mine = Batch.of_arrays(**fields)[best], hashes[best]
    if donors is not None:
        part, mine = Batch.cat([donors, part]), np.concatenate([kept, mine])
    order = np.argsort(mine, kind="stable")[:_DONORS]
    return part[order], mine[order]


def _digest(objects: Observations) -> str:
    total = hashlib.sha256("\n".join(objects.id.tolist()).encode())
    for name, value in sorted(objects.batch.numpy().items()):
        total.update(f"{name}{value.shape}{value.dtype}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _shared_identity(context: Context, work: Catalogue) -> str:
    """Return a hash of all that the result of a chunk depends on beside its rows."""
    weights = sorted(p for p in context.directory.estimator.rglob("*") if p.is_file())
    donors = hashlib.sha256()
    for name, value in sorted(work.donors.items()):
        donors.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return canonical_hash(
        {
            "schema": SCHEMA,
            "estimator": {p.name: sha256_of(p) for p in weights if p.suffix != ".md"},
            "simulator": context.simulator_identity,
            "simulations": [context.config.simulate.n, context.config.simulate.shard_size],
            "seed": context.config.seed,
            "draws": work.draws,
            "keep_draws": work.keep_draws,
            "donors": donors.hexdigest(),
        }
    )


def _refuse_repeated(simulator: Simulator, source: Slices, hashes: U64) -> None:
    """Raise when an identifier appears more than once in the file."""
    found, counts = np.unique(hashes, return_counts=True)
    repeated = found[counts > 1]
    if not len(repeated):
        return
    first: dict[str, int] = {}
    for chunk in range(len(source)):
        objects = _objects(simulator, source, chunk)
        if objects is None:
            continue
        for k in np.flatnonzero(np.isin(_hashes(objects.id), repeated[:1000])):
            name = str(objects.id[k])
            if name in first:
                msg = (
                    f"{source.path}: {len(repeated)} id(s) appear more than once, e.g. '{name}' "
                    f"in chunks {first[name]} and {chunk} of {source.rows} rows; every object "
                    "needs its own id"
                )
                raise ObservationError(msg)
            first[name] = chunk


# -- inferring ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Done:
    n: int
    flagged: int
    resumed: int
    seconds: float


def _infer(context: Context, work: Catalogue, executor: Executor) -> _Done:
    """Write the files of all chunks that are not there yet."""
    chunks = [k for k in range(len(work.source)) if not _is_there(work, k)]
    resumed = len(work.source) - len(chunks)
    context.progress.start("infer", work.source.n, "objects")
    sizes = {k: int(np.diff(work.source.bounds(k))[0]) for k in range(len(work.source))}
    context.progress.skip(work.source.n - sum(sizes[k] for k in chunks))
    start, new = perf_counter(), 0
    work.word = secrets.token_hex(16)
    mark = landmark(work.folder, work.word)
    mark.touch()
    try:
        for chunk in executor.map(infer_chunk, work, chunks):
            new += sizes[chunk]
            rate = new / (perf_counter() - start)
            context.progress.advance(sizes[chunk], f"{rate:.0f} objects/s")
    finally:
        mark.unlink(missing_ok=True)
    seconds = perf_counter() - start
    n = flagged = 0
    for k in range(len(work.source)):
        with h5py.File(work.path(k), "r") as f:
            n += int(f.attrs["n"])
            flagged += int(f.attrs["flagged"])
    context.progress.finish(
        f"{n} objects, {flagged} outside the training set"
        + (f", {resumed} of {len(work.source)} chunks were there" if resumed else "")
        + (f", {new / max(seconds, 1e-9):.0f} objects/s" if new else "")
    )
    return _Done(n, flagged, resumed, seconds)


def infer_chunk(work: Catalogue, chunk: int) -> int:
    """Infer the objects of one chunk and write its file; return its number."""
    context = work.loaded
    objects = _objects(context.simulator, work.source, chunk)
    arrays: dict[str, Any] = {}
    units: dict[str, str] = {}
    flagged = n = 0
    if objects is not None:
        with single_thread():
            drawn = context.posterior.sample(objects, work.draws)
            scored = context.simulator.summaries(objects.batch)
            percentile = work.scale.percentile(scored)
        flags = tuple("outside_training" if p > UNSUPPORTED else "" for p in percentile)
        found = PosteriorSamples(drawn.values, drawn.space, drawn.id, flags)
        table = found.summary()
        table["support_percentile"] = percentile
        arrays = {f"table/{c}": np.asarray(table[c]) for c in table.colnames}
        units = {c: str(table[c].unit) for c in table.colnames if table[c].unit is not None}
        n, flagged = len(objects), sum(map(bool, flags))
        if work.keep_draws:
            arrays["draws"] = np.moveaxis(drawn.values, 2, 0).astype(np.float32)
            observed = objects.batch.numpy()
            arrays |= {f"observed/{k}": observed[k] for k in _FIELDS[:3] if k in observed}
    attributes = {
        "schema": SCHEMA,
        "key": work.keys[chunk],
        "n": n,
        "flagged": flagged,
        "units": json.dumps(units),
        "columns": json.dumps([k.removeprefix("table/") for k in arrays if k.startswith("table/")]),
    }
    put_image(work.path(chunk), _image(arrays, attributes))
    return chunk


def _image(arrays: dict[str, Any], attributes: dict[str, Any]) -> bytes:
    with h5py.File("chunk", "w", driver="core", backing_store=False) as f:
        for name, value in arrays.items():
            text = value.dtype.kind == "U"
            stored = np.char.encode(value, "utf-8") if text else value
            f.create_dataset(name, data=stored, chunks=True, fletcher32=True)
        f.attrs.update(attributes)
        f.flush()
        image: bytes = f.id.get_file_image()
    return image


def _is_there(work: Catalogue, chunk: int) -> bool:
    """Return whether the file of a chunk is there, whole, and of the same rows and network."""
    path = work.path(chunk)
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as f:
            if f.attrs["key"] != work.keys[chunk]:
                return False
            # reading checks the checksums
            f.visititems(lambda _, node: node[()] is None if hasattr(node, "dtype") else None)
    except (OSError, KeyError, RuntimeError):
        return False
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to '{folder.parent}': {error.strerror or error}"
        raise RunDirectoryError(msg) from None


# -- writing ------------------------------------------------------------------------------


def _tables(work: Catalogue) -> Iterator[Table]:
    """Yield the tables of all chunks that have objects."""
    from astropy.table import Table

    assert work.context is not None
    meta = {
        "plugin": work.context.config.plugin,
        "prior": work.context.space.hash,
        "source": str(work.source.path),
        "draws": work.draws,
    }
    for chunk in range(len(work.source)):
        with h5py.File(work.path(chunk), "r") as f:
            if not f.attrs["n"]:
                continue
            units = json.loads(f.attrs["units"])
            table = Table(meta=meta)
            for name in json.loads(f.attrs["columns"]):
                value = f[f"table/{name}"][()]
                table[name] = np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value
                table[name].unit = units.get(name)
        yield table


def _write_samples(work: Catalogue, path: Path, n: int) -> None:
    assert work.context is not None
    space = work.context.space
    prior = prior_draws(work.context)
    observables = [o.name for o in work.context.simulator.observables]

    def parts() -> Iterator[dict[str, NDArray[Any]]]:
        for chunk in range(len(work.source)):
            with h5py.File(work.path(chunk), "r") as f:
                if not f.attrs["n"]:
                    continue
                part = {
                    "id": np.char.decode(f["table/id"][()], "utf-8"),
                    "draws": f["draws"][()],
                    "support_percentile": f["table/support_percentile"][()],
                    "outside_training": np.asarray(f["table/flags"][()]) != b"",
                }
                part |= {k: v[()] for k, v in f["observed"].items()}
            yield part

    stream_posterior(
        path, parts, n, space, prior=prior, observables=observables, source=str(work.source.path)
    )
