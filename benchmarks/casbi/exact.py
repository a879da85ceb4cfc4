r"""The exact posterior on a small library, by enumeration of all sets.

On a discrete library the likelihood of a halo is explicit. For counts ``shape`` it is multinomial,

.. math:: \ln p(x\,|\,S) = \sum_p x_p \ln \frac{\sum_{i \in S} M_i P_{ip}}{\sum_{i \in S} M_i},

and for ``absolute`` Poisson with rates :math:`\kappa \sum_{i \in S} M_i P_{ip}`. The prior of a
set is that of N times that of N snapshots drawn without replacement, which is uniform over sets
when all snapshots weigh the same. For N up to 3 every set of a library of some tens of snapshots
can be visited.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.plane import PIXELS
from sbi_casbi.populations import Draw
from sbi_core import ConfigError

if TYPE_CHECKING:
    from sbi_casbi.simulator import CasbiSimulator

__all__ = ["ExactPosterior", "enumerate_sets", "exact_posterior"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_MOST_SETS = 500_000


@dataclass(frozen=True)
class ExactPosterior:
    """All sets of one halo, and their posterior probabilities.

    Parameters
    ----------
    sets
        Snapshots of every set by decreasing mass, padded with -1, (m, N_max).
    probability
        Posterior probabilities, (m,).
    """

    sets: I64
    probability: F64

    @property
    def count(self) -> I64:
        """N of every set, (m,)."""
        return np.asarray((self.sets >= 0).sum(1))

    def pmf(self, counts: I64) -> F64:
        """Return p(N) of some values of N, like ``counts``."""
        return np.array([self.probability[self.count == n].sum() for n in counts])

    @property
    def ess(self) -> float:
        """Effective number of sets in the posterior."""
        return float(1.0 / np.square(self.probability).sum())

    def sample(self, draws: int, rng: np.random.Generator) -> I64:
        """Return sets (draws, N_max)."""
        return self.sets[rng.choice(len(self.sets), draws, p=self.probability)]


def enumerate_sets(rows: I64, mass: F64, n_min: int, n_max: int) -> I64:
    """Return all sets of n_min..n_max snapshots by decreasing mass, padded with -1.

    Raises
    ------
    ConfigError
        If there are more than half a million.
    """
    total = sum(comb(len(rows), n) for n in range(n_min, n_max + 1))
    if total > _MOST_SETS:
        msg = f"{total} sets of {len(rows)} snapshots are too many to enumerate"
        raise ConfigError(msg)
    ordered = rows[np.argsort(-mass[rows], kind="stable")]
    parts = []
    for n in range(n_min, n_max + 1):
        sets = np.array(list(combinations(ordered, n)), np.int64).reshape(-1, n)
        parts.append(np.pad(sets, ((0, 0), (0, n_max - n)), constant_values=-1))
    return np.concatenate(parts)


def exact_posterior(
    simulator: CasbiSimulator, x: NDArray[np.float32], sets: I64, planes: F64 | None = None
) -> ExactPosterior:
    """Return the exact posterior of one halo, snapshots and N equally likely a priori.

    Parameters
    ----------
    simulator
        Its library and counts; no zero-point shifts.
    x
        Row of the halo, (4100,); it must have the errors of ``planes``.
    sets
        All sets (m, N_max), see :func:`enumerate_sets`.
    planes
        Unit-mass planes of all snapshots, (snapshots, 4097) with the overflow last; default:
        computed with the errors of the halo.
    """
    if planes is None:
        planes = unit_planes(simulator, float(x[-2]), float(x[-1]))
    counts = x[: PIXELS * PIXELS + 1].astype(float)
    seen = np.flatnonzero(counts)
    mass = np.where(sets >= 0, 10 ** simulator.library.log_mstar[np.maximum(sets, 0)], 0.0)
    log_l = np.empty(len(sets))
    local = planes[:, seen]
    for k in range(0, len(sets), 20_000):
        part = slice(k, k + 20_000)
        rate = np.einsum("mi,mip->mp", mass[part], local[np.maximum(sets[part], 0)])
        total = mass[part].sum(1)
        if simulator.config.counts == "shape":
            share = np.maximum(rate / total[:, None], 1e-12)
            log_l[part] = np.log(share) @ counts[seen]
        else:
            kappa = simulator.config.kappa or 0.0
            log_l[part] = np.log(np.maximum(kappa * rate, 1e-12)) @ counts[seen] - kappa * total
    n = (sets >= 0).sum(1)
    per_n = np.bincount(n)[n]  # N uniform: the sets of one N share its probability
    log_p = log_l - np.log(per_n)
    p = np.exp(log_p - log_p.max())
    return ExactPosterior(sets, p / p.sum())


def unit_planes(simulator: CasbiSimulator, sigma_fe: float, sigma_o: float) -> F64:
    """Return planes of single snapshots with given errors, (snapshots, 4097), each summing to 1."""
    n = len(simulator.library)
    out = np.empty((n, PIXELS * PIXELS + 1))
    for k in range(0, n, 256):
        rows = np.arange(k, min(k + 256, n))
        draw = Draw(rows[:, None], np.ones(len(rows), np.int64))
        zeros = np.zeros((2, len(rows)))
        errors = np.full(len(rows), sigma_fe), np.full(len(rows), sigma_o)
        inside, outside = simulator.rates(draw, *errors, zeros)
        both = np.concatenate([inside, outside[:, None]], axis=1).astype(float)
        out[rows] = both / both.sum(1, keepdims=True)
    return out
