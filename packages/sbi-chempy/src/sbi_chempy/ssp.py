r"""Mass returned by a simple stellar population, step by step.

For a population of unit mass, metallicity Z and birth composition X, between the ages
:math:`t_{k-1}` and :math:`t_k = k\,\Delta t`,

.. math:: F_e(k) = \sum_q w_q(k)\,(y_{q,e} + u_q X_e) + N_{Ia}\,p_k\,Y_e ,

with the weights w from the IMF and the stellar lifetimes (SN II and AGB stars), and the
delay-time distribution p of SN Ia. Same code as inside the engine.

See docs/chempy-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_chempy.constants import N_STEPS, PRIMORDIAL, T_END_GYR, T_MIN_GYR
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.lifetimes import turnoff_mass
from sbi_chempy.yields.tables import YieldSet

__all__ = ["SspReturn", "ssp_return"]


@dataclass(frozen=True)
class SspReturn:
    """Return of B populations over K age steps, per unit mass formed.

    Parameters
    ----------
    age : (K,) Gyr
        Upper end of each step.
    turnoff : (B, K) Msun
        Turn-off mass at these ages.
    stars : (B, K, 9)
        Elements returned by SN II and AGB stars in the step, unprocessed wind included.
    sn_ia : (B, K, 9)
        Elements from SN Ia; negative hydrogen books the mass of the exploding white dwarfs.
    """

    age: Tensor
    turnoff: Tensor
    stars: Tensor
    sn_ia: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of all channels, (B, K, 9)."""
        return self.stars + self.sn_ia


def ssp_return(
    yields: YieldSet | ChempyEngine,
    metallicity: Tensor,
    *,
    alpha_imf: float = -2.3,
    log10_n_ia: float = -2.89,
    birth_mix: Tensor | None = None,
    age_step: float = T_END_GYR / N_STEPS,
    n_ages: int = N_STEPS,
) -> SspReturn:
    """Return table of simple stellar populations.

    Parameters
    ----------
    yields : YieldSet or ChempyEngine
        An engine hands over its switches (``clamp_low_z``, ``smooth``) and its dtype.
    metallicity : (B,)
        Metal mass fraction at birth.
    alpha_imf : float
        High-mass IMF slope.
    log10_n_ia : float
        log10 of SN Ia per Msun within 13.8 Gyr.
    birth_mix : (B, 9), optional
        Element mass fractions at birth; primordial if not given.
    age_step : Gyr
        Between 0.797617/27 and 13.797617.
    n_ages : int
        Number of steps, up to 27.

    Returns
    -------
    SspReturn

    Raises
    ------
    ValueError
        If ``age_step`` or ``n_ages`` is out of range.
    """
    if not T_MIN_GYR / N_STEPS <= age_step <= T_END_GYR:
        raise ValueError(
            f"age_step is {age_step} Gyr, must be in [{T_MIN_GYR / N_STEPS:.6f}, {T_END_GYR}]"
        )
    if not 1 <= n_ages <= N_STEPS:
        raise ValueError(f"n_ages is {n_ages}, must be 1..{N_STEPS}")
    engine = yields if isinstance(yields, ChempyEngine) else ChempyEngine(yields)
    z = metallicity.to(device=engine.device, dtype=engine.dtype)
    mix = z.new_tensor(PRIMORDIAL) if birth_mix is None else birth_mix.to(z)
    dt = torch.full_like(z, age_step, dtype=torch.float64)
    imf = engine.imf(torch.full_like(dt, alpha_imf))
    age = age_step * torch.arange(1, n_ages + 1, dtype=torch.float64, device=engine.device)
    events = 10**log10_n_ia * engine.sn_ia_delays(dt)[:, :n_ages, None]
    return SspReturn(
        age=age.to(z.dtype),
        turnoff=turnoff_mass(age.to(z.dtype), z[:, None]),
        stars=engine.population_return(imf, dt.to(z.dtype), z, mix.expand(len(z), -1), n_ages),
        sn_ia=events.to(z.dtype) * engine.sn_ia_event,
    )
