"""Results of chempy beside the parameters: flags of stars whose age the model cannot have."""

from __future__ import annotations

from typing import ClassVar

from sbi_chempy.constants import T_END_GYR
from sbi_core import Analysis, Observations, Posterior, PosteriorSamples

__all__ = ["ChempyAnalysis"]

OLDER = "older_than_universe"
FUTURE = "born_in_the_future"


class ChempyAnalysis(Analysis):
    """Flag stars with an observed birth time outside the model; they are used all the same."""

    name = "chempy"
    flag_meanings: ClassVar[dict[str, str]] = {
        OLDER: f"the age is above that of the Universe ({T_END_GYR:.2f} Gyr); it is used as "
        "measured, with its error: check it if it is more than two errors above",
        FUTURE: "the age is negative; it is used as measured, with its error",
    }

    def describe(
        self, posterior: Posterior, objects: Observations, samples: PosteriorSamples, seed: int
    ) -> PosteriorSamples:
        """Return the draws with the flags."""
        context = objects.batch.context
        if context is None:
            return samples
        time, _, seen = context.double().unbind(1)
        older, future = (seen > 0) & (time < 0), (seen > 0) & (time > T_END_GYR)
        flags = [
            OLDER if a else FUTURE if b else ""
            for a, b in zip(older.tolist(), future.tolist(), strict=True)
        ]
        return samples.described(flags=flags)
