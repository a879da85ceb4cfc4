"""History and spectrum of a galaxy, recovered from its posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import Observations
from sbi_sfh.completion import complete
from sbi_sfh.own_age import delays
from sbi_sfh.residuals import Fit, fit_spectrum, observed_basis, weighted

if TYPE_CHECKING:
    from sbi_sfh.simulator import SfhSimulator

__all__ = ["Recovered", "recover_object"]

F64 = NDArray[np.float64]
_DRAWS = 100
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
    theta = np.concatenate([draws.mean(0, keepdims=True), some])
    telescope, recovery = simulator.telescope, simulator.recovery
    row = observations.batch[k]
    basis, near = simulator.library.basis, None
    if telescope.observed_mode:  # velocity dispersion and calibration, from a first history
        c = recovery.coefficients(theta[:1])[0]
        first, basis = observed_basis(telescope, c, row)
        near = first.sigma
    flux, weight, _ = weighted(row)
    if row.x_err is None:
        weight = weight / _UNKNOWN_ERROR
    late = delays(observations.labels, len(observations), simulator.config.t_end)[k]
    growth = complete(
        simulator.synthesis, theta, recovery.fractions, basis, flux, weight, max(float(late), 0.0)
    )
    number = len(recovery.fractions)
    afe = theta[:, number + 1] if simulator.config.afe else None
    c, _, _ = simulator.synthesis.coefficients(growth, theta[:, number], afe)
    fits_of = [fit_spectrum(telescope, row_c, row, near) for row_c in c]
    return Recovered(growth[1:], growth[0], fits_of[0], tuple(fits_of[1:]))
