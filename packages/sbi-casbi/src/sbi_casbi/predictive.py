r"""Posterior predictive check: planes predicted by the posterior, compared with the observed one.

The planes of posterior draws are those of the nearest snapshots of the library. If the simulations
vary the zero points of the abundances, or yields and outflows, which move planes similarly, each
draw is moved to the observed mean abundances, within two standard deviations. The deviance

.. math:: D = \min_s 2 \sum_p \left[n_p \ln\frac{n_p}{\lambda_{sp}} - (n_p - \lambda_{sp})\right]

over 16 x 16 pixels, for the best draw s, increases with the number of stars even for perfect
inference, because galaxies of equal mass and infall time differ. It is therefore compared with that
of simulated halos of held-out galaxies: the result is the percentile of the residual of log D from
a linear fit in the logarithm of the number of stars and in the errors of both abundances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.plane import PIXELS, Plane
from sbi_casbi.populations import Draw
from sbi_core import Batch

if TYPE_CHECKING:
    from sbi_casbi.members import MemberSamples
    from sbi_casbi.simulator import CasbiSimulator

__all__ = ["UNLIKE_POSTERIOR", "deviance", "deviance_percentile", "predictive_planes"]

F64 = NDArray[np.float64]
UNLIKE_POSTERIOR = 99.0  # percentile above which a halo is flagged
_POOL = 4
_BLOCK = 256  # halos predicted at a time
_N_PIXELS = PIXELS * PIXELS


def predictive_planes(
    simulator: CasbiSimulator, members: MemberSamples, x: NDArray[np.float32], draws: int
) -> F64:
    """Return expected counts per pixel (draws, n, 64, 64) of sets from the posterior.

    Parameters
    ----------
    simulator
        Its library provides the planes.
    members
        Draws of sets for n halos.
    x
        Rows of the observed halos, (n, 4100), for their errors and (counts ``shape``) star counts.
    draws
        Number of draws to use.
    """
    blocks = [slice(k, k + _BLOCK) for k in range(0, max(len(x), 1), _BLOCK)]
    parts = [_planes(simulator, members[rows], x[rows], draws) for rows in blocks]
    return np.concatenate(parts, axis=1)


def _planes(
    simulator: CasbiSimulator, members: MemberSamples, x: NDArray[np.float32], draws: int
) -> F64:
    s, n = min(draws, len(members.count)), x.shape[0]
    values = members.values[:s].reshape(s * n, *members.values.shape[2:]).astype(float)
    count = members.count[:s].reshape(s * n)
    sets = np.where(np.arange(values.shape[1])[None, :, None] < count[:, None, None], values, 0.0)
    draw: Draw = simulator.nearest(sets, count)
    errors = np.tile(x[:, -2:].astype(float), (s, 1))
    rate, _ = simulator.rates(draw, errors[:, 0], errors[:, 1], np.zeros((2, s * n)))
    most = 2.0 * np.hypot(simulator.config.zero_point, simulator.config.physics_spread)
    if most:
        observed = np.tile(_means(simulator.library.plane, x[:, :_N_PIXELS]), (1, s))
        shift = np.clip(observed - _means(simulator.library.plane, rate), -most, most)
        rate, _ = simulator.rates(draw, errors[:, 0], errors[:, 1], shift)
    if simulator.config.counts == "shape":
        total = np.tile(10.0 ** x[:, _N_PIXELS + 1], s)
        rate = rate * total[:, None]
    return np.asarray(rate.reshape(s, n, PIXELS, PIXELS), float)


def _means(plane: Plane, counts: NDArray[np.float32]) -> F64:
    """Return the mean abundances [dex] of planes (n, 4096), (2, n)."""
    shaped = counts.reshape(-1, PIXELS, PIXELS).astype(float)
    total = np.maximum(shaped.sum((1, 2)), 1e-9)
    fe_h, alpha_fe = (0.5 * (edges[1:] + edges[:-1]) for edges in plane.edges)
    sums = [shaped.sum(2) @ fe_h, shaped.sum(1) @ alpha_fe]
    return np.stack(sums) / total


def deviance(x: NDArray[np.float32], planes: F64) -> F64:
    """Return D of every halo (n,), from rows (n, 4100) and planes (draws, n, 64, 64)."""
    counts = _pooled(x[:, :_N_PIXELS].reshape(-1, PIXELS, PIXELS).astype(float))
    rate = np.maximum(_pooled(planes), 0.05)
    ratio = np.where(counts > 0, np.maximum(counts, 1e-9) / rate, 1.0)
    terms = counts * np.log(ratio) - (counts - rate)
    return np.asarray(2.0 * terms.sum((-2, -1)).min(0))


def _pooled(planes: F64) -> F64:
    k = PIXELS // _POOL
    shaped = planes.reshape(*planes.shape[:-2], k, _POOL, k, _POOL)
    return np.asarray(shaped.sum((-3, -1)))


def deviance_percentile(
    simulator: CasbiSimulator,
    estimator: Any,
    x: NDArray[np.float32],
    planes: F64,
    rng: np.random.Generator,
    *,
    references: int = 400,
) -> F64:
    """Return the percentile (n,) of the deviance of halos among simulated ones.

    Parameters
    ----------
    simulator, estimator
        Simulator and estimator of the reference halos.
    x, planes
        Observed halos and their predictive planes (draws, n, 64, 64).
    rng
        Random generator.
    references
        Number of simulated halos of held-out galaxies.
    """
    draws = len(planes)
    batch: Batch = simulator.observe(simulator.draw_from(references, rng, "test"), rng)
    members = estimator.sample_members(batch, draws, rng)
    ref_x = batch.x.numpy()
    theirs = deviance(ref_x, predictive_planes(simulator, members, ref_x, draws))
    ours = deviance(x, planes)
    terms, mine = (_terms(v) for v in (ref_x, x))
    fit = np.linalg.lstsq(terms, np.log(theirs + 1.0), rcond=None)[0]
    reference = np.sort(np.log(theirs + 1.0) - terms @ fit)
    residual = np.log(ours + 1.0) - mine @ fit
    return np.asarray(100.0 * np.searchsorted(reference, residual, side="left") / references)


def _terms(x: NDArray[np.float32]) -> F64:
    """Return the terms of the linear fit, (n, 4)."""
    stars = np.maximum(x[:, :_N_PIXELS].sum(1, dtype=float), 1.0)
    return np.column_stack([np.ones(len(x)), np.log10(stars), x[:, -2:]])
