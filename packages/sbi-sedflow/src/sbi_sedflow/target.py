r"""The posterior of one galaxy as a function of unconstrained coordinates.

.. math:: \log \pi(y) = \log p(f_\mathrm{obs}\,|\,\theta(y), \sigma) + \log N(y; 0, I)

with :math:`y = \Phi^{-1}(F(\theta))`: an unbounded space, or the unit cube :math:`u = \Phi(y)`,
with the same batched likelihood.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sbi_sedflow.likelihood import Galaxies, chi_squared, log_likelihood, model_fluxes

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Target"]

F64 = NDArray[np.float64]
_FAR = 5.19  # |y| beyond which the map to theta is clamped


class Target:
    """Exact posterior of one galaxy.

    Parameters
    ----------
    simulator
        Model and priors.
    galaxy
        One row.

    Attributes
    ----------
    calls
        Likelihood evaluations so far.
    """

    def __init__(self, simulator: SedflowSimulator, galaxy: Galaxies) -> None:
        self.simulator, self.galaxy = simulator, galaxy
        self.space = simulator.parameters
        self.dim = self.space.z_dim
        self.calls = 0

    def theta(self, y: F64) -> F64:
        """Return parameters (n, 12) of y (n, 11)."""
        return self.space.from_unconstrained(np.clip(y, -_FAR, _FAR))

    def log_likelihood(self, y: F64) -> F64:
        """Return log p(f_obs | y), (n,)."""
        self.calls += len(y)
        return log_likelihood(self.simulator, self.theta(y)[:, None], self.galaxy)[:, 0]

    def log_prob(self, y: F64) -> F64:
        """Return the unnormalised log posterior of y (n, 11)."""
        y = np.atleast_2d(y)
        prior = -0.5 * (y**2).sum(1) - 0.5 * self.dim * math.log(2 * math.pi)
        return np.where((np.abs(y) < 8).all(1), self.log_likelihood(y) + prior, -np.inf)

    def best_p(self, y: F64) -> float:
        """Return the p-value of the smallest chi-squared of y (n, 11)."""
        self.calls += len(y)
        flux = model_fluxes(self.simulator, self.theta(y)[:, None], self.galaxy)
        smallest = chi_squared(flux, self.galaxy, self.simulator.floor).min()
        return float(stats.chi2.sf(smallest, max(int(self.galaxy.mask.sum()), 1)))

    def log_likelihood_cube(self, u: F64) -> F64:
        """Return log p(f_obs | u) for u (n, 11) in the unit cube."""
        return self.log_likelihood(special.ndtri(np.clip(np.atleast_2d(u), 1e-9, 1 - 1e-9)))
