r"""Posterior predictive check: planes predicted by the posterior, compared with the observed one.

The planes of posterior draws are those of the nearest snapshots of the library. If the simulations
vary the zero points of the abundances, or yields and outflows, which move planes similarly, each
draw is moved to the observed mean abundances, within two standard deviations. If they vary yields
and outflows (:mod:`sbi_casbi.physics`), Gauss-Newton steps for the square roots of the counts fit
these deviations, with their prior. The deviance

.. math:: D = \min_s 2 \sum_p \left[n_p \ln\frac{n_p}{\lambda_{sp}} - (n_p - \lambda_{sp})\right]

over 16 x 16 pixels, for the best draw s, increases with the number of stars even for perfect
inference, because galaxies of equal mass and infall time differ. It is therefore compared with that
of simulated halos of held-out galaxies: the result is the percentile of the residual of log D from
a linear fit in the logarithm of the number of stars and in the errors of both abundances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.physics import Physics
from sbi_casbi.plane import N_PIXELS, PIXELS, Plane
from sbi_casbi.populations import Draw
from sbi_core import Batch

if TYPE_CHECKING:
    from sbi_casbi.members import MemberSamples
    from sbi_casbi.simulator import CasbiSimulator

__all__ = [
    "PREDICTIVE",
    "UNLIKE_POSTERIOR",
    "deviance",
    "deviance_percentile",
    "predictive_planes",
    "reference_deviances",
]

F64 = NDArray[np.float64]
UNLIKE_POSTERIOR = 99.0  # percentile above which a halo is flagged
PREDICTIVE = 8  # predictive planes per halo
_POOL = 4
_STEPS, _MOST = 2, 2.5  # Gauss-Newton steps, and largest deviation in them
_BLOCK = 256  # halos predicted at a time


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
    seen = np.tile(x[:, : N_PIXELS + 2], (s, 1))
    errors = np.tile(x[:, -2:].astype(float), (s, 1))
    rate = _fitted(simulator, draw, seen, errors)
    return np.asarray(rate.reshape(s, n, PIXELS, PIXELS), float)


def _fitted(
    simulator: CasbiSimulator, draw: Draw, seen: NDArray[np.float32], errors: F64
) -> NDArray[np.float32]:
    """Return expected counts (n, 4096), moved as far as the simulations vary."""
    c, plane = simulator.config, simulator.library.plane
    stars = 10.0 ** seen[:, N_PIXELS + 1 :].astype(float)
    total = stars if c.counts == "shape" else np.ones_like(stars)

    def rate(shift: F64, physics: Physics | None = None) -> NDArray[np.float32]:
        expected, _ = simulator.rates(draw, errors[:, 0], errors[:, 1], shift, physics)
        return np.asarray(expected * total, np.float32)

    shift = np.zeros((2, len(seen)))
    first = rate(shift)
    most = 2.0 * np.hypot(c.zero_point, c.physics_spread)
    if most:
        shift = np.clip(_means(plane, seen[:, :N_PIXELS]) - _means(plane, first), -most, most)
        first = rate(shift)
    if c.physics_spread:
        return _with_physics(lambda g: rate(shift, Physics.of(g, c.physics_spread)), first, seen)
    return first


def _with_physics(
    rate: Callable[[F64], NDArray[np.float32]],
    first: NDArray[np.float32],
    seen: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return expected counts (n, 4096) after Gauss-Newton steps in the deviations g (7, n)."""
    n, k = len(seen), len(Physics.__slots__)
    target, best = _roots(seen), first
    g = np.zeros((n, k))
    cost = ((target - _roots(first)) ** 2).sum(1)
    for _ in range(_STEPS):
        start = _roots(best)
        slopes = np.empty((n, k, start.shape[1]))
        for j in range(k):
            slopes[:, j] = _roots(rate((g + np.eye(k)[j]).T)) - start
        system = slopes @ slopes.transpose(0, 2, 1) + np.eye(k)
        wanted = slopes @ (target - start)[..., None] - g[..., None]
        tried = (g + np.linalg.solve(system, wanted)[..., 0]).clip(-_MOST, _MOST)
        moved = rate(tried.T)
        new = ((target - _roots(moved)) ** 2).sum(1) + (tried**2).sum(1)
        better = (new < cost)[:, None]
        best, g = np.where(better, moved, best), np.where(better, tried, g)
        cost = np.minimum(new, cost)
    return best


def _roots(counts: NDArray[np.float32]) -> F64:
    """Return twice the square roots of counts of 4 x 4 pixels (n, 256): their noise is one."""
    shaped = _pooled(counts[:, :N_PIXELS].reshape(-1, PIXELS, PIXELS).astype(float))
    return np.asarray(2.0 * np.sqrt(shaped.reshape(len(counts), -1) + 0.375))


def _means(plane: Plane, counts: NDArray[np.float32]) -> F64:
    """Return the mean abundances [dex] of planes (n, 4096), (2, n)."""
    shaped = counts.reshape(-1, PIXELS, PIXELS).astype(float)
    total = np.maximum(shaped.sum((1, 2)), 1e-9)
    fe_h, alpha_fe = (0.5 * (edges[1:] + edges[:-1]) for edges in plane.edges)
    sums = [shaped.sum(2) @ fe_h, shaped.sum(1) @ alpha_fe]
    return np.stack(sums) / total


def deviance(x: NDArray[np.float32], planes: F64) -> F64:
    """Return D of every halo (n,), from rows (n, 4100) and planes (draws, n, 64, 64)."""
    counts = _pooled(x[:, :N_PIXELS].reshape(-1, PIXELS, PIXELS).astype(float))
    rate = np.maximum(_pooled(planes), 0.05)
    ratio = np.where(counts > 0, np.maximum(counts, 1e-9) / rate, 1.0)
    terms = counts * np.log(ratio) - (counts - rate)
    return np.asarray(2.0 * terms.sum((-2, -1)).min(0))


def _pooled(planes: F64) -> F64:
    k = PIXELS // _POOL
    shaped = planes.reshape(*planes.shape[:-2], k, _POOL, k, _POOL)
    return np.asarray(shaped.sum((-3, -1)))


def reference_deviances(
    simulator: CasbiSimulator,
    estimator: Any,
    rng: np.random.Generator,
    *,
    draws: int = PREDICTIVE,
    halos: int = 400,
) -> tuple[F64, F64]:
    """Return D of simulated halos of held-out galaxies (r,), and the terms of the fit (r, 4).

    Parameters
    ----------
    simulator, estimator
        Simulator and estimator of the halos.
    rng
        Random generator.
    draws
        Predictive planes per halo.
    halos
        Number of halos.
    """
    batch: Batch = simulator.observe(simulator.draw_from(halos, rng, "test"), rng)
    members = estimator.sample_members(batch, draws, rng)
    x = batch.x.numpy()
    return deviance(x, predictive_planes(simulator, members, x, draws)), _terms(x)


def deviance_percentile(x: NDArray[np.float32], planes: F64, theirs: F64, terms: F64) -> F64:
    """Return the percentile (n,) of the deviance of halos among simulated ones.

    Parameters
    ----------
    x, planes
        Observed halos and their predictive planes (draws, n, 64, 64).
    theirs, terms
        See :func:`reference_deviances`; of as many draws.
    """
    fit = np.linalg.lstsq(terms, np.log(theirs + 1.0), rcond=None)[0]
    reference = np.sort(np.log(theirs + 1.0) - terms @ fit)
    residual = np.log(deviance(x, planes) + 1.0) - _terms(x) @ fit
    return np.asarray(100.0 * np.searchsorted(reference, residual, side="left") / len(theirs))


def _terms(x: NDArray[np.float32]) -> F64:
    """Return the terms of the linear fit, (n, 4)."""
    stars = np.maximum(x[:, :N_PIXELS].sum(1, dtype=float), 1.0)
    return np.column_stack([np.ones(len(x)), np.log10(stars), x[:, -2:]])
