"""Comparison of galaxies with the training set: photometric errors and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sbi_core import stream
from sbi_sedflow.likelihood import Galaxies
from sbi_sedflow.luptitudes import flux_of, luptitude
from sbi_sedflow.noise import floor_error

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Support"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_SIMULATIONS = 20_000
_BINS = 12  # of luptitude, per band
_NEIGHBOURS = 10
_TOP = 99.9  # percentile


class Support:
    """Errors at given brightness, and colours, of simulated galaxies.

    Built from 20,000 observed simulations. An object's *colour score* is the distance to the 10th
    nearest simulation in colours and absolute level, over its observed bands, in units of the
    typical error; the percentile is taken among simulations with the same number of bands.

    Parameters
    ----------
    simulator
        Simulator of the training set.
    seed
        Seed of the simulations.
    """

    def __init__(self, simulator: SedflowSimulator, seed: int = 0) -> None:
        rng = stream(seed, "sedflow", "support")
        batch = simulator.draw(_SIMULATIONS, rng).succeeded
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        assert batch.context is not None
        self._softening = simulator.bands.softening
        flux = flux_of(batch.x, self._softening)
        sigma = simulator.noise.sigma(flux, generator)
        total = torch.sqrt(sigma**2 + floor_error(flux, simulator.floor) ** 2)
        noise = torch.randn(flux.shape, generator=generator, dtype=flux.dtype)
        seen = flux + total * noise
        everything = torch.ones_like(seen, dtype=torch.bool)
        self._training = Galaxies(seen, sigma, everything, batch.context.double())
        self._mu = luptitude(seen, self._softening).numpy()
        self._log_sigma = torch.log10(sigma).numpy()
        self._dm = batch.context[:, 1].numpy()
        self._edges, self._low, self._high = self._error_ranges()
        self._trees: dict[tuple[bool, ...], tuple[cKDTree, F64]] = {}

    def _error_ranges(self) -> tuple[F64, F64, F64]:
        edges = np.quantile(self._mu, np.linspace(0, 1, _BINS + 1)[1:-1], axis=0)  # (K - 1, B)
        n_bands = self._mu.shape[1]
        low, high = np.empty((_BINS, n_bands)), np.empty((_BINS, n_bands))
        for b in range(n_bands):
            which = np.searchsorted(edges[:, b], self._mu[:, b])
            for k in range(_BINS):
                part = self._log_sigma[which == k, b]
                low[k, b], high[k, b] = np.percentile(part, [100 - _TOP, _TOP])
        return edges, low, high

    def wide_noise(self, galaxies: Galaxies) -> Bool:
        """Return which galaxies have an error outside the training range at their brightness."""
        mu = luptitude(galaxies.flux, self._softening).numpy()
        log_sigma = torch.log10(galaxies.sigma).numpy()
        mask = galaxies.mask.numpy()
        odd = np.zeros(len(galaxies), bool)
        for b in range(mu.shape[1]):
            k = np.searchsorted(self._edges[:, b], mu[:, b])
            s = log_sigma[:, b]
            odd |= mask[:, b] & ((s < self._low[k, b]) | (s > self._high[k, b]))
        return odd

    def colour_percentile(self, galaxies: Galaxies) -> F64:
        """Return the percentile of the colour score of every galaxy, (n,)."""
        out = np.full(len(galaxies), np.nan)
        mask = galaxies.mask.numpy()
        mu = luptitude(galaxies.flux, self._softening).numpy()
        dm = galaxies.context[:, 1].numpy()
        for pattern in np.unique(mask, axis=0):
            rows = (mask == pattern).all(1)
            if not pattern.any():
                continue
            tree, reference = self._tree(tuple(bool(v) for v in pattern))
            at = _coordinates(mu[rows][:, pattern], dm[rows])
            distance = tree.query(at, k=[_NEIGHBOURS])[0][:, 0]
            out[rows] = 100.0 * np.searchsorted(reference, distance) / len(reference)
        return out

    def _tree(self, pattern: tuple[bool, ...]) -> tuple[cKDTree, F64]:
        if pattern not in self._trees:
            at = _coordinates(self._mu[:, list(pattern)], self._dm)
            half = len(at) // 2
            tree = cKDTree(at[:half])
            reference = np.sort(tree.query(at[half:], k=[_NEIGHBOURS])[0][:, 0])
            self._trees[pattern] = tree, reference
        return self._trees[pattern]


def _coordinates(mu: F64, dm: F64) -> F64:
    """Return colours of neighbouring bands and the absolute level, (n, k)."""
    return np.concatenate([np.diff(mu, axis=1), (mu.mean(1) - dm)[:, None]], 1)
