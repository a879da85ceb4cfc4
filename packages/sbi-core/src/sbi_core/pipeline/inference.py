"""Inference of objects: the one path behind runs, catalogues and Python.

A source is cut into chunks. For every chunk, draws, support percentile and flags are made here and
completed by the run's analysis (:class:`~sbi_core.Analysis`). The draws of an object depend on its
identifier and the seed. Its support percentile is taken on a scale that all objects share: the
errors and missing elements of the 4000 objects whose identifiers have the smallest hashes. Neither
depends on the order of the rows, or on how they are cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import WholeObservations
from sbi_core.data.observations import Observations, repeated
from sbi_core.diagnostics.support import SupportScale, flat_arrays, more_than_chance
from sbi_core.diagnostics.support_by_noise import SupportByNoise
from sbi_core.errors import ObservationError
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.plugin_calls import described
from sbi_core.pipeline.reading import objects_of
from sbi_core.posterior import PosteriorSamples
from sbi_core.rng import stream
from sbi_core.threads import available_threads
from sbi_core.training.rows import known_rows

__all__ = [
    "Donors",
    "catalogue_flags",
    "chunk_rows",
    "infer_chunk",
    "infer_in_memory",
    "outside_flags",
    "prior_draws",
    "support_flags",
    "support_scale",
]

F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
OUTSIDE = 99.0  # percentile of held-out simulations above which an object is flagged
_OBSERVED = 4000  # simulations that are observed for the range of errors in training
_SUMMARISED = 10_000  # simulations that are observed and summarised for the support score
_ALIKE = 1500  # simulations observed like the objects of one bin of noise
_ROWS = 10_000
_CHUNK_BYTES = 2**25  # of the draws of one chunk
_DONORS = 4000
_PRIOR_DRAWS = 1000
DATA_FIELDS = ("x", "x_err", "mask", "context")


# -- one chunk ----------------------------------------------------------------------------


def chunk_rows(context: Context, draws: int, asked: int | None = None) -> int:
    """Return how many objects are inferred at a time."""
    per_object = draws * context.space.dim * 8
    rows = asked or int(np.clip(_CHUNK_BYTES // per_object, 1, _ROWS))
    return min(rows, context.analysis.chunk or rows)


def infer_chunk(
    context: Context, objects: Observations, draws: int, scale: SupportScale
) -> PosteriorSamples:
    """Return the draws of some objects with everything that tables of results hold."""
    drawn = context.posterior.sample(objects, draws)
    percentile, far = scale.compare(context.simulator.summaries(objects.batch))
    samples = replace(
        drawn,
        flags=tuple(map(outside_flags, percentile, far, scale.errors_outside(objects.batch))),
        columns={"support_percentile": percentile},
        labels=objects.labels,
        rows=objects.rows,
        excluded=objects.excluded,
    )
    if len(objects) == 0:
        return samples
    return described(context.analysis, context.posterior, objects, samples, context.config.seed)


def outside_flags(percentile: float, far: bool, errors: bool = False) -> str:
    """Return the flags of an object with this support percentile.

    ``far`` outside or not, with ``errors`` that do not occur in training or not.
    """
    words = {
        "outside_training": percentile > OUTSIDE,
        "far_outside_training": far,
        "errors_outside_training": errors,
    }
    return ",".join(word for word, present in words.items() if present)


def infer_in_memory(context: Context, observations: Observations, draws: int) -> PosteriorSamples:
    """Return the draws of all objects, chunk by chunk as a catalogue is inferred."""
    if len(observations) == 0:
        empty = SupportScale.__new__(SupportScale)  # nothing is scored
        return infer_chunk(context, observations, draws, empty)
    source = WholeObservations.of(observations, chunk_rows(context, draws))
    donors = Donors()
    donors.add(observations)
    scale = support_scale(context, donors.batch)
    parts = []
    for chunk in range(len(source)):
        objects = objects_of(context.simulator, source, chunk)
        start = source.bounds(chunk)[0]
        parts.append(_shifted(infer_chunk(context, objects, draws, scale), start))
    return PosteriorSamples.cat([p for p in parts if len(p.id)] or parts)


def _shifted(samples: PosteriorSamples, start: int) -> PosteriorSamples:
    """Return the samples with rows counted from the start of the source."""
    assert samples.rows is not None
    excluded = tuple(replace(e, row=e.row + start) for e in samples.excluded)
    return replace(samples, rows=samples.rows + start, excluded=excluded)


# -- the scale of the support score ---------------------------------------------------------


class Donors:
    """The objects that give the reference simulations their errors and missing elements.

    These are the ones whose identifiers have the smallest hashes, whatever the order of the rows.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._kept = np.empty(0, np.uint64)
        self._values = np.empty(0, np.int64)

    def add(self, objects: Observations) -> tuple[U64, NDArray[np.int64]]:
        """Consider more objects; return hashes of their identifiers and their observed values.

        Of objects with one identifier, the first with the most values counts.
        """
        hashes = _hashes(objects.id)
        observed = objects.batch.observed.reshape(len(objects), -1)
        values = observed.sum(1).cpu().numpy().astype(np.int64)
        fields = {k: v for k, v in objects.batch.numpy().items() if k in DATA_FIELDS}
        part, mine, counts = Batch.of_arrays(**fields), hashes, values
        if self._batch is not None:
            part = Batch.cat([self._batch, part])
            mine = np.concatenate([self._kept, mine])
            counts = np.concatenate([self._values, counts])
        single = np.flatnonzero(~repeated(mine, counts))
        best = single[np.argsort(mine[single], kind="stable")[:_DONORS]]
        self._batch, self._kept, self._values = part[best], mine[best], counts[best]
        return hashes, values

    @property
    def batch(self) -> Batch:
        """The donors, in the order of their hashes."""
        assert self._batch is not None
        return self._batch


def _hashes(ids: NDArray[np.str_]) -> U64:
    words = [hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids]
    return np.frombuffer(b"".join(words), np.uint64)


def support_scale(context: Context, donors: Batch) -> SupportScale:
    """Return the scale of the support score for objects with errors and masks like ``donors``.

    Scored are the data, or their summaries where a simulator has some. Summaries with errors are
    also compared with simulations of similar errors.

    Raises
    ------
    ObservationError
        If the data have not the shape of the simulations, as in a file of another plugin.
    """
    simulator, rng = context.simulator, stream(context.config.seed, "support")
    known = known_rows(context.training)
    example = simulator.observe(known[:1], stream(context.config.seed, "support", "shape"))
    got, want = (tuple(batch.x.shape[1:]) for batch in (donors, example))
    if (got[1:], len(got)) != (want[1:], len(want)) or (len(want) == 1 and got != want):
        msg = (
            f"every object has x of shape {got}, but {want} in the simulations of this run: the "
            f"observations are not those of plugin '{context.config.plugin}'"
        )
        raise ObservationError(msg)
    ours = simulator.summaries(donors)
    if ours is donors:
        few = known[np.sort(rng.permutation(len(known))[:_OBSERVED])]
        return SupportScale(
            ours,
            known,
            rng,
            observe=lambda batch: simulator.observe_like(batch, donors, rng),
            trained=simulator.observe(few, rng),
            threads=available_threads(),
        )
    some_rows = known[np.sort(rng.permutation(len(known))[:_SUMMARISED])]
    theirs = simulator.summaries(simulator.observe(some_rows, rng))  # noise is already in them
    threads = available_threads()
    if ours.x_err is None:
        return SupportScale(ours, theirs, rng, threads=threads)

    def alike(rows: NDArray[np.int64]) -> Batch:
        some = known[np.sort(rng.permutation(len(known))[:_ALIKE])]
        return simulator.summaries(simulator.observe_like(some, donors[rows], rng))

    return SupportByNoise(ours, theirs, rng, observe=alike, threads=threads)


def support_flags(
    context: Context, observations: Observations, scales: dict[bytes, SupportScale]
) -> tuple[str, ...]:
    """Return the flags of every object that :func:`infer_in_memory` gives.

    ``scales`` keeps those of objects that all have the same errors and missing elements.
    """
    if len(observations) == 0:
        return ()
    donors = Donors()
    donors.add(observations)
    alike = _alike(donors.batch)
    scale = scales.get(alike) or support_scale(context, donors.batch[:1] if alike else donors.batch)
    if alike:
        scales[alike] = scale
    percentile, far = scale.compare(context.simulator.summaries(observations.batch))
    return tuple(map(outside_flags, percentile, far, scale.errors_outside(observations.batch)))


def _alike(batch: Batch) -> bytes:
    """Return errors and missing elements of objects if they are all the same, else b""."""
    _, err, mask = flat_arrays(batch)
    rows = np.concatenate([err, mask], 1)
    return rows[0].tobytes() if (rows == rows[0]).all() else b""


def catalogue_flags(context: Context, observations: Observations) -> list[str]:
    """Return the flags of objects as a whole: more outside than chance explains, some far outside.

    The scale is that of :func:`infer_in_memory`.
    """
    if len(observations) == 0:
        return []
    donors = Donors()
    donors.add(observations)
    scale = support_scale(context, donors.batch)
    percentile, far = scale.compare(context.simulator.summaries(observations.batch))
    outside = int((percentile > OUTSIDE).sum())
    words = {
        "objects_outside_training": more_than_chance(outside, len(observations)),
        "objects_far_outside_training": far.any(),
        "errors_outside_training": scale.errors_matter(observations.batch),
    }
    return [word for word, present in words.items() if present]


def prior_draws(context: Context) -> F64:
    """Return 1000 draws of the prior (n, d): simulated parameters where it has no density."""
    rng = stream(context.config.seed, "prior")
    if all(p.prior.has_density for p in context.space.parameters):
        return context.space.sample(_PRIOR_DRAWS, rng)
    theta = known_rows(context.training).theta
    assert theta is not None
    rows = rng.integers(len(theta), size=_PRIOR_DRAWS)
    return np.asarray(theta.double().cpu().numpy()[rows][:, list(context.training.columns)])
