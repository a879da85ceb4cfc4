r"""Affine-invariant ensemble sampling: the stretch move.

A walker :math:`X_k` moves along the line through another one, :math:`Y = X_j + s(X_k - X_j)`
with :math:`g(s) \propto 1/\sqrt s` on :math:`[1/a, a]`, and is kept with probability
:math:`\min(1, s^{d-1} p(Y)/p(X_k))`; one half of the walkers moves along the other.

References:
    | Goodman & Weare 2010, Comm. App. Math. Comp. Sci. 5, 65
    | Foreman-Mackey et al. 2013, PASP 125, 306 (emcee)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["stretch_sample"]

F64 = NDArray[np.float64]
_A = 2.0


def stretch_sample(
    log_density: Callable[[F64], F64], start: F64, steps: int, rng: np.random.Generator
) -> tuple[F64, float]:
    """Return the walkers after every step, (steps, walkers, d), and the accepted fraction.

    Parameters
    ----------
    log_density
        Of points (n, d), (n,).
    start : (walkers, d)
        An even number of walkers, at least 2 d.
    steps
        Moves of every walker.
    rng
        Random numbers.
    """
    x, (walkers, d) = start.copy(), start.shape
    log_p = log_density(x)
    halves = np.arange(walkers).reshape(2, -1)
    chain, accepted = np.empty((steps, walkers, d)), 0
    for step in range(steps):
        for mine, others in (halves, halves[::-1]):
            s = ((_A - 1) * rng.random(len(mine)) + 1) ** 2 / _A
            anchor = x[rng.choice(others, len(mine))]
            proposal = anchor + s[:, None] * (x[mine] - anchor)
            new = log_density(proposal)
            keep = np.log(rng.random(len(mine))) < (d - 1) * np.log(s) + new - log_p[mine]
            x[mine[keep]], log_p[mine[keep]] = proposal[keep], new[keep]
            accepted += int(keep.sum())
        chain[step] = x
    return chain, accepted / (steps * walkers)
