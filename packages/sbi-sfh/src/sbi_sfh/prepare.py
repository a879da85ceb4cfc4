r"""From a spectrum of a file to the pixels of the model.

Steps: masks of the file; flux per wavelength; cosmic rays; Galactic reddening; vacuum to air; rest
frame; resolution of the library; rebinning that conserves flux; emission lines and the 5577 sky
line; division by the median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy import units
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from sbi_core import counted
from sbi_sfh.artefacts import emission, scatter_of, spikes_in
from sbi_sfh.broadening import edge_pixels
from sbi_sfh.config import SfhConfig, age_of_universe
from sbi_sfh.constants import C_KMS, FWHM_PER_SIGMA, WAVE_PRESETS
from sbi_sfh.flux_units import per_wavelength
from sbi_sfh.formats.spectrum import RawSpectrum, UnusableSpectrumError
from sbi_sfh.formats.units import unit_by_size
from sbi_sfh.masks import emission_mask, sky_mask
from sbi_sfh.own_age import AGE
from sbi_sfh.resample import cardelli, edges_of, rebin, vacuum_to_air

__all__ = ["Prepared", "prepare"]

F64 = NDArray[np.float64]
Floats = NDArray[np.float64] | NDArray[np.float32]
Mask = NDArray[np.bool_]
_COARSEST = 350.0  # km/s
_MOST_MASKED = 0.4
_USELESS = 0.8  # share of masked pixels: more are refused
_OLDER_FLAGGED, _OLDER_REFUSED = 0.3, 1.0  # Gyr by which the Universe is older than in the model
_YOUNGER_REFUSED = 4.5  # Gyr; calibration is measured up to 5 (benchmarks/sfh/own_age.py)
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_SCATTER = (0.45, 2.2)  # of pixels over their quoted errors
_LEAST_SNR = 0.01  # of a pixel; larger errors are marks
_FLUX_MARKS = (-99.0, -999.0, -9999.0, -99.9, -999.9, -99.99, -999.99)
_OFTEN, _FEW_MARKS = 5, 2  # times the most frequent other value; pixels
_CORRELATED = 0.6  # of every second pixel, where only neighbours are correlated
_FEW_PIXELS = 200
_SMOOTH = 51  # pixels of the running median of spectra without errors
_POLARITY = (
    "a mask is nonzero or True where a pixel is bad; if it is the other way round: "
    "--set simulator.mask_good=true"
)
_FAINT = 1e-3
_GAP = 2.5  # steps between pixels; more are a gap
_GAP_WINDOW = 21  # pixels around, for the typical step
_MEDIUM = {True: "vacuum", False: "air"}


@dataclass(frozen=True)
class Prepared:
    """One spectrum on the pixels of the model, divided by its median.

    Parameters
    ----------
    flux, err
        (L,); NaN where not used.
    mask
        True where used, (L,).
    snr
        Median signal to noise per pixel.
    sigma
        Velocity dispersion beyond the library's resolution, km/s; NaN when not known.
    notes
        Conversions and masked pixels, one sentence each.
    flags
        Warnings that go into the tables of results.
    labels
        Columns of the tables of results: the redshift of the galaxy (NaN for spectra at rest
        without one), the age of the Universe at the galaxy, the position in a cube.
    """

    flux: Floats
    err: Floats
    mask: Mask
    snr: float
    sigma: float
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    labels: Mapping[str, float] = field(default_factory=dict)

    @property
    def filled(self) -> F64:
        """The flux with 0 where it is not used, (L,)."""
        return np.where(self.mask, self.flux, 0.0).astype(np.float64)


def prepare(raw: RawSpectrum, wave: F64, config: SfhConfig, *, fwhm: float) -> Prepared:
    """Return one spectrum on the pixels of the model (see :func:`~sbi_sfh.readers.read_spectra`).

    Raises
    ------
    UnusableSpectrumError
        If it cannot be used.
    """
    notes: list[str] = list(raw.notes)
    flags: list[str] = list(raw.flags)
    if raw.ivar is None and config.assumed_snr is None:
        msg = (
            f"{raw.where}: needs a column IVAR or ERR (or such an image), or the signal to noise "
            "per pixel: --set simulator.assumed_snr=50 (scatter: from neighbouring pixels)"
        )
        raise UnusableSpectrumError("facts_missing", msg)
    angstrom = _in_angstrom(raw, config, notes)
    shift, z, age = _redshift(raw, config, notes, flags)
    vacuum = _in_vacuum(raw, config, notes)
    if config.mask_good and not raw.fixed_mask:
        raw = replace(raw, good=~raw.good)
    raw, angstrom = _without_gaps(raw, angstrom, notes)
    raw = per_wavelength(raw, angstrom, notes, flags)
    inverse = _assumed(raw, config, notes) if raw.ivar is None else raw.ivar
    quoted, raw = raw.ivar is not None, replace(raw, ivar=inverse)
    good = _good_pixels(raw, notes)
    if quoted:
        _check_scatter(raw, good, notes, flags)
    # the index of refraction belongs to the wavelength at which light was measured
    observed = vacuum_to_air(angstrom) if vacuum else angstrom
    rest = observed / (1.0 + shift)
    usable = _usable(wave, config)
    _covered(raw, rest, wave[usable], config)
    spikes = good & spikes_in(raw.flux, inverse, good) & ~emission_mask(rest)
    if spikes.any():
        notes.append(
            f"{counted(int(spikes.sum()), 'pixel')} that stand out of their neighbours masked "
            "(cosmic rays, sky lines)"
        )
        good &= ~spikes
    flux = np.where(good, raw.flux, 0.0)
    ivar = np.where(good, inverse, 0.0)
    if config.ebv > 0:
        factor = cardelli(angstrom, config.ebv)
        flux, ivar = flux * factor, ivar / factor**2
        notes.append(f"Galactic E(B-V) = {config.ebv:g} removed (Cardelli et al. 1989)")
    good &= ~sky_mask(observed) if not raw.rest else True
    variance = np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0), 0.0)
    flux = np.where(good, flux, 0.0)
    flux, variance, excess = _matched(raw, rest, flux, variance, good, wave, fwhm, config)
    if excess > 1.0:
        notes.append(
            f"resolution up to {excess:.0f} km/s (sigma) below the library's: part of the "
            "velocity dispersion"
        )
    new, var, mask = rebin(rest, flux, wave, variance=variance, good=good)
    lost = int((~mask & usable).sum())
    if lost:
        notes.append(f"{lost} of {len(wave)} pixels without data (mask of the file, or sky)")
    mask &= (var > 0) & usable
    said, felt = emission(wave, new, var, mask, masked=config.mode == "observed")
    notes += said
    flags += ["emission_lines"] if felt else []
    if config.mode == "observed":
        mask &= ~emission_mask(wave)
    _enough(raw, mask, notes, flags)
    median = float(np.median(new[mask]))
    if not median > 0:
        msg = f"{raw.where}: the median flux is {median:g}, expected positive"
        raise UnusableSpectrumError("negative_flux", msg)
    err = np.sqrt(var) / median
    snr = float(np.median(new[mask] / np.sqrt(var[mask])))
    if not snr > 0:
        msg = f"{raw.where}: the median signal to noise is {snr:g}, expected positive"
        raise UnusableSpectrumError("negative_flux", msg)
    if snr < config.min_snr:
        msg = f"{raw.where}: signal to noise per pixel of {snr:.3g}, below {config.min_snr:g}"
        raise UnusableSpectrumError("low_snr", msg)
    return Prepared(
        flux=np.where(mask, new / median, np.nan),
        err=np.where(mask, err, np.nan),
        mask=mask,
        snr=snr,
        sigma=_dispersion(raw, excess, config, notes, flags),
        notes=tuple(notes),
        flags=tuple(flags),
        labels={
            "redshift": z,
            AGE: age,
            **raw.labels,
        },
    )


def _usable(wave: F64, config: SfhConfig) -> Mask:
    """Return the pixels that the training uses: in mode ``observed`` not the ends, (L,)."""
    if config.mode != "observed":
        return np.ones(len(wave), bool)
    return np.asarray(~edge_pixels(wave, config.sigma_range[1]))


def _in_vacuum(raw: RawSpectrum, config: SfhConfig, notes: list[str]) -> bool:
    """Return whether wavelengths are in vacuum: by the file, the options, or what is usual."""
    option = config.vacuum
    if raw.contradiction:
        if option is None:
            msg = (
                f"{raw.where}: the file states both air and vacuum ({raw.contradiction}); choose "
                "with --set simulator.vacuum=true or false"
            )
            raise UnusableSpectrumError("facts_contradict", msg)
        notes.append(f"{raw.contradiction}: taken as {_MEDIUM[option]} (simulator.vacuum)")
        return option
    if raw.vacuum is not None:
        if option not in (None, raw.vacuum):
            notes.append(f"the file states {_MEDIUM[raw.vacuum]}: simulator.vacuum is not used")
        return raw.vacuum
    if option is not None:
        if raw.usual is not None and raw.usual[1] != option:
            notes.append(
                f"taken as {_MEDIUM[option]} (simulator.vacuum), although {raw.usual[0]} usually "
                f"means {_MEDIUM[raw.usual[1]]}"
            )
        return option
    if raw.usual is not None:
        notes.append(f"wavelengths in {_MEDIUM[raw.usual[1]]}, as is usual: {raw.usual[0]}")
        return raw.usual[1]
    msg = (
        f"{raw.where}: air or vacuum wavelengths? Say so in the file (VACUUM = T or F) or with "
        "--set simulator.vacuum=true"
    )
    raise UnusableSpectrumError("facts_missing", msg)


def _assumed(raw: RawSpectrum, config: SfhConfig, notes: list[str]) -> F64:
    """Return the inverse variance of a spectrum without errors, by the option assumed_snr."""
    assert config.assumed_snr is not None
    finite = raw.good & np.isfinite(raw.flux)
    if not finite.any():
        return np.zeros(len(raw.flux))
    at = np.arange(len(raw.flux))
    flux = np.interp(at, at[finite], raw.flux[finite])
    if config.assumed_snr == "scatter":
        notes.append("errors from the scatter of neighbouring pixels")
        return scatter_of(flux) ** -2
    notes.append(f"errors for a signal to noise of {config.assumed_snr:g} per pixel")
    level = np.abs(median_filter(flux, _SMOOTH, mode="nearest"))
    return np.asarray((config.assumed_snr / np.where(level > 0, level, np.inf)) ** 2)


def _optical(angstrom: float) -> bool:
    return 2000 < angstrom < 30000


def _in_angstrom(raw: RawSpectrum, config: SfhConfig, notes: list[str]) -> F64:
    """Return the wavelengths in Angstrom."""
    if len(raw.wave) < 2:
        msg = f"{raw.where}: {counted(len(raw.wave), 'pixel')} with a wavelength, expected more"
        raise UnusableSpectrumError("bad_wavelengths", msg)
    unit = raw.unit or config.wave_unit
    typical = float(np.median(raw.wave))
    if unit is None:
        unit = unit_by_size(typical)
        if unit is None:
            msg = (
                f"{raw.where}: wavelengths around {typical:g} without a unit; give it in the file "
                "or with --set simulator.wave_unit=nm, or name logarithms loglam"
            )
            raise UnusableSpectrumError("facts_missing", msg)
        notes.append(f"wavelengths without a unit taken as {unit} (median {typical:g})")
    try:
        angstrom: F64 = (raw.wave * units.Unit(_spelled(unit))).to_value("Angstrom")
    except (ValueError, TypeError, units.UnitConversionError):
        msg = f"{raw.where}: '{unit}' is not a unit of wavelength; use Angstrom, nm, micron or m"
        raise UnusableSpectrumError("facts_missing", msg) from None
    middle = float(np.median(angstrom))
    if not _optical(middle):
        msg = (
            f"{raw.where}: wavelengths around {middle:g} Angstrom are not optical; is their unit "
            f"really '{unit}' (nm and micron look like this)?"
        )
        raise UnusableSpectrumError("bad_wavelengths", msg)
    if (np.diff(angstrom) <= 0).any() or not np.isfinite(angstrom).all():
        row = int(np.flatnonzero(~(np.diff(angstrom) > 0))[0])
        msg = (
            f"{raw.where}: wavelengths must increase; row {row + 1} has {angstrom[row + 1]:g} "
            f"after {angstrom[row]:g}"
        )
        raise UnusableSpectrumError("bad_wavelengths", msg)
    return angstrom


def _without_gaps(raw: RawSpectrum, wave: F64, notes: list[str]) -> tuple[RawSpectrum, F64]:
    """Return a spectrum and its wavelengths [Angstrom] with masked pixels at both ends of gaps.

    Pixels reach half-way to their neighbours: without these, the last one before a missing arm
    would stand for all of it.
    """
    step = np.diff(wave)
    typical = median_filter(step, _GAP_WINDOW, mode="nearest")
    at = np.flatnonzero(step > _GAP * typical)
    if not len(at):
        return raw, wave
    width = float((wave[at + 1] - wave[at] - typical[at]).sum())
    notes.append(f"{counted(len(at), 'gap')} of {width:.0f} Angstrom in all between its pixels")
    place = np.repeat(at + 1, 2)

    def inserted(values: NDArray[Any] | None, new: Any) -> Any:
        return None if values is None else np.insert(values, place, new)

    ends = np.stack([wave[at] + typical[at], wave[at + 1] - typical[at]], axis=1).ravel()
    near = None if raw.resolution is None else np.repeat(raw.resolution[at], 2)
    made = replace(
        raw, wave=inserted(raw.wave, np.repeat(raw.wave[at], 2)), flux=inserted(raw.flux, 0.0),
        ivar=inserted(raw.ivar, 0.0), good=inserted(raw.good, False),
        resolution=inserted(raw.resolution, near),
    )  # fmt: skip
    return made, inserted(wave, ends)


def _spelled(unit: str) -> str:
    """Return a unit of wavelengths as astropy spells it: files have Angstroms, A, ang, microns."""
    word = unit.strip().lower().rstrip(".")
    names = {"Angstrom": ("a", "aa", "ang", "angs", "0.1nm", "0.1 nm", "\u00e5", "\u212b"),
             "nm": ("nanometer", "nanometers", "nanometre"),
             "micron": ("um", "microns", "micrometer", "\u00b5m", "\u03bcm")}  # fmt: skip
    if word.startswith("angstr"):
        return "Angstrom"
    return next((name for name, words in names.items() if word in words), unit)


def _redshift(
    raw: RawSpectrum, config: SfhConfig, notes: list[str], flags: list[str]
) -> tuple[float, float, float]:
    """Return the redshift to divide out, that of the galaxy, and the age of the Universe, Gyr.

    The first is 0 for spectra at rest; the others are NaN for those without a redshift. Nothing but
    wavelengths at rest has a redshift of exactly 0.
    """
    z = raw.redshift
    if z is None:
        z = config.default_redshift if raw.rest else _assumed_redshift(raw, config, notes, flags)
    if raw.cosmic is None and not z:
        notes.append(
            "at rest, without a redshift: times count to the age of the Universe in the model, "
            f"{config.t_end:.2f} Gyr"
        )
        return 0.0, float("nan"), float("nan")
    cosmic = raw.cosmic if raw.cosmic is not None else z
    assert cosmic is not None
    z = cosmic if z is None else z
    for value in (cosmic, z):
        if not -0.01 < value < 2:
            velocity = " (a velocity? Its name is cz, in km/s)" if abs(value) > 100 else ""
            msg = f"{raw.where}: redshift {value:g} is outside of -0.01 to 2{velocity}"
            raise UnusableSpectrumError("redshift_outside_model", msg)
    return (0.0 if raw.rest else z), z, _age(raw, cosmic, config, notes, flags)


def _assumed_redshift(
    raw: RawSpectrum, config: SfhConfig, notes: list[str], flags: list[str]
) -> float:
    """Return the redshift of the options, for a file without one or with a failed one."""
    of_reading = config.default_redshift
    z = config.redshift if of_reading is None else of_reading
    lack = f"the redshift of the file, {raw.failed}, marks a failed fit" if raw.failed else (
        "no redshift in the file")  # fmt: skip
    if z is None:
        msg = (
            f"{raw.where}: {lack}; give REDSHIFT in the file (0 for spectra at rest; in text "
            "'# REDSHIFT = 0.03'), or --set simulator.default_redshift=0.03, or "
            "--set simulator.catalogue=FILE with columns id and redshift"
        )
        raise UnusableSpectrumError("facts_missing", msg)
    option = "redshift" if of_reading is None else "default_redshift"
    notes.append(f"{lack}: {z:g} is used (simulator.{option})")
    if of_reading is None or raw.failed:
        flags.append("redshift_assumed")
    return z


def _age(
    raw: RawSpectrum, cosmic: float, config: SfhConfig, notes: list[str], flags: list[str]
) -> float:
    """Return the age of the Universe at a galaxy, Gyr, which the model must be near to."""
    age = age_of_universe(max(cosmic, 0.0))
    late = config.t_end - age
    if not -_OLDER_REFUSED < late < _YOUNGER_REFUSED:
        msg = (
            f"{raw.where}: at redshift {cosmic:g} the Universe is {age:.1f} Gyr old, the model is "
            f"of galaxies observed at {config.t_end:.1f} Gyr; train with "
            f"--set simulator.redshift={cosmic:g}"
        )
        raise UnusableSpectrumError("redshift_outside_model", msg)
    if late < -_OLDER_FLAGGED:
        notes.append(
            f"at redshift {cosmic:g} the Universe is {age:.2f} Gyr old, {-late:.2f} Gyr older than "
            f"in the model, which has no stars as old; train with "
            f"--set simulator.redshift={cosmic:g}"
        )
        flags.append("redshift_unlike_model")
    return age


def _good_pixels(raw: RawSpectrum, notes: list[str]) -> Mask:
    assert raw.ivar is not None
    marked = raw.good & (raw.ivar != 0)
    good = marked & np.isfinite(raw.flux) & np.isfinite(raw.ivar)
    if (count := int((marked & ~good).sum())) > 0:
        notes.append(f"{counted(count, 'pixel')} without a finite flux or error masked")
    negative = good & (raw.ivar < 0)
    if negative.any():
        row = int(np.flatnonzero(negative)[0])
        msg = (
            f"{raw.where}: the inverse variance (or error) in row {row} is {raw.ivar[row]:g}, "
            f"expected positive ({int(negative.sum())} such rows): mask them"
        )
        raise UnusableSpectrumError("bad_errors", msg)
    if not good.any():
        msg = f"{raw.where}: all {len(good)} pixels are masked or without inverse variance"
        if 0 < raw.good.sum() or not (raw.ivar > 0).any():
            raise UnusableSpectrumError("nothing_observed", msg)
        msg += f" ({_POLARITY})"
        raise UnusableSpectrumError("mostly_masked", msg)
    return _informative(raw, good, notes)


def _informative(raw: RawSpectrum, good: Mask, notes: list[str]) -> Mask:
    """Return the good pixels whose flux and error are no marks of bad ones (-9999, 0, 1e30)."""
    assert raw.ivar is not None
    for value, count in _marks(raw.flux[good]):
        good = good & (raw.flux != value)
        notes.append(f"{count} pixels with a flux of exactly {value:g}, a mark of bad ones, masked")
    if not good.any():
        msg = f"{raw.where}: the flux of all pixels is a mark of bad ones, such as 0 or -9999"
        raise UnusableSpectrumError("nothing_observed", msg)
    scale = float(np.median(np.abs(raw.flux[good])))
    marked = good & (raw.ivar * scale**2 < _LEAST_SNR**2) & (scale > 0)
    if not (count := int(marked.sum())):
        return np.asarray(good)
    text = f"an error of more than {1 / _LEAST_SNR:g} times the median flux"
    if count == good.sum():
        msg = f"{raw.where}: all pixels have {text}; errors in another unit than the flux?"
        raise UnusableSpectrumError("bad_errors", msg)
    notes.append(f"{counted(count, 'pixel')} with {text} masked")
    return np.asarray(good & ~marked)


def _marks(flux: F64) -> list[tuple[float, int]]:
    """Return values that mark bad pixels in a flux (L,), and how many pixels have them.

    They are 0 or unlike all others, and far more frequent than values that rounding repeats.
    """
    values, counts = np.unique(flux, return_counts=True)
    scale = float(np.median(np.abs(flux)))
    odd = (values == 0) | np.isin(values, _FLUX_MARKS) | (np.abs(values) > scale / _LEAST_SNR)
    often = counts > max(_OFTEN * counts[~odd].max(initial=1), _FEW_MARKS)
    return [
        (float(v), int(n)) for v, n in zip(values[odd & often], counts[odd & often], strict=True)
    ]


def _check_scatter(raw: RawSpectrum, good: Mask, notes: list[str], flags: list[str]) -> None:
    """Compare the errors with the scatter of neighbouring pixels (fourth differences).

    Noise that resampling correlates scatters too little between neighbours, but not between every
    second pixel.
    """
    near = _scatter(raw, good, 1)
    if near is None or _SCATTER[0] < near < _SCATTER[1]:
        return
    apart = _scatter(raw, good, 2)
    if near < 1 and apart is not None and apart > _CORRELATED:
        notes.append("the noise of neighbouring pixels is correlated (resampling)")
        return
    notes.append(
        f"neighbouring pixels scatter by {near:.2g} of their quoted errors: errors in another "
        "unit, overestimated or underestimated"
    )
    flags.append("errors_unlike_scatter")


def _scatter(raw: RawSpectrum, good: Mask, step: int) -> float | None:
    """Return the scatter of pixels over their errors; None for too few pixels."""
    assert raw.ivar is not None
    fourth = np.zeros(4 * step + 1)
    fourth[::step] = _FOURTH
    inside = np.convolve(good, np.ones(len(fourth)), "valid") > len(fourth) - 0.5
    if inside.sum() < _FEW_PIXELS:
        return None
    flux = np.where(good, raw.flux, 0.0)
    variance = np.where(good, 1.0 / np.where(good, raw.ivar, 1.0), 0.0)
    scatter = np.convolve(flux, fourth, "valid")[inside]
    expected = np.sqrt(np.convolve(variance, np.square(fourth), "valid")[inside])
    return float(1.4826 * np.median(np.abs(scatter) / expected))


def _dispersion(
    raw: RawSpectrum, excess: float, config: SfhConfig, notes: list[str], flags: list[str]
) -> float:
    """Return the velocity dispersion beyond the library's resolution [km/s]; NaN if not known."""
    if raw.sigma is None:
        return float("nan")
    sigma = float(np.hypot(raw.sigma, excess))
    low, high = config.sigma_range
    if config.mode == "observed" and not low <= sigma <= high:
        notes.append(
            f"velocity dispersion of {sigma:.0f} km/s is outside the training range "
            f"({low:g}-{high:g}): inferred as if it were not known"
        )
        flags.append("sigma_outside_training")
        return float("nan")
    return sigma


def _covered(raw: RawSpectrum, rest: F64, wave: F64, config: SfhConfig) -> None:
    edges, ours = edges_of(rest), edges_of(wave)
    step = wave[1] - wave[0]
    if edges[0] <= ours[0] + step and edges[-1] >= ours[-1] - step:
        return
    spare = 4 * config.sigma_range[1] / C_KMS if config.mode == "observed" else 0.0
    fits = [
        n for n, (a, b) in WAVE_PRESETS.items()
        if edges[0] <= a * (1 + spare) and edges[-1] >= b * (1 - spare)
    ]  # fmt: skip
    advice = (
        f"train with --set simulator.wave_range={fits[0]}" if fits else
        f"train with --set simulator.wave_range=[{np.ceil(edges[0]):.0f},{np.floor(edges[-1]):.0f}]"
    )  # fmt: skip
    msg = (
        f"{raw.where}: covers {edges[0]:.0f}-{edges[-1]:.0f} Angstrom at rest, the model needs "
        f"{ours[0]:.0f}-{ours[-1]:.0f}; {advice}"
    )
    if raw.redshift is None and not raw.rest:
        msg += "; or give its redshift: that of the options was taken"
    if config.mode == "mock":
        msg += ", and for real spectra with --set simulator.mode=observed"
    raise UnusableSpectrumError("not_covered", msg)


def _matched(
    raw: RawSpectrum,
    rest: F64,
    flux: F64,
    variance: F64,
    good: Mask,
    wave: F64,
    fwhm: float,
    config: SfhConfig,
) -> tuple[F64, F64, float]:
    """Bring sharper data to the library's resolution; return the excess [km/s] of coarser data."""
    if raw.resolution is None:
        return flux, variance, 0.0
    inside = (rest >= wave[0]) & (rest <= wave[-1]) & (raw.resolution > 0)
    if not inside.any():
        return flux, variance, 0.0
    own = np.where(raw.resolution > 0, rest / np.where(raw.resolution > 0, raw.resolution, 1), fwhm)
    excess = np.sqrt(np.maximum(own**2 - fwhm**2, 0.0)) / rest * C_KMS / FWHM_PER_SIGMA
    worst = float(excess[inside].max())
    where = float(rest[inside][excess[inside].argmax()])
    if config.mode == "mock" and float((own[inside] / fwhm).max()) > 1.1:
        msg = (
            f"{raw.where}: its resolution (FWHM {own[inside].max():.2f} Angstrom at {where:.0f}) "
            f"is worse than the library's {fwhm:.2f}, which mode 'mock' assumes: "
            "train with --set simulator.mode=observed"
        )
        raise UnusableSpectrumError("resolution_too_low", msg)
    if worst > min(_COARSEST, config.sigma_range[1]):
        msg = (
            f"{raw.where}: resolution of {worst:.0f} km/s (sigma) at {where:.0f} Angstrom is "
            f"beyond the velocity dispersions of the model, {config.sigma_range[1]:g} km/s"
        )
        raise UnusableSpectrumError("resolution_too_low", msg)
    kernel = np.sqrt(np.maximum(fwhm**2 - own**2, 0.0)) / FWHM_PER_SIGMA
    pixel = np.gradient(rest)
    if (kernel[inside] > 0.1 * pixel[inside]).any():
        flux, variance = _smooth(flux, variance, good, kernel / pixel)
    return flux, variance, worst


def _smooth(flux: F64, variance: F64, good: Mask, width: F64) -> tuple[F64, F64]:
    """Convolve with a Gaussian whose width [pixels] varies; masked pixels do not count."""
    reach = max(1, int(np.ceil(4 * width.max())))
    total, error, norm = (np.zeros_like(flux) for _ in range(3))
    safe = np.maximum(width, 1e-3)
    n = len(flux)
    for k in range(-reach, reach + 1):
        weight = np.exp(-0.5 * (k / safe) ** 2)
        j = np.arange(n) + k
        there = (j >= 0) & (j < n)
        j = np.clip(j, 0, n - 1)
        weight = np.where(there & good[j], weight, 0.0)
        total += weight * flux[j]
        error += weight**2 * variance[j]
        norm += weight
    ok = norm > _FAINT  # masked pixels with nothing near; pixels that are used have 1 or more
    norm = np.where(ok, norm, 1.0)
    return np.where(ok, total / norm, flux), np.where(ok, error / norm**2, variance)


def _enough(raw: RawSpectrum, mask: Mask, notes: list[str], flags: list[str]) -> None:
    share = 1.0 - mask.mean()
    if not mask.any():
        msg = f"{raw.where}: no pixel is left after masks of the file, sky and emission lines"
        raise UnusableSpectrumError("nothing_observed", msg)
    if share > _USELESS:
        msg = f"{raw.where}: {100 * share:.0f} % of the pixels are masked ({_POLARITY})"
        raise UnusableSpectrumError("mostly_masked", msg)
    if share > _MOST_MASKED:
        notes.append(f"{100 * share:.0f} % of the pixels are masked: take the result with care")
        flags.append("many_masked_pixels")
