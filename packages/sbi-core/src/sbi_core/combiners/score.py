r"""Combination by scores: a diffusion towards the posterior of all objects at once.

A score network gives the gradient of every single-object posterior at every noise level t. The
scores of N objects do not simply add up at t > 0; with Gaussian denoising posteriors they do when
weighted by their precisions,

.. math:: \hat s(z, t) = \Lambda_t^{-1}\left[\sum_i \Lambda_{i,t}\, s_i(z, t)
          - (N-1)\,\Lambda_{0,t}\, s_0(z, t)\right], \qquad
          \Lambda_t = \sum_i \Lambda_{i,t} - (N-1)\,\Lambda_{0,t}, \qquad
          \Lambda_{i,t} = P_i + \frac{m_t^2}{\sigma_t^2} I,

with the precision :math:`P_i` of posterior i, the prior as i = 0 (N(0, I) in unconstrained space),
and the schedule :math:`m_t, \sigma_t` of the network. At t = 0 this is the exact score of the
product for posteriors of any shape; only the path at t > 0 is approximate. Needs the estimator
``sbi-npse`` on the shared parameters alone. A single object has the posterior of the estimator.

References:
    | Linhart et al. 2024, https://arxiv.org/abs/2404.07593 (GAUSS)
    | Geffner et al. 2022, https://arxiv.org/abs/2209.14249
    | Arruda et al. 2025, https://arxiv.org/abs/2505.14429
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field

from sbi_core.combiners.gaussian import combine_moments
from sbi_core.combiners.moments import Gaussian, ObjectMoments, object_moments, shared_alone
from sbi_core.components import Combiner, Rng
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator
from sbi_core.validation import Options

__all__ = ["ScoreCombiner", "ScoreConfig"]


class ScoreConfig(Options):
    """Options of the score combiner."""

    steps: int = Field(200, ge=20, description="steps of the diffusion")
    draws: int = Field(
        500, ge=50, description="draws per object that give the precision of its posterior"
    )
    samples: int = Field(1000, ge=100, description="draws of the combined posterior")


class ScoreCombiner(Combiner):
    """Compositional score sampling with sbi's ``auto_gauss`` weights (see the module).

    See Also
    --------
    sbi_core.combiners.product : the same without diffusion, for estimators with densities.
    """

    name = "score"

    def __init__(self, config: ScoreConfig | None = None) -> None:
        self.config = config or ScoreConfig()

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects.

        Raises
        ------
        ConfigError
            If the estimator is not a score network, or infers parameters that are not shared.
        """
        gen = as_generator(rng)
        estimator = _score_network(posterior)
        space = shared_alone(posterior, self.name)
        moments = object_moments(posterior, observations, draws=self.config.draws)
        start, smallest = combine_moments(moments, Gaussian.standard(space.z_dim))
        n = len(observations)
        if n == 0:
            return self._result(space, n, start, None, gen)
        if n == 1:
            theta = posterior.estimator.sample(observations.batch, self.config.samples, gen)
            z = space.to_unconstrained(theta[:, 0])
        else:
            z = self._draw(estimator, observations, moments, gen)
        found = Gaussian(z.mean(0), np.atleast_2d(np.cov(z.T)))
        result = self._result(space, n, found, z, gen)
        root = np.linalg.cholesky(start.cov)
        off = np.linalg.solve(root, found.mean - start.mean)
        facts = {
            "smallest_precision_ratio": smallest,
            "offset_from_gaussian_sigma": float(np.abs(off).max()),
        }
        return replace(result, diagnostics=facts)

    def _draw(
        self,
        estimator: Any,
        observations: Observations,
        moments: ObjectMoments,
        rng: np.random.Generator,
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        from sbi_core.adapters.sbi import VectorFieldHead, combined_draws

        head = estimator.network.head
        assert isinstance(head, VectorFieldHead)
        c = self.config
        noise = rng.standard_normal((c.steps + 1, c.samples, moments.information.shape[1]))
        z = combined_draws(
            head,
            estimator._features(observations.batch),
            torch.as_tensor(moments.precision),
            torch.as_tensor(noise),
        )
        return np.asarray(z.double().cpu().numpy())

    def _result(
        self,
        space: ParameterSpace,
        n: int,
        found: Gaussian,
        z: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None,
        rng: np.random.Generator,
    ) -> CombinedPosterior:
        result = combined_from_gaussian(
            self.name, space, n, found.mean, found.cov, draws=self.config.samples, rng=rng
        )
        return result if z is None else replace(result, samples=space.from_unconstrained(z))


def _score_network(posterior: Posterior) -> Any:
    """Return the estimator, if it is a score network.

    Raises
    ------
    ConfigError
        If it is not.
    """
    estimator = posterior.estimator
    if estimator.name != "sbi-npse":
        msg = (
            f"the score combiner needs the estimator 'sbi-npse' (a score network), not "
            f"'{estimator.name}'"
        )
        raise ConfigError(msg)
    return estimator
