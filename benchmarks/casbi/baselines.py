r"""Baselines: the simulated halos with the most similar planes, or with as many stars.

The sets of the k simulated halos nearest to an observed one are draws of an approximate posterior
(1-NN for k = 1, otherwise rejection sampling with a tolerance of k / n). Distances are Euclidean in

``nearest``
    the plane: :math:`2\sqrt{n_p + 3/8}` in 16 x 16 pixels, which has unit Poisson noise,
``count``
    the logarithm of the number of stars alone.

The probabilities of N are the frequencies among the neighbours, with the prior as an additional
neighbour: :math:`(k\,f(N) + \pi(N)) / (k + 1)`.

References:
    | Anscombe 1948, Biometrika 35, 246
    | Beaumont, Zhang & Balding 2002, Genetics 162, 2025
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sbi_casbi.members import MemberSamples
from sbi_casbi.plane import PIXELS
from sbi_casbi.sets.diagnostics import pmf_of_draws
from sbi_core import Batch, ConfigError

__all__ = ["Rule", "neighbour_pmf", "neighbour_sets"]

F64 = NDArray[np.float64]
Rule = Literal["nearest", "count"]
_POOL = 4


def neighbour_sets(
    known: Batch, observed: Batch, names: tuple[str, ...], *, rule: Rule, k: int = 50
) -> MemberSamples:
    """Return the sets of the k simulated halos nearest to every observed one.

    Parameters
    ----------
    known
        Simulated halos, observed (with noise), with ``theta_set`` and ``theta_mask``.
    observed
        Halos to infer.
    names
        Names of the parameters of a member.
    rule
        ``nearest`` or ``count``.
    k
        Neighbours.

    Raises
    ------
    ConfigError
        If the simulations have no sets, or are fewer than k.
    """
    if known.theta_set is None or known.theta_mask is None:
        msg = "the simulations hold no sets of members (theta_set, theta_mask)"
        raise ConfigError(msg)
    if len(known) < k:
        msg = f"{k} neighbours of {len(known)} simulated halos: give more halos or a smaller k"
        raise ConfigError(msg)
    tree = cKDTree(_features(known, rule))
    near = tree.query(_features(observed, rule), k=[*range(1, k + 1)])[1].T
    values = known.theta_set.float().numpy()[near]
    count = known.theta_mask.sum(1).numpy()[near]
    return MemberSamples(values, count, names, np.arange(len(observed)).astype(str))


def neighbour_pmf(sets: MemberSamples, counts: NDArray[np.int64], prior: F64) -> F64:
    """Return the probabilities of N (n, R) of neighbours' sets.

    Parameters
    ----------
    sets
        Neighbours as draws.
    counts
        Values of N, increasing by one, (R,).
    prior
        Their prior probabilities, (R,).
    """
    k = len(sets.count)
    share = pmf_of_draws(sets.count, int(counts[0]), int(counts[-1]))
    return np.asarray((k * share + prior) / (k + 1))


def _features(batch: Batch, rule: Rule) -> F64:
    stars = batch.x[:, : PIXELS * PIXELS + 1].double().numpy()
    if rule == "count":
        return np.log10(np.maximum(stars.sum(1, keepdims=True), 1.0))
    side = PIXELS // _POOL
    pooled = stars[:, :-1].reshape(-1, side, _POOL, side, _POOL).sum((2, 4))
    return np.asarray(2.0 * np.sqrt(pooled.reshape(len(stars), -1) + 0.375))
