r"""Support score: is an observation like the simulations?

Two distances of x to the simulated set, each sensitive to what the other misses: Mahalanobis,

.. math:: d^2 = (x - \mu)^T (\Sigma + \mathrm{diag}(\sigma^2))^{-1} (x - \mu),

over the observed elements (turned into a probability with the chi-squared distribution of their
number, so that objects with different missing elements compare), and the distance to the k-th
nearest simulation in whitened space (complete objects only). The score is the percentile of the
larger of the two among simulations that were given the errors and missing elements of the
observed objects: 1 % of well-specified objects score above 99.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from sbi_core.batch import Batch

__all__ = ["support_percentile"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MISSING = 1e12  # variance of an element that was not observed
_MAX_FEATURES = 64  # beyond that, distances are taken in principal components
_MAX_SIMULATIONS = 50_000


def support_percentile(
    observed: Batch,
    simulated: Batch,
    rng: np.random.Generator,
    *,
    neighbours: int = 10,
    references: int = 4000,
) -> F64:
    """Return the support percentile of every observed object, (n,), 0 to 100.

    Parameters
    ----------
    observed
        Noisy objects with errors and mask.
    simulated
        Noise-free simulations, failed rows removed.
    rng
        Chooses the reference simulations and their noise.
    neighbours
        k of the nearest-neighbour distance.
    references
        Simulations that set the percentiles.
    """
    if len(observed) == 0:
        return np.empty(0)
    x, err, mask = _arrays(observed)
    pool = _flat(simulated)
    pool = pool[rng.permutation(len(pool))[:_MAX_SIMULATIONS]]
    count = min(references, max(len(pool) // 3, 1))
    ref, train = pool[:count], pool[count:] if len(pool) > count else pool
    donor = rng.integers(len(x), size=len(ref))  # errors and missing elements as in the data
    ref_err, ref_mask = err[donor], mask[donor]
    ref_x = ref + ref_err * rng.standard_normal(ref.shape)
    if x.shape[1] > _MAX_FEATURES:
        mean, axes = _components(train)
        x, ref_x = (
            np.where(mask, x - mean, 0.0) @ axes,
            np.where(ref_mask, ref_x - mean, 0.0) @ axes,
        )
        train = (train - mean) @ axes
        err = np.sqrt((np.where(mask, err, 0.0) ** 2) @ axes**2)
        ref_err = np.sqrt((np.where(ref_mask, ref_err, 0.0) ** 2) @ axes**2)
        mask, ref_mask = np.ones_like(x, bool), np.ones_like(ref_x, bool)
    width = np.sqrt((np.where(mask, err, 0.0) ** 2).sum(0) / np.maximum(mask.sum(0), 1))
    ours = _scores(x, err, mask, train, neighbours, width)
    theirs = _scores(ref_x, ref_err, ref_mask, train, neighbours, width)
    combined = [_percentiles(o, t) for o, t in zip(ours, theirs, strict=True)]
    reference = [_percentiles(t, t) for t in theirs]
    return _percentiles(np.fmax(*combined), np.fmax(*reference))


def _flat(batch: Batch) -> F64:
    return batch.x.reshape(len(batch), -1).double().cpu().numpy()


def _arrays(batch: Batch) -> tuple[F64, F64, Mask]:
    n = len(batch)
    mask = batch.observed.reshape(n, -1).cpu().numpy()
    x = np.where(mask, _flat(batch), 0.0)
    err = np.zeros_like(x)
    if batch.x_err is not None:
        err = np.where(mask, batch.x_err.reshape(n, -1).double().cpu().numpy(), 0.0)
    return x, err, mask


def _components(train: F64) -> tuple[F64, F64]:
    mean = train.mean(0)
    _, _, rows = np.linalg.svd(train[:4000] - mean, full_matrices=False)
    return mean, rows[: _MAX_FEATURES // 2].T


def _scores(
    x: F64, err: F64, mask: Mask, train: F64, neighbours: int, width: F64
) -> tuple[F64, F64]:
    """Return both scores, larger is stranger; the second is NaN for incomplete objects.

    Neighbours are sought in space whitened with the typical noise added, lest noise along
    directions in which simulations hardly differ outweighs all others.
    """
    mean = train.mean(0)
    cov = np.cov(train.T).reshape(len(mean), len(mean)) + 1e-12 * np.eye(len(mean))
    noise = np.where(mask, err**2, _MISSING)
    full = cov + noise[:, :, None] * np.eye(len(mean))
    residual = np.where(mask, x - mean, 0.0)
    d2 = np.einsum("ni,ni->n", residual, np.linalg.solve(full, residual[..., None])[..., 0])
    # log of the tail probability: chi-squared tails underflow for far outliers
    dof = np.maximum(mask.sum(1), 1)
    tail = special.gammaincc(dof / 2, d2 / 2)
    first = np.where(tail > 1e-290, -np.log(np.maximum(tail, 1e-290)), 668.0 + d2 / 2)
    scale = np.linalg.inv(np.linalg.cholesky(cov + np.diag(width**2)))
    tree = cKDTree((train - mean) @ scale.T)
    k = min(neighbours, len(train))
    distance = np.full(len(x), np.nan)
    complete = mask.all(1)
    if complete.any():
        found, _ = tree.query((x[complete] - mean) @ scale.T, k=[k])
        distance[complete] = found[:, 0]
    return first, distance


def _percentiles(values: F64, reference: F64) -> F64:
    """Return the percentile of values among finite references; NaN stays NaN."""
    known = np.sort(reference[np.isfinite(reference)])
    if known.size == 0:
        return np.full(len(values), np.nan)
    below = np.searchsorted(known, values, side="left")
    return np.where(np.isfinite(values), 100.0 * below / known.size, np.nan)
