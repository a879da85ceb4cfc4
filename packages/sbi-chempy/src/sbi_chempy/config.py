"""Options of the chempy simulator."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sbi_chempy.frame import Frame

__all__ = ["ChempyConfig"]


class ChempyConfig(BaseModel):
    """Options of :class:`sbi_chempy.simulator.ChempySimulator`."""

    model_config = ConfigDict(extra="forbid")

    yields: str | dict[str, str] = Field(
        "default",
        description="yield set: default, tng, alternative, alternative-net, embedded tables "
        "joined by '+', or {sn1a=..., sn2=..., agb=...}",
    )
    yield_directory: str | None = Field(
        None,
        description="folder of original Chempy yields (Chempy/input/yields) for the sets tng, "
        "alternative and alternative-net; default: SBI_DATA_DIR, then the cache",
    )
    elements: tuple[str, ...] | None = Field(
        None,
        description="elements observed, in this order, e.g. ['Fe', 'Mg', 'O', 'Si']; default: "
        "C, Fe, He, Mg, N, Ne, O, Si",
    )
    reference: Literal["Fe", "Mg"] = Field(
        "Fe", description="element the others are relative to: [X/Fe] and [Fe/H], or [X/Mg], [Mg/H]"
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
    covariance: list[list[float]] | str | None = Field(
        None,
        description="covariance of the abundances [dex^2] for the noise of simulations: a matrix, "
        "or a .npy file with one (k, k) or one per star (n, k, k); default: independent errors",
    )
    survey: Literal["apogee", "galah"] | None = Field(
        None, description="read tables with the columns, flags and missing values of a survey"
    )
    strict: bool = Field(
        False,
        description="refuse parameters outside the physical range instead of marking them failed",
    )
    ages: bool = Field(True, description="use birth times or ages when the data have them")
    log10_n_ia_mean: float = Field(-2.89, description="prior mean of log10 N_Ia (or -2.75)")

    @field_validator("elements", mode="before")
    @classmethod
    def _check_elements(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        return Frame(tuple(value)).elements
