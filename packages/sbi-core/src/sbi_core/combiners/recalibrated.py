r"""Gaussian combination with a learned correction of its own error.

The Gaussian rule divides the prior out correctly, but an error of f sigma in the single-object
posteriors becomes :math:`f\sqrt N` combined sigma. This rule simulates groups of objects with
truths from the prior, observed like the data at hand, combines them with the Gaussian rule, and
learns the error it makes as a function of the result (see
:mod:`sbi_core.combiners.correction`). It keeps the sharpness of the Gaussian rule and removes the
bias that grows with N, up to the N it was trained on; beyond, the Gaussian result is widened by
the error floor :math:`f^2 N C` fitted to the same groups, and flagged.

References:
    | Design note "inference.md", section 6.3
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sbi_core.combiners.correction import Correction, Examples, features, fit_correction
from sbi_core.combiners.gaussian import (
    Gaussian,
    GaussianCombiner,
    GaussianConfig,
    ObjectMoments,
    object_moments,
)
from sbi_core.errors import ConfigError, DataFileError, PriorMismatchError
from sbi_core.observations import Observations
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors import ParameterSpace
from sbi_core.rng import stream
from sbi_core.tensorfile import load_weights, read_json, read_tensors, write_atomic, write_tensors

__all__ = ["RecalibratedCombiner", "RecalibratedConfig"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
_SMALLEST = 3  # fewer objects are combined without correction


class RecalibratedConfig(BaseModel):
    """Options of the recalibrated combiner."""

    model_config = ConfigDict(extra="forbid")

    groups: int = Field(1000, ge=20, description="simulated groups the correction learns from")
    max_objects: int = Field(1000, ge=10, description="largest N the correction is trained for")
    subsets: int = Field(64, ge=1, description="combinations per group, N log-uniform")
    hidden: int = Field(64, ge=4, description="width of the correction network")
    epochs: int = Field(20, ge=1, description="epochs of the correction network")
    batch_size: int = Field(512, ge=16, description="combinations per step")
    draws: int = Field(4000, ge=100, description="draws per object without closed-form moments")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")
    consistency_groups: int = Field(10, ge=2, description="groups of the consistency test")


class RecalibratedCombiner(GaussianCombiner):
    """Gaussian combination, then a learned correction of its error (see the module).

    See Also
    --------
    sbi_core.combiners.gaussian : the rule that is corrected.
    """

    name = "recalibrated"

    def __init__(self, config: RecalibratedConfig | None = None) -> None:
        self.options = config or RecalibratedConfig()
        o = self.options
        super().__init__(
            GaussianConfig(
                draws=o.draws, samples=o.samples, consistency_groups=o.consistency_groups
            )
        )
        self.groups_needed = o.groups
        self.group_size = o.max_objects
        self._network: Correction | None = None
        self._floor = 0.0
        self._prior = ""

    # -- learning ------------------------------------------------------------------

    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Learn the error of the Gaussian rule from simulated groups with known truth."""
        parts = []
        space = posterior.space.select("global")
        for k, group in enumerate(groups):
            rng = stream(seed, "correction", "subsets", k)
            moments, _ = object_moments(posterior, group, draws=self.options.draws, rng=rng)
            parts.append(self._examples(moments, _truth(group, space), rng, k))
        if not parts:
            msg = "the recalibrated combiner needs simulated groups to learn from"
            raise ConfigError(msg)
        examples = Examples(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in Examples.__slots__)
        )
        o = self.options
        self._network, facts = fit_correction(
            examples, hidden=o.hidden, epochs=o.epochs, batch_size=o.batch_size, seed=seed
        )
        z2 = (examples.residual**2).mean(1)
        # z^2(N) = 1 + f^2 N, weighted least squares: the variance of z^2 grows like its square
        weight = examples.n_objects / (1 + z2.mean()) ** 2
        self._floor = float(
            max(0.0, (weight * (z2 - 1)).sum() / (weight * examples.n_objects).sum())
        )
        self._prior = space.hash
        return {**facts, "f": float(np.sqrt(self._floor))}

    def _examples(
        self, moments: ObjectMoments, truth: F64, rng: np.random.Generator, group: int
    ) -> Examples:
        """Return combinations of random subsets of one group, N log-uniform."""
        n, d = moments.information.shape
        sizes = np.exp(rng.uniform(np.log(_SMALLEST), np.log(n + 1), self.options.subsets))
        sizes = np.clip(sizes.astype(int), _SMALLEST, n)
        mean, chol = np.empty((len(sizes), d)), np.empty((len(sizes), d, d))
        good = np.ones(len(sizes), bool)
        for k, size in enumerate(sizes):
            rows = rng.permutation(n)[:size]
            precision = np.eye(d) + (moments.precision[rows] - np.eye(d)).sum(0)
            if np.linalg.eigvalsh(precision)[0] <= 0:
                good[k] = False
                continue
            cov = np.linalg.inv(precision)
            mean[k], chol[k] = cov @ moments.information[rows].sum(0), np.linalg.cholesky(cov)
        mean, chol, count = mean[good], chol[good], sizes[good].astype(float)
        residual = np.asarray(np.linalg.solve(chol, (truth - mean)[..., None])[..., 0], np.float64)
        return Examples(
            features(mean, chol, count), residual, count, np.full(len(mean), group, np.int64)
        )

    # -- combining -----------------------------------------------------------------

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Any = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets; moments are computed once.

        Raises
        ------
        ConfigError
            If :meth:`prepare` was not called.
        PriorMismatchError
            If the posterior has another prior than the correction was trained with.
        """
        if self._network is None:
            msg = "the recalibrated combiner has not been prepared on simulated groups"
            raise ConfigError(msg)
        if posterior.space.select("global").hash != self._prior:
            msg = "the correction of the recalibrated combiner was trained with another prior"
            raise PriorMismatchError(msg)
        return super().combine_subsets(posterior, observations, subsets, rng=rng)

    def _combine(
        self, space: ParameterSpace, part: ObjectMoments, rng: np.random.Generator
    ) -> CombinedPosterior:
        plain = super()._combine(space, part, rng)
        n = plain.n
        if n < _SMALLEST:
            return plain
        flags = list(plain.flags)
        if n > self.options.max_objects:
            flags.append("more_objects_than_trained")
            corrected = Gaussian(plain.z_mean, plain.z_cov * (1 + self._floor * n))
        else:
            corrected = self._correct(plain.z_mean, plain.z_cov, n)
        shift = np.linalg.solve(np.linalg.cholesky(plain.z_cov), corrected.mean - plain.z_mean)
        return combined_from_gaussian(
            self.name,
            space,
            n,
            corrected.mean,
            corrected.cov,
            draws=self.options.samples,
            rng=rng,
            diagnostics={**plain.diagnostics, "correction_sigma": float(np.linalg.norm(shift))},
            flags=tuple(flags),
        )

    def _correct(self, mean: F64, cov: F64, n: int) -> Gaussian:
        assert self._network is not None
        chol = np.asarray(np.linalg.cholesky(cov), np.float64)
        count = np.array([float(n)])
        phi = features(mean[None], chol[None], count)
        with torch.no_grad():
            shift, width = self._network(
                torch.as_tensor(phi, dtype=torch.float32), torch.as_tensor(count).float()
            )
        spread = chol @ width[0].double().numpy()
        return Gaussian(mean + chol @ shift[0].double().numpy(), spread @ spread.T)

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        if self._network is None:
            return
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_tensors(directory / "weights.safetensors", dict(self._network.state_dict()))
        content = {
            "combiner": self.name,
            "options": self.options.model_dump(),
            "d": self._network.d,
            "floor": self._floor,
            "prior": self._prior,
        }
        write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())

    def restore(self, directory: str | Path) -> None:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataFileError
            If a file is missing or damaged.
        """
        directory = Path(directory)
        content = read_json(directory / "config.json")
        try:
            network = Correction(int(content["d"]), int(content["options"]["hidden"]))
            self._floor, self._prior = float(content["floor"]), str(content["prior"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the combiner in '{directory}' is damaged: {error}"
            raise DataFileError(msg) from None
        path = directory / "weights.safetensors"
        load_weights(network, read_tensors(path)[0], path)
        self._network = network


def _truth(group: Observations, space: ParameterSpace) -> F64:
    theta = group.batch.theta
    assert theta is not None
    columns = [group.truth_names.index(name) for name in space.names]
    return np.asarray(space.to_unconstrained(theta[:1, columns])[0])
