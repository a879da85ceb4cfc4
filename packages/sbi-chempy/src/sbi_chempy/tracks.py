"""Time tracks of a galaxy: what the engine computes between the start and the birth time.

The 28 points are those of :class:`sbi_chempy.engine.ChempyEngine`, t_n = n T/27; nothing is
recomputed. Masses are in units of all stellar mass formed up to T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_chempy.engine import ChempyEngine

__all__ = ["Tracks", "tracks"]


@dataclass(frozen=True)
class Tracks:
    """Tracks of B galaxies on 28 time points.

    Parameters
    ----------
    time : (B, 28) Gyr
    sfr : (B, 28)
        Stellar mass formed at each point; sums to 1.
    gas : (B, 28)
        Gas mass after star formation.
    infall : (B, 28)
        Mass that moved from the corona to the gas.
    feedback : (B, 28)
        Mass returned by stars.
    stars : (B, 28)
        Stellar mass formed so far minus mass returned so far (with remnants).
    corona : (B, 28)
        Mass outside the galaxy.
    metallicity : (B, 28)
        Metal mass fraction of the gas.
    sn_ia : (B, 28)
        SN Ia events per unit stellar mass formed up to T.
    gas_elements, corona_elements, feedback_elements : (B, 28, 9)
        Element masses, order of :data:`sbi_chempy.constants.ELEMENTS`.
    abundances : (B, 28, 8) dex
        Order of :data:`sbi_chempy.constants.ABUNDANCES`; not finite before the first metals.
    status : (B,) int64
        Status of the row; tracks of failed rows are kept as they are.
    """

    time: Tensor
    sfr: Tensor
    gas: Tensor
    infall: Tensor
    feedback: Tensor
    stars: Tensor
    corona: Tensor
    metallicity: Tensor
    sn_ia: Tensor
    gas_elements: Tensor
    corona_elements: Tensor
    feedback_elements: Tensor
    abundances: Tensor
    status: Tensor


def tracks(engine: ChempyEngine, theta: Tensor, factors: Tensor | None = None) -> Tracks:
    """Evolve galaxies and keep every step.

    Parameters
    ----------
    engine : ChempyEngine
        Its torch path is used, whatever its kernel.
    theta : (B, 6)
        Columns as in :data:`sbi_chempy.constants.PARAMETERS`.
    factors : (B, 3, 8, 2), optional
        Yield factors, as for the engine.

    Returns
    -------
    Tracks

    Raises
    ------
    ValueError
        If a row is not finite or out of range.
    """
    engine.check(theta)
    schedule, states, status = engine.steps(theta, factors)
    feedback = torch.stack([s.feedback for s in states], dim=1)
    gas = torch.stack([s.gas for s in states], dim=1)
    returned = feedback.sum(dim=2)
    sfr = schedule.sfr.to(engine.dtype)
    abundances = engine.abundances(gas)
    bad = (status == 0) & ~torch.isfinite(abundances[:, -1]).all(dim=1)
    steps = torch.arange(len(states), dtype=torch.float64, device=engine.device)
    return Tracks(
        time=(schedule.dt[:, None] * steps).to(engine.dtype),
        sfr=sfr,
        gas=torch.stack([s.gas_mass for s in states], dim=1),
        infall=torch.stack([s.infall for s in states], dim=1),
        feedback=returned,
        stars=(sfr - returned).cumsum(dim=1),
        corona=torch.stack([s.corona_mass for s in states], dim=1),
        metallicity=torch.stack([s.metallicity for s in states], dim=1),
        sn_ia=schedule.sn_ia.to(engine.dtype),
        gas_elements=gas,
        corona_elements=torch.stack([s.corona for s in states], dim=1),
        feedback_elements=feedback,
        abundances=abundances,
        status=torch.where(bad, 4, status),
    )
