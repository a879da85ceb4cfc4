"""Options of the simulator, its library and its observations."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["CasbiConfig"]


class CasbiConfig(BaseModel):
    """Options of the halo simulator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str = Field(
        "embedded",
        description="embedded, grumpy, surrogate (with surrogate_of), or an HDF5 library file",
    )
    snapshots: str | None = Field(
        None, description="folder of Gasoline snapshots; their library is built (once) and used"
    )
    surrogate_of: str = Field("embedded", description="library the surrogate was trained on")
    surrogate_file: str | None = Field(None, description="folder of a trained surrogate")
    stems: int = Field(5000, ge=10, description="galaxies of the embedded library")
    cuts: int = Field(6, ge=1, le=10, description="infall times per galaxy")
    library_seed: int = Field(1, ge=0, description="seed of the embedded library")
    dm_coupling: float = Field(0.25, description="[Fe/H] per dex of halo mass at fixed M_star")
    y_ia_factor: float = Field(1.0, gt=0, description="factor on the iron yield of SNe Ia")
    split_fractions: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="shares of stems for training, validation, test"
    )
    population: Literal["uniform", "cosmological", "budget"] = Field(
        "uniform", description="which galaxies make a halo"
    )
    n_min: int = Field(2, ge=1, description="fewest members")
    n_max: int = Field(100, ge=1, le=100, description="most members")
    counts: Literal["absolute", "shape", "particles"] = Field(
        "absolute", description="what the number of stars means"
    )
    kappa: float | None = Field(
        6.67e-7, gt=0, description="stars per Msun of a complete sample (counts = absolute)"
    )
    n_star: tuple[float, float] = Field(
        (500.0, 100_000.0), description="range of sample sizes, log-uniform (counts = shape)"
    )
    sigma_fe: tuple[float, float] = Field(
        (0.0, 0.15), description="range of errors of [Fe/H] [dex], uniform"
    )
    sigma_o: tuple[float, float] = Field(
        (0.0, 0.15), description="range of errors of [O/Fe] [dex], uniform"
    )
    zero_point: float = Field(
        0.0, ge=0, description="standard deviation of both zero points [dex], unknown per halo"
    )
    support_halos: int = Field(
        12_000, ge=1000, description="simulated halos to which observed ones are compared"
    )
    budget_mass: float = Field(1.41e9, gt=0, description="accreted mass [Msun] of budget halos")
    solar: str | None = Field(None, description="solar scale of star lists; default: library's")
    columns: dict[str, str] = Field(
        {}, description="columns of star lists: fe_h, o_fe, e_fe_h, e_o_fe, id"
    )
    alpha_proxy: bool = Field(False, description="accept [alpha/Fe] or [Mg/Fe] for [O/Fe]")

    @model_validator(mode="after")
    def _consistent(self) -> CasbiConfig:
        if self.n_min > self.n_max:
            msg = f"n_min = {self.n_min} is larger than n_max = {self.n_max}"
            raise ValueError(msg)
        if self.counts == "absolute" and self.kappa is None:
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
