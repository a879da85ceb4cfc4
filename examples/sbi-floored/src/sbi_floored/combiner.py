r"""The Gaussian rule with a floor under its error.

.. math:: P = I + \sum_i (P_i - I), \qquad P\mu = \sum_i P_i\mu_i, \qquad C = P^{-1} + f^2 I

in unconstrained space, where the prior is N(0, I): it is divided out N - 1 times.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sbi_core import CombinedPosterior, Combiner, Observations, Posterior, Rng, as_generator

__all__ = ["FlooredCombiner", "FlooredConfig"]


class FlooredConfig(BaseModel):
    """Options of the combiner."""

    model_config = ConfigDict(extra="forbid")

    floor: float = Field(0.01, ge=0, description="common error, in sigma of the prior")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


class FlooredCombiner(Combiner):
    """Precision-weighted combination, plus a common error (see the module)."""

    name = "floored"

    def __init__(self, config: FlooredConfig | None = None) -> None:
        self.config = config or FlooredConfig()

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects."""
        gen = as_generator(rng)
        space = posterior.space.select("global")
        keep = posterior.select([p.name for p in space.parameters])
        mean, cov, _ = posterior.gaussian_moments(observations.batch, rng=gen)
        each = np.linalg.inv(cov[:, keep][:, :, keep])
        identity = np.eye(len(keep))
        precision = identity + (each - identity).sum(0)
        z_mean = np.linalg.solve(precision, np.einsum("nij,nj->i", each, mean[:, keep]))
        z_cov = np.linalg.inv(precision) + self.config.floor**2 * identity
        z = gen.multivariate_normal(z_mean, z_cov, self.config.samples)
        samples = space.from_unconstrained(z)
        return CombinedPosterior(
            self.name,
            space,
            len(observations),
            mean=samples.mean(0),
            cov=np.atleast_2d(np.cov(samples.T)),
            samples=samples,
            z_mean=z_mean,
            z_cov=z_cov,
        )
