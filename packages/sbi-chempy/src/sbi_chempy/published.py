r"""The combination rules printed in Buck et al. 2025, for comparison only.

Their eqs. 8-9, per parameter with :math:`1/\sigma'^2 = \sum_i 1/\sigma_i^2`, read

.. math:: \frac{1}{\sigma^2} = \sum_i \frac{1}{\sigma_i^2} + \frac{N-1}{\sigma_p^2}, \qquad
          \frac{\mu}{\sigma^2} = \sum_i \frac{\mu_i}{\sigma_i^2} + \frac{(N-1)\mu_p}{\sigma_p^2} .

The sign of the prior terms is wrong: :math:`p(\Lambda)^{1-N}` removes N - 1 prior factors, the
printed equations add N - 1 of them. The bias towards the prior mean tends to
:math:`2P_0/(2P_0 + J)` of the distance to the truth (J: information per object) and does not
shrink with N; it is zero when the truth is the prior mean. ``form = "plain"`` is the
inverse-variance mean behind the numbers of their abstract.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sbi_core import Gaussian, MomentCombiner, MomentConfig, ObjectMoments

__all__ = ["PublishedCombiner", "PublishedConfig", "combine_published"]

F64 = NDArray[np.float64]
_WRONG_SIGN = (
    "The printed equations add N - 1 prior factors, where Bayes' rule removes them: the result is "
    "biased towards the prior mean, by more of its quoted sigmas as N grows."
)
_INVERSE_VARIANCE = (
    "A plain inverse-variance mean counts the prior once per object, which biases the result "
    "towards the prior mean."
)


def combine_published(
    mean: F64, variance: F64, prior: Gaussian, *, plain: bool = False
) -> Gaussian:
    """Return the published combination of N posteriors.

    Parameters
    ----------
    mean, variance : (n_obs, d)
        Single-object posterior means and marginal variances.
    prior : Gaussian
        Training prior; only its diagonal is used.
    plain : bool
        Inverse-variance mean instead of eqs. 8-9.

    Notes
    -----
    Source: Buck et al. 2025, A&A 702, A184, eqs. 8-9.
    """
    n = len(mean)
    prior_variance = np.diag(prior.cov)
    extra = 0 if plain or n == 0 else n - 1
    if n == 0:
        return prior
    precision = (1 / variance).sum(0) + extra / prior_variance
    information = (mean / variance).sum(0) + extra * prior.mean / prior_variance
    return Gaussian(information / precision, np.diag(1 / precision))


class PublishedConfig(MomentConfig):
    """Options of the published combiner."""

    form: Literal["equations", "plain"] = Field(
        "equations", description="Eqs. 8-9 as printed, or the plain inverse-variance mean."
    )


class PublishedCombiner(MomentCombiner):
    """Buck et al. 2025, eqs. 8-9; every result carries the flag ``comparison_only``."""

    name = "published"
    comparison_only = True
    config: PublishedConfig

    def __init__(self, config: PublishedConfig | None = None) -> None:
        self.config = config or PublishedConfig()
        self.warning = _WRONG_SIGN if self.config.form == "equations" else _INVERSE_VARIANCE

    def solve(self, objects: ObjectMoments) -> tuple[Gaussian, dict[str, float], tuple[str, ...]]:
        """Combine as published (see the module for the error)."""
        d = objects.information.shape[1]
        cov = np.linalg.inv(objects.precision) if len(objects) else objects.precision
        mean = np.einsum("nij,nj->ni", cov, objects.information)
        variance = np.einsum("nii->ni", cov)
        plain = self.config.form == "plain"
        return combine_published(mean, variance, Gaussian.standard(d), plain=plain), {}, ()
