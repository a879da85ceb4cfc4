"""Values and probabilities of discrete priors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sbi_core.errors import ConfigError
from sbi_core.priors.families import FAMILIES, Discrete
from sbi_core.priors.space import Prior

__all__ = ["discrete_table"]

F64 = NDArray[np.float64]


def discrete_table(prior: Prior) -> tuple[F64, F64]:
    """Return the values of a discrete prior that have any probability, increasing, and these.

    Raises
    ------
    ConfigError
        If the prior is not discrete.
    """
    made = FAMILIES[prior.family]
    if not issubclass(made, Discrete):
        msg = f"prior {prior} is not discrete"
        raise ConfigError(msg)
    values, pmf = made.table(prior.values)
    order = np.argsort(values)
    order = order[pmf[order] > 0]
    return values[order], pmf[order]
