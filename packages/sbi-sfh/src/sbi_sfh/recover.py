r"""From percentiles back to a star formation history and its spectrum.

Star formation is the derivative of the mass growth, :math:`\mathrm{SFR} = dM/dt`, but percentiles
do not fix the curve between them, and nine deciles do not constrain the last tenth of the mass,
whose young stars are bright. A spectrum completes the curve
(:mod:`sbi_sfh.completion`); without one, there are:

``bank``
    the history, of 20 000 drawn from the prior, whose percentiles are nearest, with its time axis
    stretched piecewise so that the percentiles are met exactly;
``derivative``
    a monotone cubic through (0, 0), (t_q, q), (T, 1), as published;
``short-tail``
    the same, with the last tenth formed within t90 - t80 after t90.

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (derivative of the mass growth)
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from sbi_core import ConfigError, stream
from sbi_sfh.gaussian_process import monotone_cubic
from sbi_sfh.histories import Histories, draw_histories, fractions_of
from sbi_sfh.populations import Synthesis

__all__ = ["METHODS", "Recovery", "star_formation_rate"]

F64 = NDArray[np.float64]
Method = Literal["bank", "nearest", "derivative", "short-tail"]
METHODS: tuple[Method, ...] = ("bank", "nearest", "derivative", "short-tail")
_BANK = 20_000
_SEED = 20240658
_GAP = 1e-5  # Gyr between points of a curve


def star_formation_rate(cumulative: ArrayLike, time: ArrayLike) -> F64:
    """Return the star formation rate per unit mass formed [1/Gyr] of growth curves (n, m)."""
    return np.asarray(np.gradient(np.asarray(cumulative, float), np.asarray(time, float), axis=1))


class Recovery:
    """Growth curves and spectra of percentiles.

    Parameters
    ----------
    synthesis
        Library and options; its prior fills the bank.
    size
        Histories in the bank.
    """

    def __init__(self, synthesis: Synthesis, *, size: int = _BANK) -> None:
        self.synthesis = synthesis
        self.time = synthesis.time
        self.fractions = fractions_of(synthesis.config)
        self.size = size

    @cached_property
    def _bank(self) -> tuple[Histories, cKDTree]:
        config = self.synthesis.config
        bank = draw_histories(self.size, config, stream(_SEED, "bank"))
        tree = cKDTree(np.where(bank.ok[:, None], bank.percentiles, 1e6))
        return bank, tree

    def growth(self, theta: ArrayLike, method: Method = "bank") -> F64:
        """Return growth curves (n, 1000) of theta (n, d), whose first columns are percentiles.

        Raises
        ------
        ConfigError
            If the method is unknown.
        """
        times = np.asarray(theta, np.float64)[:, : len(self.fractions)]
        if method in ("bank", "nearest"):
            return self._from_bank(times, stretch=method == "bank")
        if method not in METHODS:
            msg = f"unknown method '{method}' of recovery; choose among {', '.join(METHODS)}"
            raise ConfigError(msg)
        return self._cubic(times, short=method == "short-tail")

    def _from_bank(self, times: F64, *, stretch: bool) -> F64:
        bank, tree = self._bank
        _, nearest = tree.query(times)
        curves = bank.cumulative[nearest]
        if not stretch:
            return curves
        end = self.time[-1]
        ends = np.tile([0.0, end], (len(times), 1))
        ours = np.concatenate([ends[:, :1], times, ends[:, 1:]], 1)
        theirs = np.concatenate([ends[:, :1], bank.percentiles[nearest], ends[:, 1:]], 1)
        out = np.empty_like(curves)
        for k in range(len(times)):  # times of the bank's history for each time of the galaxy
            at = np.interp(self.time, ours[k], theirs[k])
            out[k] = np.interp(at, self.time, curves[k])
        return np.asarray(np.maximum.accumulate(out, axis=1))

    def _cubic(self, times: F64, *, short: bool) -> F64:
        n, end = len(times), self.time[-1]
        x = [np.zeros((n, 1)), times]
        y = [np.zeros((n, 1)), np.tile(self.fractions, (n, 1))]
        if short:
            full = np.minimum(times[:, -1:] + (times[:, -1:] - times[:, -2:-1]), end - _GAP)
            x.append(np.maximum(full, times[:, -1:] + _GAP))
            y.append(np.ones((n, 1)))
        x.append(np.full((n, 1), end))
        y.append(np.ones((n, 1)))
        points = np.concatenate(x, 1)
        steps = _GAP * np.arange(points.shape[1])
        points = np.maximum.accumulate(points - steps, axis=1) + steps
        curve = monotone_cubic(points, np.concatenate(y, 1), self.time)
        return np.asarray(np.clip(np.maximum.accumulate(curve, axis=1), 0.0, 1.0))

    def coefficients(self, theta: ArrayLike, method: Method = "bank") -> F64:
        """Return coefficients (n, K) of the median-normalised spectra of theta (n, d)."""
        values = np.asarray(theta, np.float64)
        k = len(self.fractions)
        afe = values[:, k + 1] if values.shape[1] > k + 1 else None
        return self.synthesis.coefficients(self.growth(values, method), values[:, k], afe)[0]

    def spectra(self, theta: ArrayLike, method: Method = "bank") -> F64:
        """Return median-normalised spectra (n, L) at the resolution of the library."""
        return np.asarray(self.coefficients(theta, method) @ self.synthesis.library.basis)
