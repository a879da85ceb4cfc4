"""Options of the chempy simulator."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ChempyConfig"]


class ChempyConfig(BaseModel):
    """Options of :class:`sbi_chempy.simulator.ChempySimulator`."""

    model_config = ConfigDict(extra="forbid")

    yields: str | dict[str, str] = Field(
        "default",
        description="yield set: default, tng, alternative, alternative-net, embedded tables "
        "joined by '+', or {sn1a=..., sn2=..., agb=...}",
    )
    cosmic_accretion: float = Field(
        1.0, gt=0, description="inflow of primordial gas to the corona per unit star formation"
    )
    clamp_low_z: bool = Field(
        True, description="interpolate safely between Z = 0 and 1e-10 (False: as the original)"
    )
    smooth: bool = Field(False, description="interpolate the cumulative IMF (for gradients)")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the engine")
    device: str = Field("cpu", description="torch device of the engine")
    default_error: float = Field(
        0.05, gt=0, description="standard deviation of abundances without errors [dex]"
    )
    noise: Literal["amortised", "fixed"] = Field(
        "amortised",
        description="training noise: errors of 0.01-0.3 dex, missing elements and ages at "
        "random, or always default_error",
    )
    ages: bool = Field(True, description="use birth times or ages when the data have them")
    log10_n_ia_mean: float = Field(-2.89, description="prior mean of log10 N_Ia (or -2.75)")
