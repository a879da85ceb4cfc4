r"""Times by which fractions of all stars had formed.

.. math:: t_q = \min\{t : M(<t) \ge q\,M(<T)\}

with M linear between the points of the time grid. Flat stretches take the left-most crossing; times
are then kept apart by :math:`10^{-6}\,T`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["crossing_times", "keep_apart", "names_of"]

F64 = NDArray[np.float64]
_SEPARATION = 1e-6  # of T


def names_of(fractions: Sequence[float]) -> tuple[str, ...]:
    """Return the names of percentiles: 0.1 is ``t10``, 0.995 is ``t99_5``."""
    return tuple(f"t{100 * q:g}".replace(".", "_") for q in fractions)


def crossing_times(cumulative: ArrayLike, time: ArrayLike, fractions: Sequence[float]) -> F64:
    """Return the times at which cumulative mass reaches fractions of its last value.

    Parameters
    ----------
    cumulative : (n, m)
        Mass formed before each time; never decreasing.
    time : (m,) Gyr
        Increasing.
    fractions : (k,)
        Between 0 and 1, increasing.

    Returns
    -------
    (n, k) Gyr
    """
    mass, t = np.asarray(cumulative, np.float64), np.asarray(time, np.float64)
    total = mass[:, -1:]
    out = np.empty((len(mass), len(fractions)))
    rows = np.arange(len(mass))
    for k, q in enumerate(fractions):
        level = q * total[:, 0]
        right = np.maximum((mass >= level[:, None]).argmax(1), 1)
        low, high = mass[rows, right - 1], mass[rows, right]
        step = np.where(high > low, high - low, 1.0)
        part = np.clip((level - low) / step, 0.0, 1.0)
        out[:, k] = t[right - 1] + part * (t[right] - t[right - 1])
    return keep_apart(out, float(t[-1]))


def keep_apart(times: F64, end: float) -> F64:
    """Return increasing times at least 1e-6 of ``end`` apart and before it, (n, k) Gyr."""
    gap = _SEPARATION * end
    k = times.shape[1]
    steps = gap * np.arange(k)
    times = np.maximum.accumulate(times - steps, axis=1) + steps
    latest = end - gap * np.arange(k, 0, -1)
    return np.asarray(np.clip(np.minimum(times, latest), gap * np.arange(1, k + 1), None))
