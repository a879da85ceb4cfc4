r"""Rules that need only the mean and covariance of every object's posterior.

In unconstrained space, where the prior is :math:`N(0, I)`, object i has the precision
:math:`P_i` and the information :math:`P_i\mu_i`; for independent objects both add up. They are
computed once for the same objects, whichever rules and sizes use them.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import special

from sbi_core.components import Combiner, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import (
    ConfigError,
    PluginError,
    PriorMismatchError,
    SbiError,
    counted,
    raised,
)
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, stream
from sbi_core.validation import Options

__all__ = [
    "Gaussian",
    "MomentCombiner",
    "MomentConfig",
    "ObjectMoments",
    "SubsetCombiner",
    "attached",
    "data_quality",
    "digest",
    "group_consistency",
    "object_moments",
    "quality_of_values",
    "shared_alone",
    "shared_part",
    "shared_space",
    "simulator_of",
    "truth_of",
]

F64 = NDArray[np.float64]
_MOST_VALUES = 64  # per object, whose errors and gaps are looked at one by one
_KEPT = 8  # sets of objects whose moments are kept, per posterior


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

        ``draws``: number of draws that the covariances were estimated from; their inverse is then
        scaled by (S - d - 2) / (S - 1), which makes it unbiased (inverse-Wishart mean).
        """
        n, d = mean.shape
        precision = np.asarray(np.linalg.inv(cov), np.float64) if n else np.empty((0, d, d))
        if draws is not None:
            precision = precision * (draws - d - 2) / (draws - 1)
        information = np.einsum("nij,nj->ni", precision, mean)
        return cls(precision, information, [str(k) for k in range(n)] if id is None else list(id))

    def __len__(self) -> int:
        return len(self.information)

    def __getitem__(self, rows: slice) -> ObjectMoments:
        """Return the moments of some of the objects."""
        return ObjectMoments(
            self.precision[rows],
            self.information[rows],
            self.id[rows],
        )


def shared_space(posterior: Posterior) -> ParameterSpace:
    """Return the inferred parameters that all objects of a group share.

    Raises
    ------
    ConfigError
        If there are none.
    """
    return shared_part(posterior.space)


def shared_part(space: ParameterSpace) -> ParameterSpace:
    """Return the parameters that all objects of a group share.

    Raises
    ------
    ConfigError
        If there are none.
    """
    if not any(p.scope == "global" for p in space.parameters):
        msg = (
            "nothing to combine: no parameter of scope 'global' is inferred, only "
            f"{list(space.names)}"
        )
        raise ConfigError(msg)
    return space.select("global")


def shared_alone(posterior: Posterior, combiner: str) -> ParameterSpace:
    """Return the inferred parameters of a combiner that can integrate out no others.

    Raises
    ------
    ConfigError
        If some of them are not shared.
    """
    space = shared_space(posterior)
    others = [p for p in posterior.space.parameters if p.scope != "global"]
    if any(p.prior.z_size or not p.prior.continuous for p in others):
        msg = (
            f"the {combiner} combiner needs an estimator of the shared parameters alone "
            f"({list(space.names)}), this one infers {list(posterior.space.names)}"
        )
        raise ConfigError(msg)
    return space


def truth_of(group: Observations, space: ParameterSpace) -> F64:
    """Return the truth that the objects of a simulated group share, unconstrained, (d,)."""
    theta = group.batch.theta
    assert theta is not None
    columns = [group.truth_names.index(name) for name in space.names]
    return np.asarray(space.to_unconstrained(theta[:1, columns])[0])


def attached(combiner: str, simulator: Simulator | None) -> Simulator:
    """Return the simulator.

    Raises
    ------
    ConfigError
        If none was attached.
    """
    if simulator is None:
        msg = f"the {combiner} combiner needs the simulator; call attach(simulator) first"
        raise ConfigError(msg)
    return simulator


def simulator_of(
    combiner: str, simulator: Simulator | None, posterior: Posterior
) -> tuple[Simulator, ParameterSpace]:
    """Return the attached simulator, and the shared parameters that it has with the posterior.

    Raises
    ------
    ConfigError
        If no simulator was attached, or no parameter is shared.
    PriorMismatchError
        If the posterior was trained under another prior than the simulator has.
    """
    simulator = attached(combiner, simulator)
    space, ours = shared_space(posterior), simulator.parameters.select("global")
    if ours.hash != space.hash:
        msg = (
            f"the estimator was trained with prior {space.hash[:12]} of the shared "
            f"parameters, simulator '{simulator.name}' has {ours.hash[:12]}"
        )
        raise PriorMismatchError(msg)
    return simulator, space


_moments: WeakKeyDictionary[Posterior, OrderedDict[tuple[str, int], tuple[F64, F64]]]
_moments = WeakKeyDictionary()
_lock = Lock()


def object_moments(
    posterior: Posterior, observations: Observations, *, draws: int = 4000
) -> ObjectMoments:
    """Return the moments of each object in the shared parameters.

    Per-object parameters are integrated out by leaving out their rows and columns. The moments of
    the latest sets of objects are kept. Where the estimator has no closed form they come from
    draws, whose random numbers depend on the objects only: same objects, same moments.

    Raises
    ------
    ConfigError
        If the estimator infers no shared (global) parameter, or a discrete one.
    """
    shared = shared_space(posterior).parameters
    for p in shared:
        if not p.prior.continuous:
            msg = (
                f"parameter '{p.name}' is discrete and shared by all objects, which no combiner of "
                "moments takes; leave it out of estimator.parameters"
            )
            raise ConfigError(msg)
    keep = posterior.select([p.name for p in shared])
    key = (digest(observations.batch), draws)
    with _lock:
        kept = _moments.setdefault(posterior, OrderedDict())
        moments = kept.get(key)
    if moments is None:
        moments = _computed(posterior, observations.batch, keep, draws, key[0])
    with _lock:
        kept[key] = moments
        kept.move_to_end(key)
        if len(kept) > _KEPT:
            kept.popitem(last=False)
    return ObjectMoments(*moments, observations.id.tolist())


def _computed(
    posterior: Posterior, batch: Batch, keep: list[int], draws: int, word: str
) -> tuple[F64, F64]:
    if len(batch) == 0:
        return np.empty((0, len(keep), len(keep))), np.empty((0, len(keep)))
    rng = stream(posterior.seed, "moments", word)
    mean, cov, used = posterior.gaussian_moments(batch, draws=draws, rng=rng)
    moments = ObjectMoments.of(mean[:, keep], cov[:, keep][:, :, keep], draws=used)
    return moments.precision, moments.information


def digest(batch: Batch) -> str:
    """Return a word that stands for the data of a batch."""
    total = hashlib.sha256()
    for name, value in batch.with_(theta=None).numpy().items():
        total.update(f"{name} {value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def data_quality(batch: Batch) -> F64:
    """Return numbers that describe the quality of each object's data, (n, k).

    Mean log10 error and observed fraction of the values, and 1 or 0 per column of context.
    """
    columns = []
    mask = batch.observed.flatten(1).double().cpu().numpy()
    if batch.x_err is not None:
        err = batch.x_err.flatten(1).double().cpu().numpy()
        log_err = np.log10(np.where(mask > 0, err, 1.0))
        columns.append((log_err * mask).sum(1) / np.maximum(mask.sum(1), 1))
    columns.append(mask.mean(1))
    if batch.context is not None:
        columns += list((batch.context != 0).double().cpu().numpy().T)
    return np.stack(columns, 1)


def quality_of_values(batch: Batch) -> F64:
    """Return numbers that describe the quality of each value of the data, (n, k).

    log10 error (NaN if there is none) and 1 or 0 for observed or not, per value; the context. For
    more than 64 values per object: :func:`data_quality`.
    """
    mask = batch.observed.flatten(1).double().cpu().numpy()
    if mask.shape[1] > _MOST_VALUES:
        return data_quality(batch)
    columns = [mask]
    if batch.x_err is not None:
        err = batch.x_err.flatten(1).double().cpu().numpy()
        columns.append(np.log10(np.where(mask > 0, err, np.nan)))
    if batch.context is not None:
        columns.append(batch.context.double().cpu().numpy())
    return np.concatenate(columns, 1)


class SubsetCombiner(Combiner):
    """A rule that combines several subsets at once; subclasses write :meth:`combine_subsets`."""

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects as one subset."""
        return self.combine_subsets(posterior, observations, [slice(None)], rng=rng)[0]

    @abstractmethod
    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets."""


class MomentConfig(Options):
    """Options of every rule that works on moments."""

    draws: int = Field(4000, ge=100, description="draws per object without closed-form moments")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


class MomentCombiner(SubsetCombiner):
    """A rule on the moments of the objects; subclasses write :meth:`solve` only.

    Attributes
    ----------
    config
        Options of the rule.
    """

    config: MomentConfig

    @abstractmethod
    def solve(self, objects: ObjectMoments) -> tuple[Gaussian, Mapping[str, float], Sequence[str]]:
        """Return the combined posterior in unconstrained space, diagnostics and flags."""

    def check(self, space: ParameterSpace) -> None:  # noqa: B027 - most rules fit any
        """Raise if the rule cannot be used for these shared parameters."""

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets; moments are computed once."""
        space = shared_space(posterior)
        self.check(space)
        gen = as_generator(rng)
        moments = object_moments(posterior, observations, draws=self.config.draws)
        return [self._drawn(space, moments[rows], gen) for rows in subsets]

    def _drawn(
        self, space: ParameterSpace, objects: ObjectMoments, rng: np.random.Generator
    ) -> CombinedPosterior:
        combined, diagnostics, flags = self._checked_solution(objects)
        return combined_from_gaussian(
            self.name,
            space,
            len(objects),
            combined.mean,
            combined.cov,
            draws=self.config.samples,
            rng=rng,
            diagnostics=diagnostics,
            flags=(*flags, "comparison_only") if self.comparison_only else tuple(flags),
        )

    def subset_moments(
        self, posterior: Posterior, observations: Observations, subsets: Sequence[slice]
    ) -> list[tuple[F64, F64]]:
        """Return mean and covariance of several subsets, unconstrained; nothing is drawn."""
        self.check(shared_space(posterior))
        moments = object_moments(posterior, observations, draws=self.config.draws)
        solved = [self._checked_solution(moments[rows])[0] for rows in subsets]
        return [(g.mean, g.cov) for g in solved]

    def _checked_solution(
        self, objects: ObjectMoments
    ) -> tuple[Gaussian, Mapping[str, float], Sequence[str]]:
        """Return what :meth:`solve` returns, after checking it.

        Raises
        ------
        PluginError
            If it fails, or returns no normal distribution.
        """
        who = f"combiner '{self.name}': solve"
        n, d = objects.information.shape
        try:
            solved: Any = self.solve(objects)
        except (SbiError, MemoryError):
            raise
        except Exception as error:  # a rule of a plugin may fail in any way
            msg = f"{who} raised {raised(error)} for {counted(n, 'object')}"
            raise PluginError(msg) from error
        if not (isinstance(solved, tuple) and len(solved) == 3 and isinstance(solved[0], Gaussian)):
            msg = f"{who} must return (Gaussian(mean, cov), diagnostics, flags)"
            raise PluginError(msg)
        mean, cov = np.asarray(solved[0].mean), np.asarray(solved[0].cov)
        if mean.shape != (d,) or cov.shape != (d, d):
            msg = (
                f"{who} returned mean and covariance of shapes {mean.shape} and {cov.shape}; "
                f"expected {(d,)} and {(d, d)}"
            )
            raise PluginError(msg)
        finite = np.isfinite(mean).all() and np.isfinite(cov).all()
        if not finite or np.linalg.eigvalsh(cov)[0] <= 0:
            fault = "is not positive definite" if finite else "or mean is not finite"
            msg = (
                f"{who} returned a normal distribution whose covariance {fault} for "
                f"{counted(n, 'object')}; the rule must give one for any number of objects"
            )
            raise PluginError(msg)
        return solved


def group_consistency(
    precision: NDArray[np.float64], information: NDArray[np.float64], groups: int
) -> dict[str, float]:
    r"""Test whether the parts of a group of objects agree.

    The likelihood of part k alone has precision :math:`L_k = \sum_{i \in k} (P_i - P_0)` and mean
    :math:`m_k`. If all objects share :math:`\Lambda`,

    .. math:: \chi^2 = \sum_k (m_k - \bar m)^T L_k (m_k - \bar m) \sim \chi^2_{d(K-1)} .

    It sees differences between parts, not an error common to all.

    Parameters
    ----------
    precision : (n, d, d)
        Single-object posterior precisions, in units where the prior is N(0, I).
    information : (n, d)
        Precision times mean.
    groups : int
        Number of parts K; fewer when there are less than five objects per part.

    Returns
    -------
    dict
        ``consistency_chi2``, ``consistency_dof`` and ``consistency_p``; empty when there are fewer
        than ten objects, or the likelihood of a part is not normalisable.
    """
    n, d = information.shape
    k = min(groups, n // 5)
    if k < 2:
        return {}
    part = np.arange(n) % k
    ratio = np.stack([(precision[part == g] - np.eye(d)).sum(0) for g in range(k)])
    vector = np.stack([information[part == g].sum(0) for g in range(k)])
    if np.linalg.eigvalsh(ratio).min() <= 0:
        return {}
    means = np.linalg.solve(ratio, vector[..., None])[..., 0]
    common = np.linalg.solve(ratio.sum(0), vector.sum(0))
    chi2 = float(np.einsum("ki,kij,kj->", means - common, ratio, means - common))
    dof = d * (k - 1)
    return {
        "consistency_chi2": chi2,
        "consistency_dof": float(dof),
        "consistency_p": float(special.gammaincc(dof / 2, chi2 / 2)),
    }
