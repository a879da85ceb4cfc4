"""History and spectrum of a galaxy, recovered from its posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, Observations
from sbi_sfh.completion import complete
from sbi_sfh.own_age import delays
from sbi_sfh.residuals import Fit, fit_spectrum, observed_basis, weighted

if TYPE_CHECKING:
    from sbi_sfh.simulator import SfhSimulator

__all__ = ["Mean", "Recovered", "recover_mean", "recover_object"]

F64 = NDArray[np.float64]
_DRAWS = 100
_ROUNDS = 3
_GOOD = 1.1  # chi-squared per pixel that another round hardly lowers
_UNKNOWN_ERROR = 0.01  # of the median, for spectra without errors


@dataclass(frozen=True)
class Recovered:
    """One galaxy: its history and its spectrum, recovered from the posterior.

    Parameters
    ----------
    growth
        Growth curves of draws, (S, 1000).
    mean_growth
        Growth curve of the posterior mean, (1000,).
    mean, draws
        Fit of the spectrum of the posterior mean, and of the draws.
    """

    growth: F64
    mean_growth: F64
    mean: Fit
    draws: tuple[Fit, ...]

    @property
    def best_chi2(self) -> float:
        """Smallest chi squared per pixel among the draws."""
        return min((f.chi2 for f in self.draws), default=np.nan)


def recover_object(
    simulator: SfhSimulator, observations: Observations, k: int, draws: F64, *, fits: int = _DRAWS
) -> Recovered:
    """Return history and spectrum of object k from its posterior draws (S, d).

    Between the percentiles of a draw, the history is the one that fits the spectrum best
    (:mod:`sbi_sfh.completion`).

    Parameters
    ----------
    simulator
        Library and options.
    observations
        The spectra.
    k
        Row.
    draws
        Posterior draws, with times of the model.
    fits
        Draws whose spectra are fitted; the band of histories takes as many.
    """
    some = draws[np.linspace(0, len(draws) - 1, min(fits, len(draws))).astype(int)]
    late = delays(observations.labels, len(observations), simulator.config.t_end)[k]
    row, start = observations.batch[k], max(float(late), 0.0)
    mean = recover_mean(simulator, row, draws.mean(0), start)
    if not len(some):
        return Recovered(np.empty((0, len(mean.growth))), mean.growth, mean.fit, ())
    growth, c = _completed(simulator, row, some, start, mean.basis, mean.free)
    near = mean.fit.sigma if simulator.telescope.observed_mode else None
    fits_of = [fit_spectrum(simulator.telescope, row_c, row, near) for row_c in c]
    return Recovered(growth, mean.growth, mean.fit, tuple(fits_of))


@dataclass(frozen=True)
class Mean:
    """The history of one set of parameters, and how its spectrum is observed.

    Parameters
    ----------
    growth
        Growth curve, (1000,).
    coefficients
        Of its spectrum, (K,).
    fit
        Of its spectrum.
    basis : (K, L)
        Vectors of the library as they are observed.
    free : (m, L)
        Changes of the spectrum with calibration and velocity; None in mode ``mock``.
    """

    growth: F64
    coefficients: F64
    fit: Fit
    basis: F64
    free: F64 | None


def recover_mean(simulator: SfhSimulator, row: Batch, theta: F64, start: float) -> Mean:
    """Return the history with parameters theta (d,) that fits one spectrum best.

    In mode ``observed`` velocity dispersion and calibration are those of a first history; where the
    result does not fit and has another dispersion, they are those of the result, once more.
    """
    telescope, rows = simulator.telescope, theta[None]
    if not telescope.observed_mode:
        basis = simulator.library.basis
        growth, c = _completed(simulator, row, rows, start, basis, None)
        return Mean(growth[0], c[0], fit_spectrum(telescope, c[0], row), basis, None)
    first = simulator.first_guess.coefficients(rows)[0]
    fit, basis, free = observed_basis(telescope, first, row)
    for _ in range(_ROUNDS):
        near = fit.sigma
        growth, c = _completed(simulator, row, rows, start, basis, free)
        fit, basis, free = observed_basis(telescope, c[0], row, near)
        if fit.sigma == near or fit.chi2 < _GOOD:
            break
    return Mean(growth[0], c[0], fit, basis, free)


def _completed(
    simulator: SfhSimulator, row: Batch, theta: F64, start: float, basis: F64, free: F64 | None
) -> tuple[F64, F64]:
    """Return growth curves (n, 1000) of parameters (n, d), and coefficients (n, K)."""
    synthesis, fractions = simulator.synthesis, simulator.recovery.fractions
    flux, weight, _ = weighted(row)
    if row.x_err is None:
        weight = weight / _UNKNOWN_ERROR
    growth = complete(synthesis, theta, fractions, basis, flux, weight, start, free)
    number = len(fractions)
    afe = theta[:, number + 1] if simulator.config.afe else None
    return growth, synthesis.coefficients(growth, theta[:, number], afe)[0]
