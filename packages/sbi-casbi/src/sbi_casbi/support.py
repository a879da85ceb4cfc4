r"""Comparison of a halo with the simulated halos, in the summaries of the trained network.

The score is the distance of its summary from the tenth nearest summary of simulated halos of
training galaxies (:func:`sbi_core.diagnostics.distance_percentile`). Its percentile is taken among
halos of held-out galaxies, because an observed halo also consists of galaxies that the network was
not trained on. Sums and moments of the plane hardly react to galaxies of other physics; the
summaries, trained to tell galaxies apart, do. How often halos of the same and of other physics are
flagged is measured by benchmarks/casbi/cross_library.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import Rng, as_generator, diagnostics

if TYPE_CHECKING:
    from sbi_casbi.estimator import SetEstimator
    from sbi_casbi.library import Split
    from sbi_casbi.simulator import CasbiSimulator

__all__ = ["UNLIKE_TRAINING", "reference_summaries", "summary_percentile"]

F64 = NDArray[np.float64]
_NEIGHBOURS = 10
UNLIKE_TRAINING = 97.5  # percentile above which a halo is flagged


def reference_summaries(
    simulator: CasbiSimulator, estimator: SetEstimator, rng: Rng
) -> tuple[F64, F64]:
    """Return the summaries of simulated halos of training (m, d) and of held-out galaxies (r, d).

    Parameters
    ----------
    simulator
        Draws ``support_halos`` of training galaxies, and a quarter as many of held-out galaxies.
    estimator
        Makes the summaries.
    rng
        Seed or generator.
    """
    gen, size = as_generator(rng), simulator.config.support_halos

    def summaries(halos: int, split: Split) -> F64:
        drawn = simulator.observe(simulator.draw_from(halos, gen, split), gen)
        return estimator.summaries(drawn)

    return summaries(size, "train"), summaries(size // 4, "test")


def summary_percentile(ours: F64, trained: F64, held_out: F64) -> F64:
    """Return the percentile (n,) of the distance of halos from simulated ones.

    Parameters
    ----------
    ours
        Summaries of the observed halos, (n, d).
    trained, held_out
        See :func:`reference_summaries`; neighbours are searched among the former.
    """
    return diagnostics.distance_percentile(ours, trained, held_out, neighbours=_NEIGHBOURS)
