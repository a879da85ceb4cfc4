r"""Comparison of posterior and prior for quantities that broad bands hardly constrain.

The star-formation rate per mass formed, the age as a share of that of the Universe, and the
metallicity have priors that do not depend on mass. The *width* of a posterior is half of its
central 68 % interval. The prior dominates a quantity that the data leave about as wide as it was.
It dominates the rate also where

* it lies in the lowest tail of the prior: histories of less star formation are hardly in it, and
  the posterior ends where the prior does;
* it is an upper limit. With the percentiles q of the posterior of the log specific rate, and the
  distribution F of the prior and its quantiles Q,

  .. math:: L = \frac{q_{84} - q_{16}}{q_{84} - Q\big(\tfrac{16}{84} F(q_{84})\big)}

  is 1 for the prior cut off at :math:`q_{84}`: below its upper end such a posterior has the shape
  of the prior. It is small for a rate that the data measure.

References:
    | Hahn et al. 2023, ApJ 945, 16 (priors of derived quantities in PROVABGS)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbi_core import stream
from sbi_sedflow.cosmology import age_gyr

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["QUANTITIES", "PriorWidth"]

F64 = NDArray[np.float64]
QUANTITIES = ("ssfr", "tage", "z")
_DRAWS, _NODES = 4000, 5  # per redshift; redshifts
_AS_WIDE = 0.85  # of the prior
_TAIL = 5.0  # percentile of the prior
_LIMIT = (
    0.8  # of L: exact posteriors of star-forming mocks have less (99 %), of quiescent more (90 %)
)


class PriorWidth:
    """Widths of the prior by redshift.

    Parameters
    ----------
    simulator
        Model and priors.
    """

    def __init__(self, simulator: SedflowSimulator) -> None:
        c = simulator.config
        self._z = np.linspace(c.z_min, c.z_max, _NODES)
        theta = simulator.parameters.sample(_DRAWS, stream(0, "sedflow", "prior width"))
        widths, rates = [], []
        for z in self._z:
            redshift = np.full(_DRAWS, z)
            values = _quantities(theta, simulator.model.derived(theta, redshift), redshift)
            widths.append(_width(values, axis=1))
            rates.append(np.sort(values[0]))
        self._widths, self._rates = np.asarray(widths), np.asarray(rates)

    def __call__(
        self, theta: F64, derived: dict[str, F64], z: F64
    ) -> tuple[F64, NDArray[np.bool_]]:
        """Return widths over those of the prior, and which quantities the prior dominates.

        Parameters
        ----------
        theta : (S, n, d)
            Draws.
        derived
            Their derived quantities, (S, n) each.
        z : (n,)
            Redshifts.

        Returns
        -------
        tuple
            (3, n) twice, in the order of :data:`QUANTITIES`.
        """
        values = _quantities(theta, derived, z)
        prior = np.stack([np.interp(z, self._z, w) for w in self._widths.T])
        ratio = _width(values, axis=1) / prior
        tails = np.percentile(self._rates, _TAIL, axis=1)
        dominated = ratio > _AS_WIDE
        dominated[0] |= np.median(values[0], axis=0) < np.interp(z, self._z, tails)
        dominated[0] |= self._limits(values[0], z) > _LIMIT
        return ratio, dominated

    def _limits(self, rate: F64, z: F64) -> F64:
        """Return L of draws of the log specific SFR (S, n), (n,): 1 for an upper limit."""
        low, high = np.percentile(rate, [16, 84], axis=0)
        node = np.abs(z[:, None] - self._z).argmin(1)
        below = np.asarray(
            [self._rates[k].searchsorted(h) for k, h in zip(node, high, strict=True)]
        )
        end = self._rates[node, (below * 16) // 84]
        return np.asarray((high - low) / np.maximum(high - end, 1e-6))


def _quantities(theta: F64, derived: dict[str, F64], z: F64) -> F64:
    """Return log sSFR, t / t_age and log Z, (3, ...)."""
    rate = np.log10(np.maximum(derived["sfr_1gyr"], 1e-12)) - theta[..., 0]
    return np.stack([rate, derived["tage_mw"] / age_gyr(z), np.log10(derived["z_mw"])])


def _width(values: F64, axis: int) -> F64:
    low, high = np.percentile(values, [16, 84], axis=axis)
    return np.asarray(0.5 * (high - low))
