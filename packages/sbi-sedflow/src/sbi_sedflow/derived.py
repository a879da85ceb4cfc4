r"""Quantities derived from the twelve parameters and the redshift.

.. math:: \mathrm{SFR}_T &= \frac{M_\star}{T}
          \Big[(1 - f_b) \sum_{t < T} m_i + f_b\,\mathbf 1(t_b < T)\Big],
          \qquad T = 1\,\mathrm{Gyr},\ 100\,\mathrm{Myr} \\
          Z_\mathrm{mw} &= (1 - f_b) \sum m_i Z_i + f_b Z(t_b), \qquad
          t_\mathrm{mw} = (1 - f_b) \sum m_i t_i + f_b t_b \\
          \ell &= (1 - f_b) \sum m_i\, \ell(t_i, Z_i) + f_b\,\ell(t_b, Z(t_b))

with :math:`f_b = 0` when the burst would be older than the Universe, and the bin that holds T
split linearly. The code of PROVABGS puts the burst at the middle of its bin in the last two.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_sedflow.history import Histories
from sbi_sedflow.interpolate import place
from sbi_sedflow.ssp import Library

__all__ = ["DERIVED", "derived_quantities", "recent_share"]

F64 = NDArray[np.float64]
DERIVED = {
    "sfr_1gyr": "Msun / yr",
    "sfr_100myr": "Msun / yr",
    "z_mw": "",
    "tage_mw": "Gyr",
    "msurv_frac": "",
    "logmsurv": "dex(Msun)",
}


def recent_share(history: Histories, t: float = 1.0) -> Tensor:
    """Return the share of mass formed in the last t Gyr, without burst, (n,)."""
    width = torch.diff(history.edges, dim=1)
    inside = ((t - history.edges[:, :-1]) / width).clamp(0.0, 1.0)
    return (history.mass * inside).sum(1)


def derived_quantities(
    theta: Tensor,
    history: Histories,
    library: Library,
    *,
    f_burst: Tensor,
    burst_in_bin: bool = False,
) -> dict[str, F64]:
    """Return the quantities of :data:`DERIVED`, each (n,), in their units.

    Parameters
    ----------
    theta : (n, 12)
        Parameters.
    history
        Their histories.
    library
        For the living fraction.
    f_burst : (n,)
        Share of the burst in the mass.
    burst_in_bin
        Put the burst at the middle of its bin, as the code of PROVABGS does.
    """
    logm, t_b = theta[:, 0], theta[:, theta.shape[1] - 6]
    z_b = history.burst_metallicity
    t_age = t_b
    if burst_in_bin:
        k = (history.edges[:, 1:] > t_b[:, None]).double().argmax(1)
        rows = torch.arange(len(theta))
        t_age, z_b = history.middle[rows, k], history.metallicity[rows, k]
    rest = 1 - f_burst
    living = _living(library, history.middle, history.metallicity)
    living_burst = _living(library, t_b[:, None], history.burst_metallicity[:, None])[:, 0]
    survived = rest * (history.mass * living).sum(1) + f_burst * living_burst
    rate = {
        t: 10.0 ** (logm - 9) / t * (rest * recent_share(history, t) + f_burst * (t_b < t))
        for t in (1.0, 0.1)
    }
    quantities = {
        "sfr_1gyr": rate[1.0],
        "sfr_100myr": rate[0.1],
        "z_mw": rest * (history.mass * history.metallicity).sum(1) + f_burst * z_b,
        "tage_mw": rest * (history.mass * history.middle).sum(1) + f_burst * t_age,
        "msurv_frac": survived,
        "logmsurv": logm + torch.log10(survived),
    }
    return {name: value.numpy() for name, value in quantities.items()}


def _living(library: Library, age: Tensor, metallicity: Tensor) -> Tensor:
    """Return the living fraction, linear in log10 age and log10 Z, clamped at the ends."""
    common = bool((age[:, :-1] == age[:1, :-1]).all())  # all bins but the last, as a rule
    if common and len(age) > 1:
        known = _age_index(library, age[:1, :-1]).expand(len(age), -1)
        a = torch.cat([known, _age_index(library, age[:, -1:])], 1)
    else:
        a = _age_index(library, age)
    z = place(torch.as_tensor(np.log10(library.metallicity)), torch.log10(metallicity))
    table = torch.as_tensor(library.living)
    n_z = table.shape[1]
    k, m = a.long().clamp_max(len(table) - 2), z.long().clamp_max(n_z - 2)
    wa, wz, corner, flat = a - k, z - m, k * n_z + m, table.reshape(-1)
    low = torch.lerp(flat[corner], flat[corner + 1], wz)
    high = torch.lerp(flat[corner + n_z], flat[corner + n_z + 1], wz)
    return torch.lerp(low, high, wa)


def _age_index(library: Library, age: Tensor) -> Tensor:
    return place(torch.as_tensor(np.log10(library.age_gyr)), torch.log10(age.clamp_min(1e-6)))
