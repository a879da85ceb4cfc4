"""Options of the simulator, its library and its observations."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_casbi.abundances import Element

__all__ = ["CasbiConfig"]


class CasbiConfig(BaseModel):
    """Options of the halo simulator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str = Field(
        "embedded",
        description="library of dwarf galaxies: embedded, grumpy, surrogate (see surrogate_of), or "
        "an HDF5 file",
    )
    snapshots: str | None = Field(
        None, description="folder of Gasoline snapshots to build the library from, at first use"
    )
    surrogate_of: str = Field("embedded", description="library that the surrogate is trained on")
    surrogate_file: str | None = Field(
        None, description="folder of a trained surrogate; default: train one now"
    )
    stems: int = Field(5000, ge=10, description="number of galaxies in the embedded library")
    cuts: int = Field(6, ge=1, le=10, description="number of infall times per galaxy")
    library_seed: int = Field(1, ge=0, description="random seed of the embedded library")
    dm_coupling: float = Field(
        0.25, description="change of [Fe/H] per dex of halo mass at fixed stellar mass"
    )
    alpha: Element | None = Field(
        None,
        description="element beside iron: o (oxygen) or mg (magnesium); default: that of the "
        "library, o if embedded",
    )
    y_ia_factor: float = Field(
        1.0, gt=0, description="factor on the iron yield of type Ia supernovae"
    )
    physics_spread: float = Field(
        0.0,
        ge=0,
        description="standard deviation of yields and outflows between halos [dex]",
    )
    split_fractions: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="fractions of galaxies for training, validation and test"
    )
    population: Literal["uniform", "cosmological", "budget"] = Field(
        "uniform",
        description="prior of the members: uniform in log mass; cosmological (dN/dM ~ M^-1.25, "
        "earlier infall); budget (masses drawn up to a fixed total)",
    )
    n_min: int = Field(2, ge=1, description="smallest number of members")
    n_max: int = Field(100, ge=1, le=100, description="largest number of members")
    counts: Literal["absolute", "shape", "particles"] | None = Field(
        None,
        description="meaning of the star count: absolute (complete sample); shape (survey: no "
        "information in it); particles (star particles, no Poisson noise). Must be chosen for "
        "observed stars; default for mock halos: absolute",
    )
    kappa: float | None = Field(
        6.67e-7, gt=0, description="stars per Msun in a complete sample (if counts = absolute)"
    )
    n_star: tuple[float, float] = Field(
        (500.0, 100_000.0), description="range of sample sizes, log-uniform (if counts = shape)"
    )
    sigma_fe: tuple[float, float] = Field(
        (0.0, 0.15), description="range of measurement errors of [Fe/H] [dex], uniform"
    )
    sigma_o: tuple[float, float] = Field(
        (0.0, 0.15), description="range of measurement errors of [O/Fe] or [Mg/Fe] [dex], uniform"
    )
    zero_point: float = Field(
        0.0, ge=0, description="standard deviation of unknown zero-point offsets [dex]"
    )
    support_halos: int = Field(
        12_000, ge=1000, description="number of simulated halos to compare observed halos with"
    )
    budget_mass: float = Field(
        1.41e9, gt=0, description="total accreted mass [Msun] (if population = budget)"
    )
    solar: str | None = Field(
        None,
        description="solar scale of star lists (pynbody, asplund09); default: the library's",
        json_schema_extra={"reading": True},
    )
    columns: dict[str, str] = Field(
        {},
        description="column names in star lists, for fe_h, o_fe, mg_fe, e_fe_h, e_o_fe, e_mg_fe, "
        "id",
        json_schema_extra={"reading": True},
    )
    alpha_proxy: bool = Field(
        False,
        description="accept [alpha/Fe], or [Mg/Fe] instead of [O/Fe]",
        json_schema_extra={"reading": True},
    )

    @model_validator(mode="after")
    def _consistent(self) -> CasbiConfig:
        if self.n_min > self.n_max:
            msg = f"n_min = {self.n_min} is larger than n_max = {self.n_max}"
            raise ValueError(msg)
        if self.counts in ("absolute", None) and self.kappa is None:
            msg = (
                "counts = 'absolute' needs kappa, the stars per Msun of a complete sample; "
                "without it use counts = 'shape'"
            )
            raise ValueError(msg)
        for name in ("n_star", "sigma_fe", "sigma_o"):
            low, high = getattr(self, name)
            if not 0 <= low <= high or (name == "n_star" and low <= 0):
                msg = f"{name} must be an interval of non-negative numbers, got ({low}, {high})"
                raise ValueError(msg)
        return self
