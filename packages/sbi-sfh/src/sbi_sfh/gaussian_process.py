r"""Star formation histories through a few points of the mass growth curve.

Knots (x, y), with x = t/T and y = M(<t)/M: (0, 0), (0.01, 0), the N drawn times at which i/(N+1) of
the mass had formed, three knots that fix the recent star formation, (1, 1). With
:math:`r = 10^{\log M - \log \mathrm{SFR} - 9}/T` and :math:`\delta = 1 - (1 - c)\,r` for
c = 0.97, 0.98, 0.99, the recent knot is :math:`(\delta, c)` if :math:`\delta` exceeds 0.9 and the
knot before, and :math:`(c, 1 - (1 - c)/r)` otherwise. The curve is the mean of a Gaussian process,

.. math:: y(x_*) = K(x_*, x)\,[K + \mathrm{diag}(\epsilon^2)]^{-1}\,y, \qquad
          k(a, b) = v\left[(1 + \sqrt3\rho)\,e^{-\sqrt3\rho} + \frac{(ab)^2}{e^m}\right],
          \quad \rho = \frac{|a - b|}{\sqrt m}

with v and m the variance and the median of the nine y. A Gaussian process is not monotone: between
close knots it oscillates. Negative star formation is set to zero and the rest normalised; the
removed fraction is returned as the overshoot. ``pchip`` is a monotone curve through the same knots:
another prior.

References:
    | Iyer et al. 2019, ApJ 879, 116 (GP-SFH)
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (prior of the quenched histories)
    | Fritsch & Butland 1984, SIAM J. Sci. Stat. Comput. 5, 300 (monotone cubic)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowthCurves", "draw_inputs", "growth_curves", "knots"]

F64 = NDArray[np.float64]
PriorName = Literal["quenched", "iyer19"]
_QUENCH = (0.97, 0.98, 0.99)
_JITTER = 1.25e-12
_CHUNK = 256  # histories whose (1000, 9) kernels are in the cache together


@dataclass(frozen=True, slots=True)
class GrowthCurves:
    """Mass growth of n histories.

    Parameters
    ----------
    cumulative
        Fraction of the mass formed before each of the m times, (n, m), never decreasing.
    overshoot
        Negative mass that was removed, as a fraction of the total, (n,).
    knots_crossed
        True where knots of recent star formation lie before a drawn one, (n,).
    finite
        False where the Gaussian process had no finite solution or no mass is left, (n,).
    """

    cumulative: F64
    overshoot: F64
    knots_crossed: NDArray[np.bool_]
    finite: NDArray[np.bool_]


def draw_inputs(n: int, prior: PriorName, rng: np.random.Generator) -> tuple[F64, F64]:
    """Draw knots and recent star formation.

    Parameters
    ----------
    n
        Number of histories.
    prior
        ``iyer19``: Dirichlet(5, 5, 5, 5), log sSFR ~ U(-12, -7.5) per yr. ``quenched``: flat
        Dirichlet, log SFR ~ U(-50, 0) and log M ~ U(9, 12) in solar masses (per yr).
    rng
        Random numbers.

    Returns
    -------
    times : (n, 3)
        x of the drawn knots, increasing, in units of T.
    log_ssfr : (n,)
        log10 of recent star formation over mass [1/yr], the only combination that matters.
    """
    if prior == "iyer19":
        parts = rng.dirichlet([5.0] * 4, n)
        log_ssfr = rng.uniform(-12.0, -7.5, n)
    else:
        parts = rng.dirichlet([1.0] * 4, n)
        log_ssfr = rng.uniform(-50.0, 0.0, n) - rng.uniform(9.0, 12.0, n)
    return np.cumsum(parts[:, :3], axis=1), log_ssfr


def knots(times: F64, log_ssfr: F64, end: float) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Return x and y of the nine knots, (n, 9), and whether recent ones precede drawn ones, (n,).

    Parameters
    ----------
    times : (n, 3)
        x of the drawn knots.
    log_ssfr : (n,)
        log10 of recent star formation over mass [1/yr].
    end : Gyr
        T.
    """
    n, drawn = times.shape
    with np.errstate(over="ignore"):
        r = 10.0 ** (-log_ssfr - 9.0) / end
    x = [np.zeros(n), np.full(n, 0.01), *times.T]
    y = [np.zeros(n), np.zeros(n), *(np.full(n, i / (drawn + 1)) for i in range(1, drawn + 1))]
    for c in _QUENCH:
        delta = 1.0 - (1.0 - c) * r
        late = (delta > x[-1]) & (delta > 0.9)
        x.append(np.where(late, delta, c))
        y.append(np.where(late, c, 1.0 - (1.0 - c) / r))
    crossed = x[2 + drawn] < times[:, -1]
    x.append(np.ones(n))
    y.append(np.ones(n))
    return np.stack(x, 1), np.stack(y, 1), crossed


def growth_curves(
    times: F64,
    log_ssfr: F64,
    end: float,
    *,
    points: int = 1000,
    interp: Literal["gp", "pchip"] = "gp",
) -> GrowthCurves:
    """Return growth curves on ``points`` equally spaced times from 0 to T.

    Parameters
    ----------
    times : (n, 3)
        x of the drawn knots, increasing, in (0, 1).
    log_ssfr : (n,)
        log10 of recent star formation over mass [1/yr].
    end : Gyr
        T.
    points
        Number of times.
    interp
        ``gp`` or ``pchip``.
    """
    x, y, crossed = knots(times, log_ssfr, end)
    grid = np.linspace(0.0, 1.0, points)
    raw = np.empty((len(x), points))
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        raw[part] = (_gp if interp == "gp" else _pchip)(x[part], y[part], grid)
    bins = np.diff(raw, axis=1, prepend=raw[:, :1])
    finite = np.isfinite(bins).all(1)
    bins[~finite] = 1.0 / points
    below = -np.minimum(bins, 0.0).sum(1)
    total = np.abs(bins.sum(1))
    bins = np.maximum(bins, 0.0)
    cumulative = np.cumsum(bins, axis=1)
    mass = cumulative[:, -1:]
    finite &= mass[:, 0] > 0
    cumulative /= np.where(mass > 0, mass, 1.0)
    return GrowthCurves(cumulative, below / np.maximum(total, 1e-12), crossed, finite)


def _kernel(a: F64, b: F64, v: F64, m: F64) -> F64:
    rate = np.sqrt(3.0 / m)[:, None]
    rho = rate[:, :, None] * np.abs(a[:, :, None] - b[:, None, :])
    # exp(-|d|) as the smaller of two quotients: a ninth of the exponentials
    quotient = np.exp(rate * a)[:, :, None] * np.exp(-rate * b)[:, None, :]
    matern = (1.0 + rho) * np.minimum(quotient, 1.0 / quotient)
    linear = (a[:, :, None] * b[:, None, :]) ** 2 / np.exp(m)[:, None, None]
    return np.asarray(v[:, None, None] * (matern + linear))


def _gp(x: F64, y: F64, grid: F64) -> F64:
    drawn = x.shape[1] - 6
    noise = np.full(x.shape[1], _JITTER)
    noise[2 : 2 + drawn] += (0.001 / np.sqrt(drawn)) ** 2
    v, m = y.var(axis=1), np.median(y, axis=1)
    k = _kernel(x, x, v, m) + np.diag(noise)
    weights = np.full_like(y, np.nan)
    good = np.isfinite(k).all((1, 2))
    try:
        weights[good] = np.linalg.solve(k[good], y[good][..., None])[..., 0]
    except np.linalg.LinAlgError:  # one singular system spoils the stack: one by one
        for j in np.flatnonzero(good):
            try:
                weights[j] = np.linalg.solve(k[j], y[j])
            except np.linalg.LinAlgError:
                continue
    stars = np.broadcast_to(grid, (len(x), len(grid)))
    return np.asarray((_kernel(stars, x, v, m) @ weights[..., None])[..., 0])


def _pchip(x: F64, y: F64, grid: F64) -> F64:
    """Monotone cubic through the knots, in order and made non-decreasing; (n, m)."""
    order = np.argsort(x, axis=1, kind="stable")
    x = np.take_along_axis(x, order, 1)
    y = np.maximum.accumulate(np.take_along_axis(y, order, 1), axis=1)
    steps = 1e-6 * np.arange(x.shape[1])
    x = np.maximum.accumulate(x - steps, axis=1) + steps  # ties become 1e-6 apart
    return monotone_cubic(x, y, grid)


def monotone_cubic(x: F64, y: F64, at: F64) -> F64:
    """Return monotone cubic interpolants of n curves.

    Parameters
    ----------
    x, y : (n, k)
        Points, x strictly increasing, y not decreasing.
    at : (m,) or (n, m)
        Where; outside of the points the ends are kept.

    Returns
    -------
    (n, m)

    Notes
    -----
    Source: Fritsch & Butland 1984, weighted harmonic mean of the neighbouring slopes.
    """
    h = np.diff(x, axis=1)
    s = np.diff(y, axis=1) / h
    w1, w2 = 2 * h[:, 1:] + h[:, :-1], h[:, 1:] + 2 * h[:, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (w1 + w2) / (w1 / s[:, :-1] + w2 / s[:, 1:])
    inner = np.where((s[:, :-1] > 0) & (s[:, 1:] > 0), inner, 0.0)
    d = np.concatenate(
        [_end(h[:, 0], h[:, 1], s[:, 0], s[:, 1]), inner,
         _end(h[:, -1], h[:, -2], s[:, -1], s[:, -2])], axis=1
    )  # fmt: skip
    where = np.clip(np.broadcast_to(at, (len(x), np.shape(at)[-1])), x[:, :1], x[:, -1:])
    left = np.stack(
        [np.searchsorted(row, a, side="right") for row, a in zip(x, where, strict=True)]
    )
    left = np.clip(left - 1, 0, x.shape[1] - 2)
    pick = lambda values: np.take_along_axis(values, left, 1)  # noqa: E731
    width = pick(h)
    t = (where - pick(x)) / width
    y0, y1 = pick(y), np.take_along_axis(y, left + 1, 1)
    d0, d1 = pick(d), np.take_along_axis(d, left + 1, 1)
    return np.asarray(
        (1 + 2 * t) * (1 - t) ** 2 * y0
        + t * (1 - t) ** 2 * width * d0
        + t**2 * (3 - 2 * t) * y1
        + t**2 * (t - 1) * width * d1
    )


def _end(h0: F64, h1: F64, s0: F64, s1: F64) -> F64:
    """Three-point slope at an end, limited so that the curve stays monotone; (n, 1)."""
    d = ((2 * h0 + h1) * s0 - h0 * s1) / (h0 + h1)
    d = np.where(d <= 0, 0.0, d)
    return np.minimum(d, 3 * s0)[:, None]
