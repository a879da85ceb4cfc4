r"""From a spectrum of a file to the pixels of the model.

Steps: masks of the file; Galactic reddening; vacuum to air; rest frame; resolution of the library;
rebinning that conserves flux; emission lines and the 5577 sky line; division by the median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units
from numpy.typing import NDArray

from sbi_core import counted
from sbi_sfh.config import SfhConfig, age_of_universe
from sbi_sfh.constants import C_KMS, FWHM_PER_SIGMA, WAVE_PRESETS
from sbi_sfh.formats.spectrum import RawSpectrum, UnusableSpectrumError
from sbi_sfh.masks import emission_mask, sky_mask
from sbi_sfh.resample import cardelli, edges_of, rebin, vacuum_to_air

__all__ = ["Prepared", "prepare"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_COARSEST = 350.0  # km/s
_MOST_MASKED = 0.4
_USELESS = 0.8  # share of masked pixels: more are refused
_LATE_FLAGGED, _LATE_REFUSED = 0.3, 1.0  # Gyr between the ages of the Universe: data and model
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_SCATTER = (0.45, 3.0)  # of pixels over their quoted errors
_FEW_PIXELS = 200


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
    """

    flux: F64
    err: F64
    mask: Mask
    snr: float
    sigma: float
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def prepare(raw: RawSpectrum, wave: F64, config: SfhConfig, *, fwhm: float) -> Prepared:
    """Return one spectrum on the pixels of the model (see :func:`~sbi_sfh.readers.read_spectra`).

    Raises
    ------
    UnusableSpectrumError
        If it cannot be used.
    """
    notes: list[str] = list(raw.notes)
    flags: list[str] = []
    angstrom = _in_angstrom(raw, config)
    z = _redshift(raw, config, notes, flags)
    vacuum = raw.vacuum if raw.vacuum is not None else config.vacuum
    if vacuum is None:
        msg = (
            f"{raw.where}: air or vacuum wavelengths? Say so in the file (VACUUM = T or F) or with "
            "--set simulator.vacuum=true"
        )
        raise UnusableSpectrumError("facts_missing", msg)
    good = _good_pixels(raw, notes)
    _check_scatter(raw, good, notes, flags)
    # the index of refraction belongs to the wavelength at which light was measured
    observed = vacuum_to_air(angstrom) if vacuum else angstrom
    rest = observed / (1.0 + z)
    _covered(raw, rest, wave)
    flux = np.where(good, raw.flux, 0.0)
    ivar = np.where(good, raw.ivar, 0.0)
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
    lost = int((~mask).sum())
    if lost:
        notes.append(f"{lost} of {len(wave)} pixels without data (mask of the file, or sky)")
    if config.mode == "observed":
        mask &= ~emission_mask(wave)
    mask &= var > 0
    _enough(raw, mask, notes)
    median = float(np.median(new[mask]))
    if not median > 0:
        msg = f"{raw.where}: the median flux is {median:g}, expected positive"
        raise UnusableSpectrumError("negative_flux", msg)
    err = np.sqrt(var) / median
    snr = float(np.median(new[mask] / np.sqrt(var[mask])))
    if not snr > 0:
        msg = f"{raw.where}: the median signal to noise is {snr:g}, expected positive"
        raise UnusableSpectrumError("negative_flux", msg)
    return Prepared(
        flux=np.where(mask, new / median, np.nan),
        err=np.where(mask, err, np.nan),
        mask=mask,
        snr=snr,
        sigma=_dispersion(raw, excess, config, notes, flags),
        notes=tuple(notes),
        flags=tuple(flags),
    )


def _in_angstrom(raw: RawSpectrum, config: SfhConfig) -> F64:
    """Return the wavelengths in Angstrom."""
    unit = raw.unit or config.wave_unit
    typical = float(np.median(raw.wave))
    if unit is None:
        guess = "nm" if 300 < typical < 1100 else "micron" if typical < 3 else "Angstrom"
        msg = (
            f"{raw.where}: the unit of wavelengths is not known (median {typical:g}, looks like "
            f"{guess}); give it in the file or with --set simulator.wave_unit={guess}"
        )
        raise UnusableSpectrumError("facts_missing", msg)
    try:
        angstrom: F64 = (raw.wave * units.Unit(unit)).to_value("Angstrom")
    except (ValueError, units.UnitConversionError):
        msg = f"{raw.where}: '{unit}' is not a unit of wavelength; use Angstrom, nm or micron"
        raise UnusableSpectrumError("facts_missing", msg) from None
    middle = float(np.median(angstrom))
    if not 2000 < middle < 30000:
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


def _redshift(raw: RawSpectrum, config: SfhConfig, notes: list[str], flags: list[str]) -> float:
    """Return the redshift to divide out; 0 for spectra at rest."""
    z = raw.redshift if raw.redshift is not None else config.redshift
    if (z is None or not np.isfinite(z)) and not raw.rest:
        msg = (
            f"{raw.where}: no redshift; give REDSHIFT in the file (0 for spectra at rest; in text "
            "'# REDSHIFT = 0.03'), or train with --set simulator.redshift=..."
        )
        raise UnusableSpectrumError("facts_missing", msg)
    if z is None or not np.isfinite(z):
        return 0.0
    if not -0.01 < z < 2:
        msg = f"{raw.where}: redshift {z:g} is outside of -0.01 to 2"
        raise UnusableSpectrumError("redshift_outside_model", msg)
    age = age_of_universe(max(z, 0.0))
    late = config.t_end - age
    if abs(late) > _LATE_REFUSED:
        msg = (
            f"{raw.where}: at redshift {z:g} the Universe is {age:.1f} Gyr old, the model is of "
            f"galaxies observed at {config.t_end:.1f} Gyr; train with "
            f"--set simulator.redshift={z:g}"
        )
        raise UnusableSpectrumError("redshift_outside_model", msg)
    if abs(late) > _LATE_FLAGGED:
        notes.append(
            f"at redshift {z:g} the Universe is {age:.2f} Gyr old, {abs(late):.2f} Gyr "
            f"{'younger' if late > 0 else 'older'} than in the model: formation times are off by "
            f"as much; train with --set simulator.redshift={z:g}"
        )
        flags.append("redshift_unlike_model")
    return 0.0 if raw.rest else float(z)


def _good_pixels(raw: RawSpectrum, notes: list[str]) -> Mask:
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
        msg += " (a mask is nonzero or True where a pixel is bad: is it the other way round?)"
        raise UnusableSpectrumError("mostly_masked", msg)
    return np.asarray(good)


def _check_scatter(raw: RawSpectrum, good: Mask, notes: list[str], flags: list[str]) -> None:
    """Compare the errors with the scatter of neighbouring pixels (fourth differences)."""
    inside = np.convolve(good, np.ones(len(_FOURTH)), "valid") > len(_FOURTH) - 0.5
    if inside.sum() < _FEW_PIXELS:
        return
    flux = np.where(good, raw.flux, 0.0)
    variance = np.where(good, 1.0 / np.where(good, raw.ivar, 1.0), 0.0)
    scatter = np.convolve(flux, _FOURTH, "valid")[inside]
    expected = np.sqrt(np.convolve(variance, np.square(_FOURTH), "valid")[inside])
    ratio = float(1.4826 * np.median(np.abs(scatter) / expected))
    if _SCATTER[0] < ratio < _SCATTER[1]:
        return
    notes.append(
        f"neighbouring pixels scatter by {ratio:.2g} of their quoted errors: errors in another "
        "unit, overestimated, or noise correlated by resampling"
    )
    flags.append("errors_unlike_scatter")


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


def _covered(raw: RawSpectrum, rest: F64, wave: F64) -> None:
    edges, ours = edges_of(rest), edges_of(wave)
    step = wave[1] - wave[0]
    if edges[0] <= ours[0] + step and edges[-1] >= ours[-1] - step:
        return
    fits = [n for n, (a, b) in WAVE_PRESETS.items() if edges[0] <= a and edges[-1] >= b]
    advice = (
        f"train with --set simulator.wave_range={fits[0]}" if fits else
        f"train with --set simulator.wave_range=[{np.ceil(edges[0]):.0f},{np.floor(edges[-1]):.0f}]"
    )  # fmt: skip
    msg = (
        f"{raw.where}: covers {edges[0]:.0f}-{edges[-1]:.0f} Angstrom at rest, the model needs "
        f"{ours[0]:.0f}-{ours[-1]:.0f}; {advice}"
    )
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
    ok = norm > 0
    norm = np.where(ok, norm, 1.0)
    return np.where(ok, total / norm, flux), np.where(ok, error / norm**2, variance)


def _enough(raw: RawSpectrum, mask: Mask, notes: list[str]) -> None:
    share = 1.0 - mask.mean()
    if not mask.any():
        msg = f"{raw.where}: no pixel is left after masks of the file, sky and emission lines"
        raise UnusableSpectrumError("nothing_observed", msg)
    if share > _USELESS:
        msg = (
            f"{raw.where}: {100 * share:.0f} % of the pixels are masked (a mask is nonzero or True "
            "where a pixel is bad: is it the other way round?)"
        )
        raise UnusableSpectrumError("mostly_masked", msg)
    if share > _MOST_MASKED:
        notes.append(f"{100 * share:.0f} % of the pixels are masked: take the result with care")
