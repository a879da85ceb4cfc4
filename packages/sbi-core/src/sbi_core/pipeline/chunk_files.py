"""Chunks of inferred objects on disk, so that interrupted work goes on where it stopped.

First every chunk is read and checked: a bad row is found before the work and not in the middle of
it. Then every chunk is inferred and written to a file; one that is there already, for the same
rows, network, seed and options, is not computed again. Memory holds one chunk, and twenty bytes per
object by which repeated identifiers are found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from time import perf_counter
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import Slices
from sbi_core.data.gate import UnsafeFileError, open_hdf5, unchanged
from sbi_core.data.limits import check_disk, check_memory
from sbi_core.data.observations import Excluded, Observations, decoded, excluded_sentence, repeated
from sbi_core.data.writing import (
    Fence,
    current_fences,
    fenced,
    remove_leftovers,
    write_atomic,
)
from sbi_core.diagnostics.support import SupportScale
from sbi_core.errors import (
    DataFileError,
    NothingObservedError,
    ObservationError,
    RunDirectoryError,
    SbiError,
    counted,
)
from sbi_core.files.directory import RunDirectory, sha256_of
from sbi_core.files.lock import LOCK, locked
from sbi_core.files.posterior_file import Part
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.inference import (
    DATA_FIELDS,
    Donors,
    infer_chunk,
    support_scale,
)
from sbi_core.pipeline.opening import open_context, read_config
from sbi_core.pipeline.reading import objects_of
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors.space import canonical_hash
from sbi_core.registry import Registry
from sbi_core.simulate.executors import Executor, SerialExecutor
from sbi_core.threads import single_thread

__all__ = ["ChunkFiles", "Inferred", "inferred"]

SCHEMA = 3
_ROWS = [("hash", np.uint64), ("values", np.int32), ("row", np.int64)]
_COUNT = re.compile(r"(\d+) (?!of\b)(\w+?)s?\b")
_COPIES = 5  # arrays as large as the draws that exist at one time


@dataclass(frozen=True)
class Inferred:
    """Counts of an inference.

    Parameters
    ----------
    n, excluded
        Objects inferred, rows that could not be.
    flags
        How many objects have each flag.
    chunks, resumed
        Chunks, and how many of them were there from an earlier call.
    seconds
        Length of the inference, without reading and writing.
    notes
        Sentences of the reader.
    """

    n: int
    excluded: int
    flags: Mapping[str, int]
    chunks: int
    resumed: int
    seconds: float
    notes: tuple[str, ...]


@dataclass
class ChunkFiles:
    """Chunks to infer and the files they are written to; can be sent to workers.

    Parameters
    ----------
    run
        Run directory, absolute.
    registry
        Where its components are found.
    overrides
        Options of reading and analysis that differ from those of the run.
    source
        Chunks of objects.
    draws
        Posterior draws per object.
    folder
        Folder of the files.
    keep_draws
        Whether the files hold the draws, too.
    fences
        Locks under which the files are written; workers that do not see them share no disk.
    donors
        Fields of the batch that gives the support score its errors and missing elements.
    shared
        Hash of all that the results depend on beside the rows.
    keys
        Identity of every chunk.
    repeated
        Rows of the source whose identifier another chunk has more completely.
    context
        The run, where it is loaded already.
    """

    run: Path
    registry: Registry
    overrides: tuple[str, ...]
    source: Slices
    draws: int
    folder: Path
    keep_draws: bool = False
    fences: tuple[Fence, ...] = ()
    donors: dict[str, NDArray[Any]] = field(default_factory=dict)
    shared: str = ""
    keys: list[str] = field(default_factory=list)
    repeated: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    context: Context | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded run out: a worker loads it by itself."""
        state = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {**state, "context": None}

    @property
    def loaded(self) -> Context:
        """The run."""
        if self.context is None:
            if not all(fence.valid for fence in self.fences):
                msg = (
                    f"a worker does not see '{self.folder}': inference in workers needs a file "
                    "system that all workers share; use --executor process on one machine"
                )
                raise RunDirectoryError(msg)
            directory = RunDirectory(self.run)
            config = read_config(directory)
            self.context = open_context(directory, config, self.registry, self.overrides)
        return self.context

    @cached_property
    def scale(self) -> SupportScale:
        """The scale of the support score."""
        return support_scale(self.loaded, Batch.of_arrays(**self.donors))

    def objects(self, chunk: int) -> Observations:
        """Return the objects of a chunk."""
        objects = objects_of(self.loaded.simulator, self.source, chunk)
        return objects.without(self._repeated(chunk))

    def _repeated(self, chunk: int) -> NDArray[np.int64]:
        start, stop = self.source.bounds(chunk)
        return self.repeated[slice(*np.searchsorted(self.repeated, [start, stop]))] - start

    def key(self, digest: str) -> str:
        """Return the identity of a chunk with rows of this digest."""
        return canonical_hash({"shared": self.shared, "rows": digest})

    def path(self, chunk: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"chunk-{chunk:06d}.h5"

    def tables(self, meta: Mapping[str, Any]) -> Iterator[Table]:
        """Yield the summary tables of all chunks."""
        for chunk in range(len(self.source)):
            with open_hdf5(self.path(chunk)) as f:
                yield _table(f, meta)

    def parts(self) -> Iterator[Part]:
        """Yield draws and data of all chunks that have objects."""
        for chunk in range(len(self.source)):
            with open_hdf5(self.path(chunk)) as f:
                if f.attrs["n"]:
                    observed = {k: v[()] for k, v in f["observed"].items()}
                    yield Part(self._samples(f, self.source.bounds(chunk)[0]), observed)

    def _samples(self, f: h5py.File, start: int) -> PosteriorSamples:
        assert self.context is not None
        words = json.loads(f.attrs["words"])
        arrays = {k: _group(f, k) for k in ("derived", "columns", "labels")}
        return PosteriorSamples(
            np.moveaxis(f["draws"][()], 0, 2).astype(np.float64),
            self.context.space,
            decoded(f["id"][()]),
            tuple(words["flags"]),
            units=words["units"],
            rows=f["rows"][()] + start,
            excluded=tuple(replace(Excluded(**e), row=e["row"] + start) for e in words["excluded"]),
            **arrays,
        )


@contextmanager
def inferred(
    context: Context,
    source: Slices,
    folder: Path,
    *,
    draws: int,
    keep_draws: bool = False,
    executor: Executor | None = None,
) -> Iterator[tuple[ChunkFiles, Inferred]]:
    """Infer all objects of a source; the block finds the files, which are removed after it.

    Parameters
    ----------
    keep_draws
        Whether the files hold the draws, too.
    executor
        What maps over chunks; default: this process.

    Raises
    ------
    DataFileError, ObservationError
        If the source cannot be read, or a row cannot be used; before anything is inferred.
    ConfigError
        If memory or disk cannot hold the work; the message has the numbers.
    RunDirectoryError
        If another process works in the same folder.
    """
    per_object = draws * context.space.dim * 8
    what = f"{source.rows} objects with {draws} draws"
    check_memory(what, _COPIES * source.rows * per_object, "pass a smaller --chunk")
    numbers = 5 * len(context.space.names) + 3
    disk = source.n * (numbers * 30 + (per_object if keep_draws else 0))  # 25 characters a number
    check_disk(f"inferring {source.n} objects", disk, folder.parent, "choose another place (out)")
    _make(folder)
    folder = folder.resolve()
    with locked(folder) as hold:
        remove_leftovers(folder)
        work = ChunkFiles(
            context.directory.root.resolve(),
            context.registry,
            context.overrides,
            source,
            draws,
            folder,
            keep_draws,
            fences=(*current_fences(), hold),
        )
        work.context = context
        with unchanged(source.path):
            excluded, notes = _check_all(context, work)
        result = _infer_all(context, work, executor or SerialExecutor())
        yield work, replace(result, excluded=excluded, notes=notes)
        for chunk in range(len(source)):
            work.path(chunk).unlink(missing_ok=True)
        (folder / LOCK).unlink()
    with suppress(OSError):  # it holds files that are not ours
        folder.rmdir()


def _make(folder: Path) -> None:
    if folder.is_symlink():
        msg = f"'{folder}' is a link; remove it: intermediate results are not written through links"
        raise RunDirectoryError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to '{folder.parent}': {error.strerror or error}"
        raise RunDirectoryError(msg) from None


# -- checking -------------------------------------------------------------------------------


def _check_all(context: Context, work: ChunkFiles) -> tuple[int, tuple[str, ...]]:
    """Read all chunks; set repeated rows, donors and identities; return excluded rows and notes."""
    source = work.source
    context.progress.start("check", source.n, "objects")
    objects_of_rows: list[NDArray[Any]] = []
    digests: list[str] = []
    notes: dict[str, tuple[str, int]] = {}
    donors, excluded = Donors(), dict[str, list[Excluded]]()
    for chunk in range(len(source)):
        objects = work.objects(chunk)
        start, stop = source.bounds(chunk)
        digests.append(_digest(objects))
        if len(objects):
            assert objects.rows is not None
            rows = np.empty(len(objects), _ROWS)
            rows["hash"], rows["values"] = donors.add(objects)
            rows["row"] = objects.rows + start
            objects_of_rows.append(rows)
        for e in objects.excluded:
            excluded.setdefault(e.reason, []).append(replace(e, row=e.row + start))
        for note in objects.notes:
            _add_note(notes, note)
        context.progress.advance(stop - start)
    if not objects_of_rows:
        why = "; ".join(map(excluded_sentence, excluded.values()))
        msg = f"{source.path}: nothing to infer: {why}"
        raise NothingObservedError(msg)
    rows = np.concatenate(objects_of_rows)
    work.repeated = np.sort(rows["row"][repeated(rows["hash"], rows["values"])])
    for chunk in sorted({int(row) // source.rows for row in work.repeated}):
        objects, start = work.objects(chunk), source.bounds(chunk)[0]
        digests[chunk] = _digest(objects)
        mine = set(work._repeated(chunk).tolist())
        repeats = excluded.setdefault("repeated_id", [])
        repeats += [replace(e, row=e.row + start) for e in objects.excluded if e.row in mine]
        repeats.sort(key=lambda e: e.row)
    reasons = [excluded_sentence(rows) for rows in excluded.values()]
    if source.reading.strict and reasons:
        msg = f"{source.path}: {'; '.join(reasons)}; strict reading accepts no such row"
        raise ObservationError(msg)
    work.donors = {k: v for k, v in donors.batch.numpy().items() if k in DATA_FIELDS}
    work.shared = _shared_identity(context, work)
    work.keys = [work.key(digest) for digest in digests]
    n = len(rows) - len(work.repeated)
    context.progress.finish(f"{counted(n, 'object')} in {counted(len(source), 'chunk')}")
    sentences = [
        note if count == 1 else f"{note} (and alike in {counted(count - 1, 'more chunk')})"
        for note, count in notes.values()
    ]
    return sum(map(len, excluded.values())), (*sentences, *reasons)


def _add_note(notes: dict[str, tuple[str, int]], note: str) -> None:
    """Add the note of a chunk: counts such as "1 row" at the beginning of a sentence are summed."""
    count = _COUNT.match(note)
    noun, rest = (count[2], note[count.end() :]) if count else ("", note)
    alike = re.sub(r"\d+", "#", f"{noun}{rest}")
    first, n = notes.get(alike, ("", 0))
    if first and count:
        notes[alike] = f"{counted(int(first.split(' ')[0]) + int(count[1]), noun)}{rest}", 1
    elif first != note:
        notes[alike] = first or note, n + 1


def _digest(objects: Observations) -> str:
    total = hashlib.sha256("\n".join(objects.id.tolist()).encode())
    total.update(repr(objects.excluded).encode())
    arrays = {**objects.batch.numpy(), "rows": objects.rows, **objects.labels}
    for name, value in sorted(arrays.items()):
        value = np.asarray(value)
        total.update(f"{name}{value.shape}{value.dtype}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _shared_identity(context: Context, work: ChunkFiles) -> str:
    """Return a hash of all that the result of a chunk depends on beside its rows."""
    weights = sorted(p for p in context.directory.estimator.rglob("*") if p.is_file())
    donors = hashlib.sha256()
    for name, value in sorted(work.donors.items()):
        donors.update(name.encode() + np.ascontiguousarray(value).tobytes())
    config = context.config
    return canonical_hash(
        {
            "schema": SCHEMA,
            "estimator": {p.name: sha256_of(p) for p in weights if p.suffix != ".md"},
            "simulator": context.simulator_identity,
            "analysis": context.inference.analysis.model_dump(mode="json"),
            "simulations": [config.simulate.n, config.simulate.shard_size],
            "seed": config.seed,
            "draws": work.draws,
            "keep_draws": work.keep_draws,
            "donors": donors.hexdigest(),
        }
    )


# -- inferring ------------------------------------------------------------------------------


def _infer_all(context: Context, work: ChunkFiles, executor: Executor) -> Inferred:
    """Write the files of all chunks that are not there yet."""
    source = work.source
    chunks = [k for k in range(len(source)) if not _is_there(work, k)]
    resumed = len(source) - len(chunks)
    context.progress.start("infer", source.n, "objects")
    sizes = {k: int(np.diff(source.bounds(k))[0]) for k in range(len(source))}
    context.progress.skip(source.n - sum(sizes[k] for k in chunks))
    start, new = perf_counter(), 0
    for chunk in executor.map(write_chunk, work, chunks):
        new += sizes[chunk]
        context.progress.advance(sizes[chunk], _rate(new, perf_counter() - start))
    seconds = perf_counter() - start
    n, flags = 0, Counter[str]()
    for k in range(len(source)):
        with open_hdf5(work.path(k)) as f:
            n += int(f.attrs["n"])
            flags.update(_flags(json.loads(f.attrs["words"])["flags"]))
    context.progress.finish(
        f"{counted(n, 'object')}, {flags['outside_training']} outside the training set"
        + (f", {resumed} of {counted(len(source), 'chunk')} from before" if resumed else "")
        + (f", {_rate(new, seconds)}" if new else "")
    )
    return Inferred(n, 0, flags, len(source), resumed, seconds, ())


def _flags(words: Iterable[str]) -> list[str]:
    """Return the single flags of objects, whose flags are joined by commas."""
    return [flag for word in words for flag in word.split(",") if flag]


def _rate(objects: int, seconds: float) -> str:
    return f"{objects / max(seconds, 1e-9):.3g} objects/s"


def write_chunk(work: ChunkFiles, chunk: int) -> int:
    """Infer the objects of one chunk and write its file; return its number.

    Raises
    ------
    DataFileError
        If the rows are not those that were checked before.
    """
    try:
        objects = work.objects(chunk)
    except SbiError as error:  # all chunks were read before
        raise _changed(work, chunk) from error
    key = work.key(_digest(objects))
    if key != work.keys[chunk]:
        raise _changed(work, chunk)
    with single_thread():
        samples = infer_chunk(work.loaded, objects, work.draws, work.scale)
    table = samples.summary()
    arrays: dict[str, Any] = {f"table/{c}": np.asarray(table[c]) for c in table.colnames}
    words = {
        "table": table.colnames,
        "table_units": {c: str(table[c].unit) for c in table.colnames if table[c].unit},
        "units": dict(samples.units),
        "flags": list(samples.flags),
        "excluded": [asdict(e) for e in samples.excluded],
    }
    if work.keep_draws:
        arrays |= {
            "draws": np.moveaxis(samples.values, 2, 0).astype(np.float32),
            "id": samples.id,
            "rows": samples.rows,
        }
        arrays |= {f"derived/{k}": v.astype(np.float32) for k, v in samples.derived.items()}
        arrays |= {f"columns/{k}": np.asarray(v) for k, v in samples.columns.items()}
        arrays |= {f"labels/{k}": np.asarray(v) for k, v in samples.labels.items()}
        observed = Part.of(samples, objects).observed
        arrays |= {f"observed/{k}": v for k, v in observed.items()}
    attributes = {
        "schema": SCHEMA,
        "key": key,
        "n": len(objects),
        "words": json.dumps(words),
    }
    with fenced(*work.fences):
        write_atomic(work.path(chunk), _image(arrays, attributes))
    return chunk


def _changed(work: ChunkFiles, chunk: int) -> DataFileError:
    return DataFileError(
        f"'{work.source.path}' changed while it was inferred: chunk {chunk + 1} of "
        f"{len(work.source)} is not that of the beginning; give the command again"
    )


def _image(arrays: dict[str, Any], attributes: dict[str, Any]) -> bytes:
    with h5py.File(token_hex(8), "w", driver="core", backing_store=False) as f:
        for name, value in arrays.items():
            text = value.dtype.kind == "U"
            stored = np.char.encode(value, "utf-8") if text else value
            whole = {"chunks": True, "fletcher32": True} if stored.size else {}
            f.create_dataset(name, data=stored, **whole)
        words = attributes.pop("words")
        f.attrs.update(attributes)
        f.attrs.create("words", words, dtype=h5py.string_dtype())
        f.flush()
        image: bytes = f.id.get_file_image()
    return image


def _is_there(work: ChunkFiles, chunk: int) -> bool:
    """Return whether the file of a chunk is there, whole, and of the same rows and network."""
    path = work.path(chunk)
    if not path.exists():
        return False
    try:
        with open_hdf5(path) as f:
            if f.attrs["key"] != work.keys[chunk]:
                return False
            # reading checks the checksums
            f.visititems(lambda _, node: node[()] is None if hasattr(node, "dtype") else None)
    except (OSError, KeyError, RuntimeError, UnsafeFileError):
        return False
    return True


# -- reading back ---------------------------------------------------------------------------


def _group(f: h5py.File, name: str) -> dict[str, NDArray[Any]]:
    return {k: decoded(v[()]) for k, v in f[name].items()} if name in f else {}


def _table(f: h5py.File, meta: Mapping[str, Any]) -> Table:
    words = json.loads(f.attrs["words"])
    table = Table(meta=dict(meta))
    for name in words["table"]:
        table[name] = decoded(f[f"table/{name}"][()])
        table[name].unit = words["table_units"].get(name)
    return table
