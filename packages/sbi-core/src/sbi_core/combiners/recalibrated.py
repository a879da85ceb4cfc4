r"""Gaussian combination with a learned correction of its error.

The Gaussian rule divides the prior out correctly, but an error of f sigma in the single-object
posteriors becomes :math:`f\sqrt N` combined sigma. This rule simulates groups of objects
with the errors and missing values of the data, learns the mean and the spread of their scores at
the true :math:`\Lambda`, and solves

.. math:: \sum_i [P_i\mu_i - (P_i - P_0)\Lambda] =
          \left\langle\sum_i [P_i\mu_i - (P_i - P_0)\Lambda]\right\rangle_{\Lambda},

with the mean of simulations at this :math:`\Lambda` on the right, instead of setting the sum to
zero (see :mod:`sbi_core.combiners.correction`). Mean and spread per object do not depend on the
number of objects, so that the correction holds for all N >= 3. Its uncertainty (few groups, truths
far from all simulated ones) widens the result, and is flagged when it dominates.

References:
    | docs/calibration.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sbi_core.combiners.correction import Correction, Examples, fit_correction, normalised_score
from sbi_core.combiners.gaussian import GaussianCombiner, GaussianConfig
from sbi_core.combiners.moments import (
    Gaussian,
    ObjectMoments,
    object_moments,
    shared_space,
    truth_of,
)
from sbi_core.data.observations import Observations
from sbi_core.data.writing import write_atomic
from sbi_core.errors import ConfigError, DataFileError, PriorMismatchError
from sbi_core.files.tensors import read_json, read_tensors, write_tensors
from sbi_core.posterior import Posterior
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import stream

__all__ = ["RecalibratedCombiner", "RecalibratedConfig"]

F64 = NDArray[np.float64]
_SMALLEST = 3  # fewer objects are combined without correction
_FEWEST = 20  # groups
_PART, _LARGEST_PART = 5, 50  # objects per part of a group whose scatter gives the spread
_CONSTANT = 1e-6  # features that vary less count as constant
_TILTED = 4  # one group of this number is divided into two that differ in their features
_UNLIKE = 0.1  # allowed distance of features from those of the simulated groups, dex or fraction


class RecalibratedConfig(GaussianConfig):
    """Options of the recalibrated combiner."""

    groups: int = Field(1000, ge=20, description="simulated groups for training the correction")
    max_objects: int = Field(1000, ge=25, description="objects per simulated group")


class RecalibratedCombiner(GaussianCombiner):
    """Gaussian combination, then a learned correction of its error (see the module).

    See Also
    --------
    sbi_core.combiners.gaussian : the rule that is corrected.
    """

    name = "recalibrated"
    config: RecalibratedConfig
    learned_type: ClassVar[type[Any]] = Correction
    mended: ClassVar[tuple[str, ...]] = ()  # flags of the Gaussian rule that do not apply here

    def __init__(self, config: RecalibratedConfig | None = None) -> None:
        self.config = config or RecalibratedConfig()
        self.groups_needed = self.config.groups
        self.group_size = self.config.max_objects
        self._correction: Any = None
        self._prior = ""

    # -- learning ------------------------------------------------------------------

    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Learn the error of the Gaussian rule from simulated groups with known truth.

        Truths may have any distribution; far from all of them the correction is uncertain and the
        result wider. Where the objects of nearly all groups carry no information, nothing is
        corrected, and every result has the flag ``not_corrected``.
        """
        space = shared_space(posterior)
        parts: list[_Example] = []
        for k, group in enumerate(groups):
            rng = stream(seed, "correction", "parts", k)
            moments = object_moments(posterior, group, draws=self.config.draws)
            tilted = k % _TILTED == 0
            parts += _examples(moments, truth_of(group, space), rng, tilted=tilted)
        self._prior, self._correction = space.hash, None
        if len(parts) < _FEWEST:
            return {"groups": float(len(parts))}
        examples = Examples(*(np.stack(column) for column in zip(*parts, strict=True)))
        self._correction, facts = fit_correction(examples, stream(seed, "correction", "fit"))
        return facts

    # -- combining -----------------------------------------------------------------

    def check(self, space: ParameterSpace) -> None:
        """Raise if the correction is not trained, or the parameters have another prior.

        Raises
        ------
        ConfigError
            If :meth:`prepare` was not called.
        PriorMismatchError
            If the posterior has another prior than the correction was trained with.
        """
        if not self._prior:
            msg = f"the {self.name} combiner is not trained; call prepare(posterior, groups) first"
            raise ConfigError(msg)
        if space.hash != self._prior:
            msg = f"the correction of the {self.name} combiner was trained with another prior"
            raise PriorMismatchError(msg)

    def solve(self, objects: ObjectMoments) -> tuple[Gaussian, dict[str, float], tuple[str, ...]]:
        """Return the corrected combination; fewer than three objects are not corrected."""
        plain, diagnostics, flags = super().solve(objects)
        if len(objects) < _SMALLEST:
            return plain, diagnostics, flags
        found = None if self._correction is None else self._corrected(objects, plain)
        if found is None:
            return plain, diagnostics, (*flags, "not_corrected")
        corrected, share, own_flags = found
        shift = np.linalg.solve(np.linalg.cholesky(plain.cov), corrected.mean - plain.mean)
        diagnostics |= {
            "correction_sigma": float(np.linalg.norm(shift)),
            "correction_uncertainty": share,
        }
        if share > 1:  # larger than the statistical error
            flags = (*flags, "more_objects_than_trained")
        kept = (f for f in flags if f not in self.mended)
        return corrected, diagnostics, (*kept, *own_flags)

    def _corrected(
        self, objects: ObjectMoments, plain: Gaussian
    ) -> tuple[Gaussian, float, tuple[str, ...]] | None:
        """Return the corrected combination, the uncertainty of the correction, and flags."""
        n, d = objects.information.shape
        likelihood = (objects.precision - np.eye(d)).sum(0)
        if np.linalg.eigvalsh(likelihood)[0] <= 0:
            return None
        quality, total = objects.quality.mean(0), objects.information.sum(0)
        corrected, share = self._correction.posterior(likelihood, total, n, quality, plain.mean)
        unlike = self._correction.unlike(quality, _UNLIKE)
        return corrected, share, ("unlike_trained_groups",) if unlike else ()

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        if not self._prior:
            return
        directory = Path(directory)
        if self._correction is not None:
            write_tensors(directory / "weights.safetensors", self._correction.tensors())
        content = {
            "combiner": self.name,
            "options": self.config.model_dump(),
            "prior": self._prior,
            "corrected": self._correction is not None,
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
            self._prior = str(content["prior"])
            if content.get("corrected", True):
                tensors = read_tensors(directory / "weights.safetensors")[0]
                self._correction = self.learned_type.from_tensors(tensors)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the combiner in '{directory}' is damaged: {error!r}"
            raise DataFileError(msg) from None


_Example = tuple[F64, F64, F64, float, F64, float]  # the fields of Examples, of one group


def _examples(
    moments: ObjectMoments,
    truth: F64,
    rng: np.random.Generator,
    *,
    tilted: bool,
) -> list[_Example]:
    """Return a group as one example, or, if ``tilted``, as two that differ in their features.

    Objects are chosen by errors and missing values, never by their data.
    """
    n, d = moments.information.shape
    features = moments.quality
    halves: list[NDArray[np.int64]] = [np.arange(n)]
    varies = features.shape[1] > 0 and features.std(0).max() > _CONSTANT
    if tilted and varies and n >= 4 * _PART:
        scale = np.where(features.std(0) > _CONSTANT, features.std(0), 1.0)
        tilt = rng.standard_normal(features.shape[1])
        order = np.argsort((features / scale) @ tilt + rng.gumbel(size=n))
        halves = [rng.permutation(h) for h in np.array_split(order, 2)]
    examples = []
    for rows in halves:
        each = (moments.precision[rows] - np.eye(d)).astype(np.float64)
        information, own = moments.information[rows], features[rows]
        likelihood = each.sum(0)
        if len(rows) < 2 * _PART or np.linalg.eigvalsh(likelihood)[0] <= 0:
            continue
        score = normalised_score(likelihood[None], information.sum(0)[None], truth[None])[0]
        size = max(_PART, min(_LARGEST_PART, len(rows) // 5))
        parts = np.arange(len(rows) // size * size).reshape(-1, size)
        b, total = each[parts].sum(1), information[parts].sum(1)
        good = np.linalg.eigvalsh(b)[:, 0] > 0
        if good.sum() < 2:
            continue
        r = normalised_score(b[good], total[good], np.broadcast_to(truth, (int(good.sum()), d)))
        spread = np.atleast_2d(np.cov(r.T))
        count = float(len(rows))
        examples.append(
            (truth, own.mean(0), score / np.sqrt(count), count, spread, float(good.sum() - 1))
        )
    return examples
