r"""Is a halo like the simulated ones, as the trained network sees them?

The distance of its summary to the tenth nearest of simulated halos of the training galaxies, in
units of their scatter (:func:`sbi_core.diagnostics.cloud_percentile`); halos of held-out galaxies
say which percentile that is, because an observed halo is made of galaxies never seen. Sums and
moments of the plane hardly notice galaxies of other physics, which the summaries were trained to
tell apart. The threshold lets 4 % of the halos of the same physics be flagged, and finds four out
of five of others (benchmarks/casbi/cross_library.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, Rng, as_generator, diagnostics

if TYPE_CHECKING:
    from sbi_casbi.estimator import SetEstimator
    from sbi_casbi.library import Split
    from sbi_casbi.simulator import CasbiSimulator

__all__ = ["UNLIKE_TRAINING", "summary_percentile"]

F64 = NDArray[np.float64]
_NEIGHBOURS = 10
UNLIKE_TRAINING = 96.0  # percentile above which a halo is flagged


def summary_percentile(
    simulator: CasbiSimulator,
    estimator: SetEstimator,
    batch: Batch,
    rng: Rng,
) -> F64:
    """Return the percentile (n,) of the distance of halos from simulated ones.

    Parameters
    ----------
    simulator
        Gives the simulated halos: ``support_halos`` of the training galaxies, among which
        neighbours are sought, and a quarter as many of held-out galaxies.
    estimator
        Whose summaries are compared.
    batch
        Observed halos.
    rng
        Where randomness comes from.
    """
    gen, size = as_generator(rng), simulator.config.support_halos

    def summaries(halos: int, split: Split) -> F64:
        drawn = simulator.observe(simulator.draw_from(halos, gen, split), gen)
        return estimator.summaries(drawn)

    return diagnostics.cloud_percentile(
        estimator.summaries(batch),
        summaries(size, "train"),
        summaries(size // 4, "test"),
        neighbours=_NEIGHBOURS,
    )
