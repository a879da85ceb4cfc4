r"""From parameters to mass formed and metallicity in every bin of lookback time.

Edges (Gyr): 0; :math:`10^{6.05 + 0.1 k - 9}`, k = 0..40; the age of the Universe at z. In bin i,

.. math:: m_i = \frac{\max(\sum_j \beta_j \int_i s_j\,\mathrm dt,\, 0)}
          {\sum_i \max(\sum_j \beta_j \int_i s_j\,\mathrm dt,\, 0)}, \qquad
          Z_i = \mathrm{clip}\Big(\sum_k \gamma_k z_k(t_i),\; 4.49\times10^{-5},\;
          4.49\times10^{-2}\Big)

with :math:`t_i` the middle of the bin. 41 bins are the same for all redshifts up to 0.2; the last
one ends at the age of the Universe. At higher redshifts the bin that holds the age of the Universe
ends there, and older bins are empty.

References:
    | Hahn et al. 2023, ApJ 945, 16, section 3 (model); its code for edges and limits
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_sedflow.bases import Bases
from sbi_sedflow.cosmology import age_gyr

__all__ = ["EDGES", "MIDDLES", "Z_CEIL", "Z_FLOOR", "Histories", "HistoryModel"]

F64 = NDArray[np.float64]
EDGES: F64 = np.concatenate([[0.0], 10.0 ** (6.05 + 0.1 * np.arange(41) - 9)])  # Gyr
MIDDLES: F64 = 0.5 * (EDGES[1:] + EDGES[:-1])  # Gyr, of the 41 fixed bins
Z_FLOOR, Z_CEIL = 4.49043431e-5, 4.49043431e-2  # absolute metallicity, limits of PROVABGS


@dataclass(frozen=True)
class Histories:
    """Star-formation and metallicity histories of n galaxies; float64.

    Parameters
    ----------
    mass : (n, 42)
        Share of the mass formed in every bin, without burst; sums to 1.
    metallicity : (n, 42)
        Absolute Z of every bin.
    middle : (n, 42) Gyr
        Lookback time of the middle of every bin.
    edges : (n, 43) Gyr
        Their edges.
    age : (n,) Gyr
        Age of the Universe.
    burst_metallicity : (n,)
        Absolute Z at the time of the burst.
    """

    mass: Tensor
    metallicity: Tensor
    middle: Tensor
    edges: Tensor
    age: Tensor
    burst_metallicity: Tensor


class HistoryModel:
    """Histories of given bases, batched.

    Parameters
    ----------
    bases
        J star-formation and K metallicity bases.
    """

    def __init__(self, bases: Bases) -> None:
        self.bases = bases
        fixed = np.diff(bases.formed(EDGES), axis=1)
        self._fixed = torch.tensor(fixed)  # (J, 41)
        self._formed_until = torch.as_tensor(bases.formed(EDGES[-1:])[:, 0])
        self._zh = torch.tensor(bases.metallicity(MIDDLES))  # (K, 41)

    def __call__(self, beta: Tensor, gamma: Tensor, tburst: Tensor, z: Tensor) -> Histories:
        """Return histories.

        Parameters
        ----------
        beta : (n, J)
            Coefficients of star formation.
        gamma : (n, K)
            Coefficients of metallicity.
        tburst : (n,) Gyr
            Lookback time of the burst.
        z : (n,)
            Redshifts.
        """
        redshift = z.double().cpu().numpy()
        unique, inverse = np.unique(redshift, return_inverse=True)
        ages = age_gyr(unique)
        until = torch.as_tensor(self.bases.formed(ages))[:, inverse].T  # (n, J)
        age = torch.as_tensor(ages)[torch.as_tensor(inverse)]
        beta, gamma = beta.double(), gamma.double()
        last = (beta * (until - self._formed_until)).sum(1, keepdim=True)
        mass = torch.cat([beta @ self._fixed, last], 1).clamp_min(0.0)
        mass = mass / mass.sum(1, keepdim=True)
        middle_last = 0.5 * (age + EDGES[-1])
        last_zh = self._metallicity(gamma, middle_last)
        metallicity = torch.cat([gamma @ self._zh, last_zh[:, None]], 1)
        n = len(beta)
        fixed_middle = torch.as_tensor(MIDDLES).expand(n, -1)
        fixed_edges = torch.as_tensor(EDGES).expand(n, -1)
        middle = torch.cat([fixed_middle, middle_last[:, None]], 1)
        edges = torch.cat([fixed_edges, age[:, None]], 1)
        early = age < EDGES[-1]
        if bool(early.any()):
            edges[early] = edges[early].minimum(age[early, None])
            middle[early] = 0.5 * (edges[early, 1:] + edges[early, :-1])
            mass[early] = self._masses(beta[early], edges[early])
            zh = torch.as_tensor(self.bases.metallicity(middle[early].reshape(-1).numpy()))
            zh = zh.reshape(len(zh), *middle[early].shape)
            metallicity[early] = torch.einsum("nk,knb->nb", gamma[early], zh)
        return Histories(
            mass=mass,
            metallicity=metallicity.clamp(Z_FLOOR, Z_CEIL),
            middle=middle,
            edges=edges,
            age=age,
            burst_metallicity=self._metallicity(gamma, tburst.double()).clamp(Z_FLOOR, Z_CEIL),
        )

    def _masses(self, beta: Tensor, edges: Tensor) -> Tensor:
        """Return the mass in bins with edges (n, 43) that differ from row to row."""
        formed = torch.as_tensor(self.bases.formed(edges.reshape(-1).numpy()))
        each = torch.diff(formed.reshape(len(formed), *edges.shape), dim=2)
        mass = torch.einsum("nj,jnb->nb", beta, each).clamp_min(0.0)
        return mass / mass.sum(1, keepdim=True)

    def _metallicity(self, gamma: Tensor, t: Tensor) -> Tensor:
        """Return Z without limits at one time per row, (n,)."""
        basis = torch.as_tensor(self.bases.metallicity(t.numpy()))  # (K, n)
        return (gamma * basis.T).sum(1)
