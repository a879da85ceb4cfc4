r"""Support score of data whose distances depend on their noise.

Summaries of data, such as block means of a spectrum, scatter more where the data are noisier. Among
simulations with the noise of training, the noisiest objects are then the most distant ones, whether
or not a simulation can describe them. With the typical error of an object

.. math:: s = \mathrm{median}_i\,\sigma_i ,

its second percentile is taken among simulations that were observed like objects of similar s, and
the smaller of the two counts: an object is outside if it is farther from the simulations than
training goes and than its own noise explains. It is far outside if it is so on both scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core.diagnostics.support import SupportScale, compared

if TYPE_CHECKING:
    from sbi_core.data.batch import Batch

__all__ = ["SupportByNoise", "typical_error"]

F64 = NDArray[np.float64]
_WIDTH = 0.15  # of a bin of log10 s
_BINS = 8


class SupportByNoise(SupportScale):
    """The scale of the support score for summaries with errors.

    Parameters
    ----------
    donors
        Summaries of observed objects with the errors of the summaries (``x_err``).
    simulated
        Summaries of simulations with the noise of training.
    rng
        Chooses the reference simulations.
    observe
        Returns summaries of simulations observed like given rows of ``donors``.
    threads
        That look for neighbours.

    The errors select the references; the distances do not use them.
    """

    def __init__(
        self,
        donors: Batch,
        simulated: Batch,
        rng: np.random.Generator,
        *,
        observe: Callable[[NDArray[np.int64]], Batch],
        threads: int = 1,
    ) -> None:
        super().__init__(_without_errors(donors), _without_errors(simulated), rng, threads=threads)
        level = np.log10(typical_error(donors))
        self._edges = _edges(level)
        which = np.searchsorted(self._edges, level)
        self._alike = [
            self.scores(_without_errors(observe(np.flatnonzero(which == k))))
            for k in range(len(self._edges) + 1)
        ]

    def compare(self, observed: Batch) -> tuple[F64, NDArray[np.bool_]]:
        """Return the support percentile of every object, and True where it is far outside, (n,)."""
        plain = _without_errors(observed)
        percentile, far = super().compare(plain)
        if len(observed) == 0:
            return percentile, far
        which = np.searchsorted(self._edges, np.log10(typical_error(observed)))
        for k in np.unique(which):
            rows = np.flatnonzero(which == k)
            alike, far_from_alike = compared(self.scores(plain[rows]), self._alike[k])
            percentile[rows] = np.minimum(percentile[rows], alike)
            far[rows] &= far_from_alike
        return percentile, far


def typical_error(summaries: Batch) -> F64:
    """Return the median error of the observed summaries of every object, (n,)."""
    assert summaries.x_err is not None
    err = summaries.x_err.reshape(len(summaries), -1).double().cpu().numpy()
    positive = np.where(err > 0, err, np.nan)  # 0: not observed
    none = ~np.isfinite(positive).any(1)
    positive[none] = 1.0
    return np.asarray(np.nanmedian(positive, axis=1))


def _without_errors(batch: Batch) -> Batch:
    return batch.with_(x_err=None)


def _edges(level: F64) -> F64:
    """Return edges between bins of the levels (n,), each of which holds some of them."""
    found = np.sort(level)
    width = max(_WIDTH, float(found[-1] - found[0]) / _BINS)
    edges, start = [], found[0]
    for before, value in zip(found[:-1], found[1:], strict=True):
        if value > start + width:
            edges.append(0.5 * (before + value))
            start = value
    return np.array(edges)
