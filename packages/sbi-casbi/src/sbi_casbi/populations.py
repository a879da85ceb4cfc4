r"""Populations: the prior of the number and the properties of accreted galaxies.

``uniform``
    N uniform; snapshots uniform (embedded library: log M uniform, tau = 0.7 + 13 Beta(1.6, 2)).
``cosmological``
    N uniform; dN/dM ~ M^-1.25, earlier infall, tau = 0.7 + 13 Beta(1.6, 3.2).
``budget``
    Masses drawn from M^-1.25, up to the remainder of a fixed accreted mass; N follows.

The first two are weights on snapshots,

.. math:: w_i \propto p_\mathrm{target}(\log M_i, \tau_i) / p_\mathrm{library}(\log M_i, \tau_i),

drawn without replacement. The parameters of a halo are exactly those of its snapshots.

References:
    | Viterbo & Buck 2024, arXiv:2411.17269, section 2 (the budget sampler)
    | Cunningham et al. 2022, ApJ 934, 172; Deason et al. 2023, MNRAS 520, 6091
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from sbi_casbi.library import Library, Split
from sbi_core import ConfigError

__all__ = ["BudgetRule", "Draw", "budget_sets", "draw_sets", "snapshot_weights"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_TAU = (0.7, 13.0)  # offset and width of the law of infall times [Gyr]
_MASS_CELLS, _TAU_CELLS, _SMOOTHING = 100, 64, 3.0
_LARGEST_WEIGHT = 20.0  # in units of the mean
_ALPHA = 1.25


@dataclass(frozen=True, slots=True)
class Draw:
    """Snapshots of n halos.

    Parameters
    ----------
    rows
        Snapshot numbers by decreasing mass, (n, K), of which the first N of a row are used.
    count
        N, (n,).
    """

    rows: I64
    count: I64

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True for members, False for padding, (n, K)."""
        return np.asarray(np.arange(self.rows.shape[1])[None, :] < self.count[:, None])


def _uniform(log_mstar: F64, tau: F64) -> F64:
    return np.asarray(stats.beta.pdf((tau - _TAU[0]) / _TAU[1], 1.6, 2.0))


def _cosmological(log_mstar: F64, tau: F64) -> F64:
    beta = stats.beta.pdf((tau - _TAU[0]) / _TAU[1], 1.6, 3.2)
    return np.asarray(10 ** ((1.0 - _ALPHA) * (log_mstar - 7.0)) * beta)


_TARGETS: dict[str, Callable[[F64, F64], F64]] = {
    "uniform": _uniform,
    "cosmological": _cosmological,
}


def snapshot_weights(library: Library, population: str, split: Split) -> tuple[I64, F64]:
    """Return the snapshots of a split and their probabilities, which sum to one.

    Raises
    ------
    ConfigError
        If the population is unknown, or has no weights.
    """
    if population not in _TARGETS:
        msg = f"population '{population}' has no weights; known: {', '.join(_TARGETS)}"
        raise ConfigError(msg)
    rows = library.rows(split)
    if population == "uniform" and not library.is_embedded:
        return rows, np.full(len(rows), 1.0 / len(rows))
    mass, tau = library.log_mstar[rows], library.tau[rows]
    w = _TARGETS[population](mass, tau) / _density(mass, tau)
    w = np.minimum(w, _LARGEST_WEIGHT * w.mean())
    return rows, w / w.sum()


def _density(mass: F64, tau: F64) -> F64:
    """Return the density of snapshots in (log M, tau) at every snapshot, up to a constant."""
    edges = [
        np.linspace(v.min() - 1e-6, v.max() + 1e-6, k + 1)
        for v, k in ((mass, _MASS_CELLS), (tau, _TAU_CELLS))
    ]
    counts, _, _ = np.histogram2d(mass, tau, bins=edges)
    smooth = ndimage.gaussian_filter(counts, _SMOOTHING, mode="reflect")
    place = [
        np.clip((v - e[0]) / (e[1] - e[0]) - 0.5, 0, len(e) - 2)
        for v, e in zip((mass, tau), edges, strict=True)
    ]
    return np.maximum(ndimage.map_coordinates(smooth, place, order=1, mode="nearest"), 1e-9)


def draw_sets(
    rows: I64, weight: F64, mass: F64, count: I64, size: int, rng: np.random.Generator
) -> Draw:
    """Draw ``count`` snapshots for every halo, without replacement.

    Parameters
    ----------
    rows, weight
        Snapshots and their probabilities.
    mass
        log10 M_star of all snapshots of the library; members are sorted by it.
    count
        N of every halo, (n,).
    size
        K, largest number of members.
    rng
        Random generator.

    Raises
    ------
    ConfigError
        If a halo needs more snapshots than there are.
    """
    if count.max(initial=0) > len(rows):
        msg = (
            f"a halo of {count.max()} members needs as many snapshots, but this split of the "
            f"library has {len(rows)}: use a larger library or fewer members"
        )
        raise ConfigError(msg)
    n = len(count)
    cumulative = np.cumsum(weight)
    cumulative[-1] = 1.0
    used = np.arange(size)[None, :] < count[:, None]
    drawn = np.searchsorted(cumulative, rng.random((n, size)), side="right")
    drawn = np.where(used, drawn, -1 - np.arange(size))  # padding is unique
    while True:  # redraw repetitions: successive sampling
        again = _repeated(drawn) & used
        if not again.any():
            break
        drawn[again] = np.searchsorted(cumulative, rng.random(int(again.sum())), side="right")
    chosen = np.where(used, rows[np.maximum(drawn, 0)], 0)
    order = np.argsort(np.where(used, -mass[chosen], np.inf), axis=1, kind="stable")
    return Draw(np.take_along_axis(chosen, order, axis=1), count)


def _repeated(drawn: I64) -> NDArray[np.bool_]:
    """Return True where an entry repeats an earlier one of its row."""
    order = np.argsort(drawn, axis=1, kind="stable")
    ranked = np.take_along_axis(drawn, order, axis=1)
    same = np.zeros(drawn.shape, bool)
    same[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
    out = np.zeros(drawn.shape, bool)
    np.put_along_axis(out, order, same, axis=1)
    return out


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """The sampler of the CASBI paper.

    Parameters
    ----------
    total
        Accreted stellar mass [Msun].
    alpha
        Slope of dN/dM ~ M^-alpha.
    tolerance
        Largest relative difference between a drawn mass and that of the snapshot used.
    retries
        Largest number of consecutive draws without a matching snapshot.
    enough
        Fraction of the total mass from which a halo without further matches is accepted.
    """

    total: float = 1.41e9
    alpha: float = _ALPHA
    tolerance: float = 0.10
    retries: int = 10
    enough: float = 0.95


def budget_sets(
    rows: I64, mass: F64, n: int, size: int, rule: BudgetRule, rng: np.random.Generator
) -> Draw:
    """Draw n halos of the budget sampler; at most ``size`` members each.

    Raises
    ------
    ConfigError
        If the library cannot fill the budget.
    """
    order = rows[np.argsort(mass[rows], kind="stable")]
    linear = 10 ** mass[order]
    if linear.sum() < rule.total:
        msg = f"the library holds {linear.sum():.3g} Msun, less than the budget {rule.total:.3g}"
        raise ConfigError(msg)
    out, count = np.zeros((n, size), np.int64), np.zeros(n, np.int64)
    for k in range(n):
        members = _one_budget(linear, size, rule, rng)
        out[k, : len(members)], count[k] = order[members][::-1], len(members)
    return Draw(out, count)


def _one_budget(linear: F64, size: int, rule: BudgetRule, rng: np.random.Generator) -> I64:
    """Return the indices of one halo's members in the list of increasing masses."""
    for _ in range(1000):
        used: set[int] = set()
        remaining, missed = rule.total, 0
        while len(used) < size and remaining > linear[0] and missed <= rule.retries:
            highest = min(remaining, linear[-1])
            wanted = _power_law(linear[0], highest, rule.alpha, rng.random())
            place = _nearest_unused(linear, wanted, used)
            if abs(linear[place] / wanted - 1.0) > rule.tolerance or linear[place] > remaining:
                missed += 1
                continue
            used.add(place)
            remaining, missed = remaining - linear[place], 0
        stuck = missed > rule.retries
        if used and (not stuck or remaining <= (1.0 - rule.enough) * rule.total):
            return np.array(sorted(used))
    msg = "no halo of the budget could be filled in 1000 trials: use a larger library"
    raise ConfigError(msg)


def _power_law(low: float, high: float, alpha: float, u: float) -> float:
    """Return a draw of M^-alpha between two masses."""
    a = 1.0 - alpha
    return float((low**a + u * (high**a - low**a)) ** (1.0 / a))


def _nearest_unused(linear: F64, wanted: float, used: set[int]) -> int:
    """Return the index of the nearest unused mass."""
    up = int(np.searchsorted(linear, wanted))
    down = up - 1
    while up in used:
        up += 1
    while down in used:
        down -= 1
    if up >= len(linear):
        return max(down, 0)
    if down < 0 or linear[up] - wanted < wanted - linear[down]:
        return up
    return down
