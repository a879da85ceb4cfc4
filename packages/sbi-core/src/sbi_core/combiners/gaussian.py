r"""Gaussian combination of single-object posteriors.

For objects i = 1..N that share :math:`\Lambda`, with training prior
:math:`N(\mu_0, P_0^{-1})` and single-object posteriors :math:`N(\mu_i, P_i^{-1})`, Bayes' rule
for conditionally independent data, :math:`p(\Lambda)^{1-N} \prod_i p(\Lambda | x_i)`, gives

.. math:: P = \sum_i P_i - (N-1) P_0, \qquad P\mu = \sum_i P_i\mu_i - (N-1) P_0\mu_0 .

The minus sign removes the prior that every posterior already contains. Exact when all factors
are Gaussian. Works in unconstrained space, where the prior is exactly :math:`N(0, I)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sbi_core.combiners.consistency import group_consistency
from sbi_core.components import Combiner, Rng
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, NotPositiveDefiniteError
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator

__all__ = [
    "Gaussian",
    "GaussianCombiner",
    "GaussianConfig",
    "ObjectMoments",
    "combine_gaussian",
    "combine_moments",
    "object_moments",
]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A normal distribution: mean (d,) and covariance (d, d)."""

    mean: F64
    cov: F64

    @classmethod
    def standard(cls, d: int) -> Gaussian:
        """Return N(0, I), the prior in unconstrained space."""
        return cls(np.zeros(d), np.eye(d))


@dataclass(frozen=True, slots=True)
class ObjectMoments:
    """Single-object posteriors as precisions and information vectors.

    Parameters
    ----------
    precision
        P_i, (n, d, d).
    information
        P_i mu_i, (n, d).
    id
        Identifiers for messages, (n,).
    """

    precision: F64
    information: F64
    id: Sequence[str]

    @classmethod
    def of(
        cls,
        mean: F64,
        cov: F64,
        *,
        draws: int | None = None,
        id: Sequence[str] | None = None,  # noqa: A002
    ) -> ObjectMoments:
        """Build from means (n, d) and covariances (n, d, d).

        ``draws``: how many draws the covariances were estimated from; their inverse is then
        scaled by (S - d - 2) / (S - 1), which makes it unbiased (inverse-Wishart mean).
        """
        n, d = mean.shape
        precision = np.asarray(np.linalg.inv(cov), np.float64) if n else np.empty((0, d, d))
        if draws is not None:
            precision = precision * (draws - d - 2) / (draws - 1)
        information = np.einsum("nij,nj->ni", precision, mean)
        return cls(precision, information, [str(k) for k in range(n)] if id is None else list(id))

    def __getitem__(self, rows: slice) -> ObjectMoments:
        """Return the moments of some of the objects."""
        return ObjectMoments(self.precision[rows], self.information[rows], self.id[rows])


def combine_gaussian(
    mean: F64,
    cov: F64,
    prior: Gaussian,
    *,
    draws: int | None = None,
    id: Sequence[str] | None = None,  # noqa: A002
) -> Gaussian:
    """Product of N posteriors divided by N - 1 copies of the prior.

    Parameters
    ----------
    mean : (n_obs, d)
        Single-object posterior means.
    cov : (n_obs, d, d)
        Their full covariances. Diagonal input is accepted but rarely right.
    prior : Gaussian
        The prior the estimator was *trained* with.
    draws : int, optional
        Number of draws behind the covariances, when these are estimates.
    id : sequence of str, optional
        Names of the objects, for messages.

    Returns
    -------
    Gaussian
        With ``n_obs == 0`` this is the prior.

    Raises
    ------
    NotPositiveDefiniteError
        If the summed precision is not positive definite. The message lists the objects whose
        posterior is broader than the prior.

    Notes
    -----
    Source: Bayes' rule for conditionally independent data.
    """
    return combine_moments(ObjectMoments.of(mean, cov, draws=draws, id=id), prior)[0]


def combine_moments(moments: ObjectMoments, prior: Gaussian) -> tuple[Gaussian, float]:
    """Return the combination and the smallest eigenvalue of P in units of P_0."""
    p0 = np.linalg.inv(prior.cov)
    # Sums of differences, in float64: the two sums of the equation nearly cancel when objects
    # say little.
    precision = p0 + (moments.precision - p0).sum(0)
    information = p0 @ prior.mean + (moments.information - p0 @ prior.mean).sum(0)
    chol0 = np.asarray(np.linalg.cholesky(prior.cov), np.float64)
    smallest = float(np.linalg.eigvalsh(chol0.T @ precision @ chol0).min())
    if not smallest > 0:
        raise NotPositiveDefiniteError(_broad_objects(moments, chol0))
    cov = np.linalg.inv(precision)
    cov = 0.5 * (cov + cov.T)
    return Gaussian(cov @ information, cov), smallest


def _broad_objects(moments: ObjectMoments, chol0: F64) -> str:
    ratio = np.linalg.eigvalsh(chol0.T @ moments.precision @ chol0)[:, 0]
    worst = np.argsort(ratio)[:5]
    broad = int((ratio < 1).sum())
    listed = ", ".join(f"{moments.id[k]} ({ratio[k]:.2f})" for k in worst)
    return (
        f"the combined precision is not positive definite: {broad} of {len(ratio)} objects have "
        f"posteriors broader than the prior (object, smallest P_i/P_0: {listed}); leave these "
        "objects out or use a combiner that does not assume Gaussian posteriors"
    )


def object_moments(
    posterior: Posterior, observations: Observations, *, draws: int, rng: Rng
) -> tuple[ObjectMoments, list[str]]:
    """Return the moments of each object in the shared parameters, and these parameters' names.

    Per-object parameters are integrated out by leaving out their rows and columns.

    Raises
    ------
    ConfigError
        If the estimator infers no shared (global) parameter.
    """
    names = [p.name for p in posterior.space.parameters if p.scope == "global"]
    if not names:
        msg = (
            "nothing to combine: the estimator infers no parameter of scope 'global' "
            f"(it infers {list(posterior.space.names)})"
        )
        raise ConfigError(msg)
    keep = posterior.select(names)
    if len(observations) == 0:
        d = len(keep)
        return ObjectMoments(np.empty((0, d, d)), np.empty((0, d)), []), names
    mean, cov, used = posterior.gaussian_moments(observations.batch, draws=draws, rng=rng)
    cov = cov[:, keep][:, :, keep]
    ids = observations.id.tolist()
    return ObjectMoments.of(mean[:, keep], cov, draws=used, id=ids), names


class GaussianConfig(BaseModel):
    """Options of the Gaussian combiner."""

    model_config = ConfigDict(extra="forbid")

    draws: int = Field(4000, ge=100, description="draws per object without closed-form moments")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")
    consistency_groups: int = Field(10, ge=2, description="groups of the consistency test")


class GaussianCombiner(Combiner):
    """Precision-weighted combination with the prior divided out (see the module).

    See Also
    --------
    sbi_core.combiners.published : the same with the printed sign, for comparison.
    """

    name = "gaussian"

    def __init__(self, config: GaussianConfig | None = None) -> None:
        self.config = config or GaussianConfig()

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects; N = 0 gives the prior, N = 1 the (Gaussian) posterior itself."""
        return self.combine_subsets(posterior, observations, [slice(None)], rng=rng)[0]

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets; moments are computed once."""
        gen = as_generator(rng)
        moments, names = object_moments(posterior, observations, draws=self.config.draws, rng=gen)
        space = posterior.space.select(names)
        return [self._combine(space, moments[rows], gen) for rows in subsets]

    def _combine(
        self, space: ParameterSpace, part: ObjectMoments, rng: np.random.Generator
    ) -> CombinedPosterior:
        combined, smallest = combine_moments(part, Gaussian.standard(space.z_dim))
        diagnostics = {"smallest_precision_ratio": smallest}
        diagnostics |= group_consistency(
            part.precision, part.information, self.config.consistency_groups
        )
        flags = ("broader_than_prior",) if smallest < 1 - 1e-9 else ()
        return combined_from_gaussian(
            self.name,
            space,
            len(part.id),
            combined.mean,
            combined.cov,
            draws=self.config.samples,
            rng=rng,
            diagnostics=diagnostics,
            flags=flags,
        )
