r"""Gaussian combination with a correction that depends on the quality of every object's data.

As :mod:`sbi_core.combiners.recalibrated`, but the mean b and the covariance V of the score are
learned object by object, as functions of :math:`\Lambda` and of the quality :math:`f_i` of the
data (errors, missing values, context), and

.. math:: \sum_i [P_i\mu_i - (P_i - P_0)\Lambda] = \sum_i b(\Lambda, f_i)

is solved (see :mod:`sbi_core.combiners.score_networks`). Every second simulated group has the
errors and missing values of the training instead of those of the data, so that one run combines
objects of other tables, too. It also holds where single objects say little about a parameter, such
as an intrinsic scatter, and their posteriors are partly broader than the prior.

References:
    | docs/calibration.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from sbi_core.combiners.moments import (
    F64,
    Gaussian,
    ObjectMoments,
    object_moments,
    shared_space,
    truth_of,
)
from sbi_core.combiners.recalibrated import RecalibratedCombiner, RecalibratedConfig
from sbi_core.combiners.score_networks import ScoreEquation, fit_score_networks, scores
from sbi_core.data.observations import Observations
from sbi_core.posterior import Posterior
from sbi_core.rng import stream

__all__ = ["AmortisedCombiner", "AmortisedConfig"]

_FEWEST = 20  # groups that are narrower than the prior
_UNLIKE = 0.05  # fraction of objects with errors or gaps that were not simulated


class AmortisedConfig(RecalibratedConfig):
    """Options of the amortised combiner."""


class AmortisedCombiner(RecalibratedCombiner):
    """Gaussian combination, corrected for objects of any quality (see the module).

    See Also
    --------
    sbi_core.combiners.recalibrated : narrower at N = 1000 for data like those of the run.
    """

    name = "amortised"
    learned_type: ClassVar[type[Any]] = ScoreEquation
    mended = ("broader_than_prior",)
    other_errors = True

    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Learn mean and covariance of the scores of simulated objects with known truth.

        Where nearly no group is narrower than the prior, nothing is corrected, and every result has
        the flag ``not_corrected``.
        """
        space = shared_space(posterior)
        parts: list[tuple[F64, F64, F64]] = []
        narrower = 0
        for group in groups:
            moments = object_moments(posterior, group, draws=self.config.draws)
            truth = truth_of(group, space)
            every = np.broadcast_to(truth, (len(moments), len(truth)))
            parts.append((every, moments.each_quality, scores(moments, truth)))
            likelihood = (moments.precision - np.eye(len(truth))).sum(0)
            narrower += bool(np.linalg.eigvalsh(likelihood)[0] > 0)
        self._prior, self._correction = space.hash, None
        if narrower < _FEWEST:
            return {"groups": float(narrower)}
        number = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
        truths, features, score = (np.concatenate(column) for column in zip(*parts, strict=True))
        rng = stream(seed, "amortised", "fit")
        self._correction, facts = fit_score_networks(truths, features, score, number, rng)
        return facts

    def _corrected(
        self, objects: ObjectMoments, plain: Gaussian
    ) -> tuple[Gaussian, float, tuple[str, ...]]:
        corrected, doubt, converged = self._correction.posterior(objects, plain.mean)
        flags = () if converged else ("combination_not_converged",)
        if self._correction.outside(objects.each_quality) > _UNLIKE:
            flags = (*flags, "unlike_trained_groups")
        elif self._correction.untested(objects.each_quality):
            flags = (*flags, "untested_errors")
        return corrected, doubt, flags
