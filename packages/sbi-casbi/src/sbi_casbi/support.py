r"""Is a halo like the simulated ones, as the trained network sees them?

.. math:: D^2 = (h - \bar h)^\top C^{-1} (h - \bar h)

with h the summary of the plane, and mean and covariance over simulated halos of the training
galaxies; other simulated halos say which percentile D is. Sums and moments of the plane hardly
notice galaxies of other physics, which the summaries were trained to tell apart. The threshold lets
4 % of the halos of the same physics be flagged, and finds four out of five of others
(benchmarks/casbi/cross_library.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, Rng, as_generator, diagnostics

if TYPE_CHECKING:
    from sbi_casbi.estimator import SetEstimator
    from sbi_casbi.simulator import CasbiSimulator

__all__ = ["UNLIKE_TRAINING", "summary_percentile"]

F64 = NDArray[np.float64]
UNLIKE_TRAINING = 97.0  # percentile above which a halo is flagged


def summary_percentile(
    simulator: CasbiSimulator,
    estimator: SetEstimator,
    batch: Batch,
    rng: Rng,
    *,
    references: int = 3000,
) -> F64:
    """Return the percentile (n,) of D of halos among simulated ones.

    Parameters
    ----------
    simulator
        Gives the simulated halos, of the training galaxies.
    estimator
        Whose summaries are compared.
    batch
        Observed halos.
    rng
        Where randomness comes from.
    references
        Simulated halos that set mean and covariance; as many again set the percentiles.
    """
    gen = as_generator(rng)
    known = simulator.observe(simulator.draw_from(2 * references, gen, "train"), gen)
    cloud, others, mine = (
        estimator.summaries(b) for b in (known[:references], known[references:], batch)
    )
    return diagnostics.mahalanobis_percentile(mine, cloud, others)
