r"""Calibration of the posterior for one pattern of observed bands, on fresh mock galaxies.

One network serves all patterns, and learns those best that are frequent in training. For a pattern
of a catalogue, mock galaxies of the prior are observed in these bands only; with the ranks r of
their true parameters and derived quantities among S draws, and v uniform on [0, 1],

.. math:: u = \frac{r + v}{S + 1}

is uniform if the posterior is calibrated. A pattern is *certified* if the smallest Kolmogorov-
Smirnov p-value of all quantities exceeds 0.01 over their number and the 68 % intervals hold 64 to
72 % of the truths. With n = 1600 mocks the standard error of a coverage is 1.17 %, and a calibrated
interval is outside these bounds with probability 6e-4 (binomial); so a calibrated posterior of 18
quantities fails one of the two tests for at most 2.2 % of the patterns. With n = 1000 it would be
outside with probability 7e-3, and fail for up to 13 %. Of the given number of network draws, more
mocks with fewer draws each tell most about the coverage.

References:
    | Talts et al. 2018, arXiv:1804.06788 (simulation-based calibration)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from sbi_core import Observations, Posterior, stream
from sbi_sedflow.derived import DERIVED

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["MaskCheck", "Masks"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_MOCKS, _DRAWS = 1600, 39
_LEVEL = 0.01
_COVERAGE = 0.04  # largest difference from 0.68: 3.4 standard errors
_RAREST = 1e-4  # share of the training set, below which a pattern is not tested
_COUNTED = 200_000  # masks drawn to estimate the shares


@dataclass(frozen=True, slots=True)
class MaskCheck:
    """Calibration for one pattern of bands.

    Parameters
    ----------
    share
        Share of the training set with this pattern.
    p
        Smallest p-value over the quantities; NaN if the pattern is too rare to be tested.
    quantity
        The quantity with that p-value.
    coverage
        Of the 68 % intervals: the one farthest from 0.68.
    quantities
        Number of quantities.
    """

    share: float
    p: float = np.nan
    quantity: str = ""
    coverage: float = np.nan
    quantities: int = 1

    @property
    def certified(self) -> bool:
        """Whether the posterior is calibrated for this pattern, as far as tested."""
        return self.p > _LEVEL / self.quantities and abs(self.coverage - 0.68) < _COVERAGE


class Masks:
    """Checks of patterns, each made once.

    Parameters
    ----------
    simulator, posterior
        Model and trained posterior.
    mocks
        Mock galaxies per pattern.
    """

    def __init__(
        self, simulator: SedflowSimulator, posterior: Posterior, mocks: int = _MOCKS
    ) -> None:
        self.simulator, self.posterior, self.mocks = simulator, posterior, mocks
        generator = torch.Generator().manual_seed(1)
        drawn = simulator.masks(_COUNTED, generator).numpy()
        patterns, counts = np.unique(drawn, axis=0, return_counts=True)
        self._shares = {
            tuple(p): int(c) / _COUNTED for p, c in zip(patterns.tolist(), counts, strict=True)
        }
        self._known: dict[tuple[bool, ...], MaskCheck] = {}

    def __call__(self, pattern: Bool) -> MaskCheck:
        """Return the check of one pattern (B,), True = observed."""
        key = tuple(bool(v) for v in pattern)
        if key not in self._known:
            self._known[key] = self._check(key)
        return self._known[key]

    def name(self, pattern: Bool) -> str:
        """Return the names of the observed bands."""
        names = self.simulator.bands.names
        return " ".join(b for b, seen in zip(names, pattern, strict=True) if seen)

    def _check(self, key: tuple[bool, ...]) -> MaskCheck:
        share = self._shares.get(key, 0.0)
        if not any(key):  # the posterior is the prior
            return MaskCheck(share, 1.0, "", 0.68)
        if share < _RAREST:
            return MaskCheck(share)
        rng = stream(1, "sedflow", "masks", *(str(int(v)) for v in key))
        simulator = self.simulator
        batch = simulator.draw(self.mocks, rng).succeeded
        mask = torch.tensor(key).expand(len(batch), -1)
        seen = simulator.observe_in(batch, mask, rng).to("cpu", torch.float32)
        draws = self.posterior.sample(
            Observations.from_batch(seen), _DRAWS, seed=int(rng.integers(2**31))
        ).values
        assert batch.theta is not None
        assert batch.context is not None
        truth = batch.theta.double().cpu().numpy()
        z = batch.context[:, 0].double()
        names = [*simulator.parameters.names, *DERIVED]
        s, n, d = draws.shape
        of_draws = simulator.model.derived(draws.reshape(s * n, d), z.expand(s, n).reshape(-1))
        of_truth = simulator.model.derived(truth, z)
        a = np.concatenate([draws, np.stack([of_draws[k].reshape(s, n) for k in DERIVED], -1)], -1)
        b = np.concatenate([truth, np.stack([of_truth[k] for k in DERIVED], -1)], -1)
        u = ((a < b).sum(0) + rng.random(b.shape) * (1 + (a == b).sum(0))) / (s + 1)
        p = np.asarray([stats.kstest(u[:, k], "uniform").pvalue for k in range(u.shape[1])])
        coverage = (np.abs(u - 0.5) < 0.34).mean(0)
        worst, far = int(np.argmin(p)), int(np.argmax(np.abs(coverage - 0.68)))
        return MaskCheck(share, float(p[worst]), names[worst], float(coverage[far]), len(p))
