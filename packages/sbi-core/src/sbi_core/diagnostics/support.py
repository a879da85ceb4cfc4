r"""Support score: detection of out-of-distribution observations.

Two complementary distances of x to the simulated set are used: Mahalanobis,

.. math:: d^2 = (x - \mu)^T (\Sigma + \mathrm{diag}(\sigma^2))^{-1} (x - \mu),

over the observed elements (turned into a probability with the chi-squared distribution of their
number, so that objects with different missing elements compare), and the distance to the k-th
nearest simulation in whitened space (complete objects only). The score is the percentile of the
larger of the two among simulations that were given the errors and missing elements of the
observed objects: 1 % of well-specified objects score above 99. Beyond the reference simulations
the percentile is 100; objects more than three times as far as the most distant one are *far*
outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from sbi_core.data.batch import Batch

__all__ = [
    "SupportScale",
    "compared",
    "distance_percentile",
    "flat_arrays",
    "more_than_chance",
    "support_percentile",
]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MISSING = 1e12  # variance of an element that was not observed
_MAX_FEATURES = 64  # beyond that, distances are taken in principal components
_MAX_SIMULATIONS = 50_000
_DEAD = 1e-6  # columns that vary less than this, relative to the widest, are left out
_FLAT = 1e-10  # and directions with less than this share of the largest correlation eigenvalue
_ROWS = 500  # points at a time
_NEIGHBOURS = 10  # the distance is that to the tenth neighbour
_EPS = 0.2  # largest relative error of this distance: 1 % or less of 99 % of them, in half the time
_MATTERS = 0.05  # share of objects, or of their inverse variance
_BEYOND = 1.1  # ratio to the smallest and largest errors in training that is allowed
_FAR = (9.0, 3.0)  # times the largest scores of the references: -log p grows as the square of sigma
_EXPECTED = 0.01  # share of well-specified objects above the 99th percentile
_CHANCE = 0.02  # p-value of a catalogue below which it is reported


def support_percentile(
    observed: Batch, simulated: Batch, rng: np.random.Generator, *, references: int = 4000
) -> F64:
    """Return the support percentile of observed objects, (n,); see :class:`SupportScale`."""
    if len(observed) == 0:
        return np.empty(0)
    return SupportScale(observed, simulated, rng, references=references).compare(observed)[0]


class SupportScale:
    """The scale of the support score for objects with errors and masks like those of ``donors``.

    Objects of a catalogue that is read in parts are scored on one scale.

    Parameters
    ----------
    donors
        Objects whose errors and missing elements the reference simulations are given.
    simulated
        Noise-free simulations, failed rows removed; missing values are NaN, with a mask.
    rng
        Chooses the reference simulations and their noise.
    references
        Simulations that set the percentiles.
    observe
        Returns reference simulations with errors and missing elements of random donors. Default:
        with Gaussian noise of these errors.
    trained
        Simulations observed as in training; without them no errors are compared.
    threads
        That look for neighbours; the results do not depend on them.
    """

    def __init__(
        self,
        donors: Batch,
        simulated: Batch,
        rng: np.random.Generator,
        *,
        references: int = 4000,
        observe: Callable[[Batch], Batch] | None = None,
        trained: Batch | None = None,
        threads: int = 1,
    ) -> None:
        x, err, mask = flat_arrays(donors)
        rows = rng.permutation(len(simulated))[:_MAX_SIMULATIONS]
        pool = _flat(simulated)[rows]
        count = min(references, max(len(pool) // 3, 1))
        ref, train = pool[:count], _filled(pool[count:] if len(pool) > count else pool)
        if observe is None:
            donor = rng.integers(len(x), size=len(ref))  # errors and missing elements as in data
            ref_err, ref_mask = err[donor], mask[donor] & np.isfinite(ref)
            ref_x = ref + ref_err * rng.standard_normal(ref.shape)
        else:
            ref_x, ref_err, ref_mask = flat_arrays(observe(simulated[rows[:count]]))
        self._errors = None if trained is None else _error_range(trained)
        self._axes = _components(train) if x.shape[1] > _MAX_FEATURES else None
        if self._axes is not None:
            mean, axes = self._axes
            train = (train - mean) @ axes
        _, err, mask = self._projected(x, err, mask)
        width = np.sqrt((np.where(mask, err, 0.0) ** 2).sum(0) / np.maximum(mask.sum(0), 1))
        self._fitted = _fit(train, width, threads)
        self._theirs = _scores(self._fitted, *self._projected(ref_x, ref_err, ref_mask))

    def compare(self, observed: Batch) -> tuple[F64, NDArray[np.bool_]]:
        """Return the support percentile of every object, and True where it is far outside, (n,)."""
        if len(observed) == 0:
            return np.empty(0), np.empty(0, bool)
        return compared(self.scores(observed), self._theirs)

    def scores(self, batch: Batch) -> tuple[F64, F64]:
        """Return both distances of every object, (n,) each, larger for stranger objects."""
        return _scores(self._fitted, *self._projected(*flat_arrays(batch)))

    def errors_outside(self, observed: Batch) -> NDArray[np.bool_]:
        """Return True for objects with an error that does not occur in training, (n,)."""
        if len(observed) == 0 or self._errors is None or observed.x_err is None:
            return np.zeros(len(observed), bool)
        _, err, mask = flat_arrays(observed)
        least, most = self._errors
        return np.asarray((mask & ((err < least / _BEYOND) | (err > most * _BEYOND))).any(1))

    def errors_matter(self, observed: Batch) -> bool:
        """Return True if such objects are more than 5 % of all, or of the inverse variance."""
        outside = self.errors_outside(observed)
        if not outside.any():
            return False
        _, err, mask = flat_arrays(observed)
        weight = np.where(mask, 1 / np.where(mask, err, 1.0) ** 2, 0.0).sum(1)
        share = weight[outside].sum() / weight.sum()
        return bool(max(outside.mean(), share) > _MATTERS)

    def _projected(self, x: F64, err: F64, mask: Mask) -> tuple[F64, F64, Mask]:
        """Return the data in principal components, where there are too many features."""
        if self._axes is None:
            return x, err, mask
        mean, axes = self._axes
        flat = np.where(mask, x - mean, 0.0) @ axes
        return flat, np.sqrt((np.where(mask, err, 0.0) ** 2) @ axes**2), np.ones_like(flat, bool)


def _filled(train: F64) -> F64:
    """Return simulations (n, k) with the means of the elements for missing values."""
    missing = np.isnan(train)
    if not missing.any():
        return train
    number = np.maximum((~missing).sum(0), 1)
    return np.where(missing, np.where(missing, 0.0, train).sum(0) / number, train)


def _flat(batch: Batch) -> F64:
    return batch.x.reshape(len(batch), -1).double().cpu().numpy()


def flat_arrays(batch: Batch) -> tuple[F64, F64, Mask]:
    """Return data and errors, 0 where not observed, and mask, each (n, k), in float64."""
    n = len(batch)
    mask = batch.observed.reshape(n, -1).cpu().numpy()
    x = np.where(mask, _flat(batch), 0.0)
    err = np.zeros_like(x)
    if batch.x_err is not None:
        err = np.where(mask, batch.x_err.reshape(n, -1).double().cpu().numpy(), 0.0)
    return x, err, mask


def _error_range(trained: Batch) -> tuple[F64, F64] | None:
    """Return the smallest and largest error of every element, (k,), if there are errors."""
    if trained.x_err is None:
        return None
    _, err, mask = flat_arrays(trained)
    least = np.where(mask, err, np.inf).min(0, initial=np.inf)
    most = np.where(mask, err, 0.0).max(0, initial=0.0)
    never = ~mask.any(0)  # elements that training always masks
    return np.where(never, 0.0, least), np.where(never, np.inf, most)


def _components(train: F64) -> tuple[F64, F64]:
    mean = train.mean(0)
    _, _, rows = np.linalg.svd(train[:4000] - mean, full_matrices=False)
    return mean, rows[: _MAX_FEATURES // 2].T


class _Fitted(NamedTuple):
    """Moments of the simulations, and their neighbours' tree in whitened space."""

    mean: F64
    cov: F64
    scale: F64
    tree: cKDTree
    threads: int


def _fit(train: F64, width: F64, threads: int) -> _Fitted:
    """Neighbours are sought in space whitened with the typical noise added.

    Otherwise noise along directions in which simulations hardly differ outweighs all others.
    """
    mean = train.mean(0)
    cov = np.cov(train.T).reshape(len(mean), len(mean)) + 1e-12 * np.eye(len(mean))
    scale = np.linalg.inv(np.linalg.cholesky(cov + np.diag(width**2)))
    return _Fitted(mean, cov, scale, cKDTree((train - mean) @ scale.T), threads)


def _scores(fitted: _Fitted, x: F64, err: F64, mask: Mask) -> tuple[F64, F64]:
    """Return both scores, larger for stranger objects; the second is NaN for incomplete ones."""
    mean, cov, scale, tree, threads = fitted
    noise = np.where(mask, err**2, _MISSING)
    full = cov + noise[:, :, None] * np.eye(len(mean))
    residual = np.where(mask, x - mean, 0.0)
    d2 = np.einsum("ni,ni->n", residual, np.linalg.solve(full, residual[..., None])[..., 0])
    # log of the tail probability: chi-squared tails underflow for far outliers
    dof = np.maximum(mask.sum(1), 1)
    tail = special.gammaincc(dof / 2, d2 / 2)
    first = np.where(tail > 1e-290, -np.log(np.maximum(tail, 1e-290)), 668.0 + d2 / 2)
    k = min(_NEIGHBOURS, tree.n)
    distance = np.full(len(x), np.nan)
    complete = mask.all(1)
    if complete.any():
        points = (x[complete] - mean) @ scale.T
        nearest, _ = tree.query(points, k=[k], eps=_EPS, workers=threads)
        distance[complete] = nearest[:, 0]
    return first, distance


def compared(ours: tuple[F64, F64], theirs: tuple[F64, F64]) -> tuple[F64, NDArray[np.bool_]]:
    """Compare two scores (n,) with those of references (r,).

    Returns the percentile of the larger one, and True where one is far beyond all references.
    """
    largest = [np.max(t[np.isfinite(t)], initial=0.0) for t in theirs]
    far = [o > factor * most for o, factor, most in zip(ours, _FAR, largest, strict=True)]
    larger = np.fmax(*(_percentiles(o, t) for o, t in zip(ours, theirs, strict=True)))
    reference = np.fmax(*(_percentiles(t, t) for t in theirs))
    return _percentiles(larger, reference), np.any(far, axis=0)


def _percentiles(values: F64, reference: F64) -> F64:
    """Return the percentile of values among finite references; NaN stays NaN."""
    known = np.sort(reference[np.isfinite(reference)])
    if known.size == 0:
        return np.full(len(values), np.nan)
    below = np.searchsorted(known, values, side="left")
    return np.where(np.isfinite(values), 100.0 * below / known.size, np.nan)


def more_than_chance(outside: int, objects: int) -> bool:
    """Return True if more objects lie above the 99th percentile than chance explains.

    One-sided binomial test of the expected 1 % at p < 0.02, so that one object of one or two is
    enough, and four of a hundred.
    """
    return bool(outside) and float(stats.binom.sf(outside - 1, objects, _EXPECTED)) < _CHANCE


# -- points without errors ------------------------------------------------------------------


def distance_percentile(
    points: F64, simulated: F64, reference: F64 | None = None, *, neighbours: int = 0
) -> F64:
    r"""Return the percentile (n,), 0 to 100, of the distance of points from simulated ones.

    For points without errors, such as the summaries that a trained network makes of data. With
    mean and covariance C of the simulated points,

    .. math:: w = W\,(x - \bar x), \qquad W^\top W = C^{+}, \qquad
              D_0 = |w|, \qquad D_k = |w - w_{(k)}| ,

    the distance is :math:`D_0` (Mahalanobis 1936) or that to the k-th nearest simulated point,
    which is also sensitive to holes and bends of the distribution.

    Parameters
    ----------
    points
        (n, d).
    simulated
        (m, d), determine mean and covariance.
    reference
        (r, d), determine the percentiles. Needed when there are few simulated points per dimension,
        whose own distances are then too small. Default: the simulated points.
    neighbours
        0: distance from the mean; k: from the k-th nearest simulated point.

    Raises
    ------
    ValueError
        If the numbers of columns differ, a value is not finite, or there are fewer than two
        simulated points, or fewer than ``neighbours + 1``.
    """
    others = simulated if reference is None else reference
    _check(neighbours, points=points, simulated=simulated, reference=others)
    mean, axes = _whitening(simulated)
    mine, theirs = (points - mean) @ axes, (others - mean) @ axes
    if neighbours:
        near = (simulated - mean) @ axes
        own = reference is None  # every simulated point is nearest to itself
        ours = _to_neighbour(mine, near, neighbours)
        known = _to_neighbour(theirs, near, neighbours + own)
    else:
        ours, known = np.linalg.norm(mine, axis=1), np.linalg.norm(theirs, axis=1)
    return _percentiles(ours, known)


def _whitening(simulated: F64) -> tuple[F64, F64]:
    """Return the mean (d,) and axes (d, e) to project on; e directions have variance."""
    spread = simulated.std(0)
    varies = spread > _DEAD * spread.max(initial=0.0)
    unit = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
    values, vectors = np.linalg.eigh(np.cov((simulated * unit).T).reshape(len(unit), len(unit)))
    wide = values > _FLAT * values.max(initial=0.0)
    return simulated.mean(0), unit[:, None] * vectors[:, wide] / np.sqrt(values[wide])


def _to_neighbour(points: F64, simulated: F64, k: int) -> F64:
    """Return the distance of every point to the k-th nearest simulated one.

    All pairs are computed: in tens of dimensions a tree visits nearly all of them, and is slower.
    """
    square = (simulated**2).sum(1)
    distance = np.empty(len(points))
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        off = square - 2.0 * points[rows] @ simulated.T
        distance[rows] = np.partition(off, k - 1, axis=1)[:, k - 1] + (points[rows] ** 2).sum(1)
    return np.sqrt(np.maximum(distance, 0.0))


def _check(neighbours: int, **arrays: F64) -> None:
    shapes = {name: np.shape(a) for name, a in arrays.items()}
    if any(len(s) != 2 for s in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        words = ", ".join(f"{name} {s}" for name, s in shapes.items())
        raise ValueError(f"distances need arrays (rows, d) of one d, not {words}")
    least = max(2, neighbours + 1)
    if neighbours < 0 or shapes["simulated"][0] < least or not shapes["reference"][0]:
        raise ValueError(
            f"distances (neighbours = {neighbours}) need at least {least} simulated points and one "
            f"of reference, not {shapes['simulated'][0]} and "
            f"{shapes['reference'][0]}"
        )
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
