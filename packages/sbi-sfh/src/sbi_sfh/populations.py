r"""Stellar populations: histories with metallicities, and their spectra as coefficients.

.. math:: w_l = \sum_i \Delta M_i\,A_{il}, \qquad c = \sum_l w_l\,c_l

Stars formed between two times of the grid have the age at the later one; A distributes them over
the ages of the library. Coefficients are divided by the median of the noise-free spectrum, so that
the total mass drops out; the median is kept for mass-to-light ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sbi_sfh.config import SfhConfig
from sbi_sfh.histories import Histories, draw_histories, time_grid
from sbi_sfh.ssp import SspLibrary, age_weights

__all__ = ["Populations", "Synthesis", "mh_bins"]

F64 = NDArray[np.float64]
_CHUNK = 2048  # rows whose spectra are in memory together, for their medians


def mh_bins(config: SfhConfig) -> F64:
    """Return the 15 [M/H] of grid ``readme``: from -2.3 to 0.4, or in steps of 0.2."""
    if config.mh_bins == "linspace":
        return np.linspace(-2.3, 0.4, 15)
    return np.round(-2.3 + 0.2 * np.arange(15), 10)


@dataclass(frozen=True, slots=True)
class Populations:
    """n stellar populations of one solar mass formed.

    Parameters
    ----------
    histories
        Their star formation histories.
    mh, afe
        Effective [M/H] and [alpha/Fe] (after clamping to the library), (n,).
    coefficients
        Of the median-normalised spectrum, (n, K).
    median
        Median flux before normalisation, L_sun/Angstrom per solar mass formed, (n,).
    clamped
        Share of the mass whose age lies outside of the library, (n,).
    history
        Which history each row belongs to (several metallicities may share one), (n,).
    ok
        False where there is no history, (n,).
    """

    histories: Histories
    mh: F64
    afe: F64
    coefficients: F64
    median: F64
    clamped: F64
    history: NDArray[np.int64]
    ok: NDArray[np.bool_]


class Synthesis:
    """Makes populations with one library and one configuration.

    Parameters
    ----------
    library
        SSPs, cropped to the wavelength range.
    config
        Options.
    """

    def __init__(self, library: SspLibrary, config: SfhConfig) -> None:
        self.library, self.config = library, config
        self.time = time_grid(config.t_end)

    @cached_property
    def _ages(self) -> tuple[F64, NDArray[np.bool_]]:
        """Age weights (1000, A) of every time step, and which ages are clamped."""
        ages = self.time[-1] - self.time  # the first step holds the oldest stars
        return age_weights(ages, self.library.age_gyr, self.config.age_interp)

    def weights(self, cumulative: F64) -> tuple[F64, F64]:
        """Return masses by age (n, A) and the share with clamped age (n,) of growth curves."""
        bins = np.diff(cumulative, axis=1, prepend=0.0)
        matrix, clamped = self._ages
        return bins @ matrix, bins[:, clamped].sum(1)

    def coefficients(
        self, cumulative: F64, mh: F64, afe: F64 | None = None
    ) -> tuple[F64, F64, F64]:
        """Return normalised coefficients (n, K), medians (n,) and clamped shares (n,).

        Parameters
        ----------
        cumulative : (n, 1000)
            Growth curves on the time grid.
        mh, afe : (n,)
            [M/H] and [alpha/Fe].
        """
        weights, clamped = self.weights(cumulative)
        c = self.library.coefficients(weights, mh, afe)
        median = np.empty(len(c))
        basis = self.library.basis.astype(np.float32)
        for start in range(0, len(c), _CHUNK):
            part = slice(start, start + _CHUNK)
            # float32 with the scale taken out: the flux of one solar mass is about 1e-5
            scale = np.abs(c[part]).max(1, keepdims=True)
            flux = (c[part] / scale).astype(np.float32) @ basis
            median[part] = np.median(flux, axis=1) * scale[:, 0]
        return c / median[:, None], median, clamped

    def draw(self, n: int, rng: np.random.Generator) -> Populations:
        """Return n populations from the prior."""
        copies = self.config.copies
        histories = draw_histories(-(-n // copies), self.config, rng)
        row = np.repeat(np.arange(len(histories.ok)), copies)[:n]
        mh, afe = self._metallicities(n, rng)
        alpha = afe if self.config.afe else None
        if copies == 1:
            c, median, clamped = self.coefficients(histories.cumulative, mh, alpha)
        else:
            c, median, clamped = self.coefficients(histories.cumulative[row], mh, alpha)
        ok = histories.ok[row] & (median > 0) & np.isfinite(c).all(1)
        return Populations(histories, mh, afe, c, median, clamped, row, ok)

    def _metallicities(self, n: int, rng: np.random.Generator) -> tuple[F64, F64]:
        library, config = self.library, self.config
        low, high = library.mh[0], library.mh[-1]
        if config.grid == "readme":
            mh = np.clip(rng.choice(mh_bins(config), n), low, high)
            afe = rng.choice([0.0, 0.2, 0.4], n) if config.afe else np.zeros(n)
            return mh, np.clip(afe, library.afe[0], library.afe[-1])
        mh = rng.uniform(low, high, n)
        if not config.afe:
            return mh, np.full(n, library.afe[0])
        return mh, rng.uniform(library.afe[0], library.afe[-1], n)
