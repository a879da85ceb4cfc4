r"""The Gaussian rule with a floor under its error.

.. math:: P = I + \sum_i (P_i - I), \qquad P\mu = \sum_i P_i\mu_i, \qquad C = P^{-1} + f^2 I

in unconstrained space, where the prior N(0, I) is divided out N - 1 times.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sbi_core import Gaussian, MomentCombiner, MomentConfig, ObjectMoments

__all__ = ["FlooredCombiner", "FlooredConfig"]


class FlooredConfig(MomentConfig):
    """Options of the combiner."""

    floor: float = Field(0.01, ge=0, description="Common error, in sigma of the prior.")


class FlooredCombiner(MomentCombiner):
    """Precision-weighted combination, plus a common error (see the module)."""

    name = "floored"
    config: FlooredConfig

    def __init__(self, config: FlooredConfig | None = None) -> None:
        self.config = config or FlooredConfig()

    def solve(self, objects: ObjectMoments) -> tuple[Gaussian, dict[str, float], tuple[str, ...]]:
        """Combine the objects."""
        identity = np.eye(objects.information.shape[1])
        precision = identity + (objects.precision - identity).sum(0)
        cov = np.linalg.inv(precision)
        mean = cov @ objects.information.sum(0)
        return Gaussian(mean, cov + self.config.floor**2 * identity), {}, ()
