r"""Formation times of galaxies at their own redshifts.

The model observes all galaxies at one age of the Universe T, and a spectrum depends on the ages of
the stars, :math:`T - t`. A galaxy at another redshift, where the Universe has the age
:math:`T_g`, formed them at

.. math:: t_g = t - (T - T_g) .

Draws in which a tenth of the stars is older than the Universe at that redshift are replaced by
others of the same galaxy: the prior is the one of the model, given :math:`t_{10} \ge T - T_g`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AGE", "at_own_age", "delays", "possible_draws"]

F64 = NDArray[np.float64]
AGE = "age_universe"  # label of the observations, Gyr


def delays(labels: Mapping[str, NDArray[Any]], n: int, end: float) -> F64:
    """Return T - T_g of n galaxies, Gyr; 0 for galaxies without a redshift.

    Parameters
    ----------
    labels
        Of the observations: ``age_universe`` is T_g, NaN where not known.
    n
        Galaxies.
    end
        T, Gyr.
    """
    own = np.asarray(labels.get(AGE, np.full(n, np.nan)), np.float64)
    return np.asarray(np.where(np.isfinite(own), end - own, 0.0))


def possible_draws(first: F64, delay: float) -> tuple[NDArray[np.int64], float]:
    """Return the rows (S,) to use in place of all S draws, and the share that is possible.

    Parameters
    ----------
    first : (S,) Gyr
        Times by which the first fraction of the stars had formed, since the Big Bang in the model.
    delay
        T - T_g, Gyr.
    """
    every = np.arange(len(first))
    possible = np.flatnonzero(first >= delay)
    if len(possible) in (0, len(first)):
        return every, len(possible) / len(first)
    spread = np.linspace(0, len(possible) - 1, len(first) - len(possible)).round().astype(int)
    rows = every.copy()
    rows[first < delay] = possible[spread]
    return rows, len(possible) / len(first)


def at_own_age(theta: F64, delay: float, times: int) -> F64:
    """Return draws (S, d) whose first columns, ``times`` of them, count to the galaxy's age.

    A negative delay takes times since the Big Bang at the redshift of the galaxy back to those of
    the model.
    """
    out = theta.copy()
    out[:, :times] = np.maximum(theta[:, :times] - delay, 0.0)
    return out
