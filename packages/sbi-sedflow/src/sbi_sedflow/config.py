"""Options of the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

__all__ = ["SedflowConfig"]


class SedflowConfig(BaseModel):
    """Options of the sedflow simulator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Literal["corrected", "provabgs"] = Field(
        default="corrected", description="Model and priors; provabgs reproduces the published code."
    )
    ssp: Literal["bc03", "npz", "dsps", "fsps", "toy"] = Field(
        default="bc03", description="Library of stellar populations; toy is for tests only."
    )
    ssp_path: str | None = Field(
        default=None,
        description="File of the library; default of bc03: the one of `sbi-run data fetch`.",
    )
    pixels: int = Field(
        default=1024,
        ge=128,
        le=8192,
        description="Pixels of model spectra between 912 and 11800 Angstrom.",
    )
    filters: Literal["speclite", "sedpy"] = Field(
        default="speclite",
        description="Source of the filter curves of galex-sdss; sedpy needs the extra 'sedpy'.",
    )
    bands: str = Field(
        default="galex-sdss",
        description="Bands: galex-sdss, sdss, grz, legacy, lsst, galex-sdss-2mass; names of curves "
        "of these presets with commas between them; or a TOML file.",
    )
    bases: str = Field(
        default="parametric-nmf",
        description="Bases of the histories: parametric-nmf, provabgs:FOLDER or tng:FOLDER.",
    )
    t_bc: float = Field(
        default=0.01, gt=0, description="Age at which stars leave their birth clouds [Gyr]."
    )
    t_burst: Literal["uniform", "loguniform"] = Field(
        default="uniform", description="Prior of the lookback time of the burst."
    )
    sfh_prior: Literal["flat", "ssfr"] = Field(
        default="flat",
        description="Prior of the coefficients of star formation: flat, or ssfr, which is broad "
        "in the logarithm of the specific SFR and includes quiescent galaxies.",
    )
    floor: float | None = Field(
        default=None,
        ge=0,
        le=0.5,
        description="Systematic error of the model [mag]; default 0.03, for provabgs 0.",
    )
    z_min: float = Field(default=0.003, gt=0, description="Lowest redshift of the training set.")
    z_max: float = Field(
        default=0.2, gt=0, le=1.0, description="Highest redshift of the training set."
    )
    noise: Literal["embedded", "fitted", "hotdeck"] = Field(
        default="embedded",
        description="Photometric errors: those of the bands, a fit to noise_catalogue, or drawn "
        "from it.",
    )
    noise_catalogue: str | None = Field(
        default=None,
        description="Catalogue to which errors are fitted, or from which they are drawn.",
    )
    photometry: (
        Literal[
            "elpetro", "sersic", "model", "cmodel", "petro", "psf", "kron", "auto", "flux", "mag"
        ]
        | None
    ) = Field(
        default=None,
        description="Which fluxes of a table that has several: elpetro (default) or sersic of the "
        "NSA; model (default), cmodel, petro or psf of SDSS; cmodel (default), kron or psf of "
        "LSST, HSC and Pan-STARRS; auto of DES; flux or mag for columns flux_b or mag_b.",
        json_schema_extra={"reading": True},
    )
    flags_table: str | None = Field(
        default=None,
        description="Table with SDSS photometric flags of NSA galaxies.",
        json_schema_extra={"reading": True},
    )
    flux_unit: str | None = Field(
        default=None,
        description="Unit of flux columns without one, e.g. nmgy or uJy.",
        json_schema_extra={"reading": True},
    )
    magnitudes: Literal["AB", "asinh", "Vega"] | None = Field(
        default=None,
        description="System of the magnitudes; default: asinh for SDSS columns, Vega where the "
        "table says so, else AB. Columns of 2MASS and AllWISE are always Vega.",
        json_schema_extra={"reading": True},
    )
    extinction: Literal["columns", "corrected", "none"] | None = Field(
        default=None,
        description="Galactic extinction: corrected with columns of the table, values are "
        "corrected, or none; default: columns if there are any, else by the names of the values.",
        json_schema_extra={"reading": True},
    )
    ab_offsets: Literal["none", "sdss", "kcorrect"] = Field(
        default="none",
        description="Offsets from SDSS to AB magnitudes: sdss is u -0.04, z +0.02; kcorrect is "
        "u -0.036, g +0.012, r +0.010, i +0.028, z +0.040.",
        json_schema_extra={"reading": True},
    )
    allow_toy: bool = Field(
        default=False,
        description="Allow the inference of catalogues with toy stars.",
        json_schema_extra={"reading": True},
    )
    allow_prior: bool = Field(
        default=False,
        description="Return the prior for galaxies without any band, instead of excluding them.",
        json_schema_extra={"reading": True},
    )

    @field_validator("bands", "noise_catalogue", "ssp_path")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Keep the whole path of a file, which later commands read again."""
        if value is None or (info.field_name == "bands" and not value.endswith(".toml")):
            return value
        return str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _consistent(self) -> SedflowConfig:
        if self.z_min >= self.z_max:
            msg = f"z_min ({self.z_min}) must be below z_max ({self.z_max})"
            raise ValueError(msg)
        if self.sfh_prior == "ssfr" and self.variant != "corrected":
            msg = "sfh_prior = 'ssfr' needs variant = 'corrected': the published prior is fixed"
            raise ValueError(msg)
        if self.noise != "embedded" and not self.noise_catalogue:
            msg = f"noise = '{self.noise}' needs noise_catalogue = FILE"
            raise ValueError(msg)
        return self

    @property
    def model_floor(self) -> float:
        """The systematic error in use [mag]."""
        if self.floor is not None:
            return self.floor
        return 0.03 if self.variant == "corrected" else 0.0
