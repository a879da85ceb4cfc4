"""Options of the chempy simulator."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sbi_chempy.frame import Frame, Reference

__all__ = ["Bare", "ChempyConfig", "SurveyName"]

Bare = Literal["x_h", "x_fe", "ignore"]
SurveyName = Literal["apogee", "galah"]


class ChempyConfig(BaseModel):
    """Options of :class:`sbi_chempy.simulator.ChempySimulator`."""

    model_config = ConfigDict(extra="forbid")

    yields: str | dict[str, str] = Field(
        "default",
        description="Yield set: default, tng, alternative, alternative-net, names of tables "
        "joined by '+', or {sn1a=..., sn2=..., agb=...}.",
    )
    yield_directory: str | None = Field(
        None,
        description="Folder of original Chempy yields (Chempy/input/yields) for sets and tables "
        "that are not in the package; default: SBI_DATA_DIR, then the cache.",
    )
    elements: tuple[str, ...] | None = Field(
        None,
        description="Observed elements, in this order, e.g. ['Fe', 'Mg', 'O', 'Si']; default: "
        "C, Fe, He, Mg, N, Ne, O, Si.",
    )
    reference: Reference = Field(
        "Fe", description="Reference element: [X/Fe] and [Fe/H], or [X/Mg] and [Mg/H]."
    )
    cosmic_accretion: float = Field(
        1.0, gt=0, description="Inflow of primordial gas to the corona per unit star formation."
    )
    clamp_low_z: bool = Field(
        True,
        description="Hold yields constant below Z = 1e-10; false extrapolates as the original.",
    )
    smooth: bool = Field(False, description="Interpolate the cumulative IMF (for gradients).")
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision of the engine.")
    device: str = Field("cpu", description="Torch device of the engine.")
    default_error: float = Field(
        0.05, gt=0, description="Standard deviation of abundances without errors [dex]."
    )
    noise: Literal["amortised", "fixed"] = Field(
        "amortised",
        description="Training noise: amortised draws errors of 0.002-0.3 dex, missing elements "
        "and ages at random; fixed is always default_error.",
    )
    covariance: list[list[float]] | str | None = Field(
        None,
        description="Covariance of the abundances [dex^2] for the noise of simulations: a matrix, "
        "or a .npy file with one (k, k) or one per star (n, k, k); default: independent errors.",
    )
    survey: SurveyName | None = Field(
        None,
        description="Read tables with the columns, flags and missing values of a survey.",
        json_schema_extra={"reading": True},
    )
    bare_columns: Bare | None = Field(
        None,
        description="Columns named by an element or ion alone, such as Mg or MgI, are [X/H], "
        "[X/Fe], or not read; default: refuse a table where they are the only ones of an element.",
        json_schema_extra={"reading": True},
    )
    absolute: bool = Field(
        False,
        description="Convert absolute abundances A(X), such as A_Mg, to [X/H] with the Sun of "
        "Asplund et al. 2009.",
        json_schema_extra={"reading": True},
    )
    zero_point: float = Field(
        0.03,
        ge=0,
        description="Standard deviation of the zero points of abundances [dex], one shift per "
        "element for all stars; used where nuisance parameters are marginalised.",
    )
    without_yields: str | None = Field(
        None,
        description="Leave out the yield tables whose name starts with this where yields are "
        "marginalised, e.g. limongi18; for tests.",
    )
    strict: bool = Field(
        False,
        description="Refuse parameters outside the physical range instead of marking them failed.",
    )
    ages: bool = Field(
        True,
        description="Use birth times or ages when the data have them.",
        json_schema_extra={"reading": True},
    )
    log10_n_ia_mean: float = Field(-2.89, description="Prior mean of log10 N_Ia.")

    @field_validator("elements", mode="before")
    @classmethod
    def _check_elements(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        return Frame(tuple(value)).elements
