"""Spaxels added up to bins of one signal to noise.

The bins are those of PowerBin (Cappellari 2025, MNRAS 544, 1432), which is not installed with this
package: its licence allows non-commercial use only. Fluxes are added, variances too: noise that
resampling has correlated between spaxels is underestimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError
from sbi_sfh.formats.spectrum import RawSpectrum, Spectrum, UnusableSpectrumError

__all__ = ["binned"]

F64 = NDArray[np.float64]
_LEAST_SEEN = 0.5  # of the light of a bin: pixels with less are masked


def binned(
    spectra: Iterable[Spectrum], snr: float, least: float = 0.0
) -> tuple[list[RawSpectrum], dict[tuple[int, int], int]]:
    """Return the spectra of the bins, and the bin of every spaxel (x, y).

    Parameters
    ----------
    spectra
        Of the spaxels of a cube.
    snr
        Signal to noise per pixel that a bin reaches.
    least
        Spaxels with less are left out.

    Raises
    ------
    ConfigError
        If PowerBin is not installed, the spaxels have no errors, or none is bright enough.
    """
    used: list[RawSpectrum] = []
    levels: list[tuple[float, float]] = []
    for spectrum in spectra:
        if isinstance(spectrum, UnusableSpectrumError) or "x" not in spectrum.labels:
            continue
        if spectrum.ivar is None:
            msg = f"{spectrum.where}: spaxels without errors cannot be binned by signal to noise"
            raise ConfigError(msg)
        level = _level(spectrum)
        if level[0] > max(least, 0.0) * level[1] and np.isfinite(level).all():
            used.append(spectrum)
            levels.append(level)
    if not used:
        msg = f"no spaxel has a signal to noise above {least:g}: nothing to bin"
        raise ConfigError(msg)
    place = np.array([(s.labels["x"], s.labels["y"]) for s in used])
    signal, noise = np.array(levels).T
    number = _numbers(place, signal, noise, snr)
    _, number = np.unique(number, return_inverse=True)
    made = [
        _sum([used[k] for k in np.flatnonzero(number == j)], j) for j in range(number.max() + 1)
    ]
    where = {(int(x), int(y)): int(j) for (x, y), j in zip(place, number, strict=True)}
    return made, where


def _good(spectrum: RawSpectrum) -> NDArray[np.bool_]:
    assert spectrum.ivar is not None
    seen = spectrum.good & np.isfinite(spectrum.flux) & np.isfinite(spectrum.ivar)
    return np.asarray(seen & (spectrum.ivar > 0))


def _level(spectrum: RawSpectrum) -> tuple[float, float]:
    """Return the median flux and its median error; NaN for nothing observed."""
    good = _good(spectrum)
    if not good.any() or spectrum.ivar is None:
        return np.nan, np.nan
    error = 1.0 / np.sqrt(spectrum.ivar[good])
    return float(np.median(spectrum.flux[good])), float(np.median(error))


def _numbers(place: F64, signal: F64, noise: F64, snr: float) -> NDArray[np.int64]:
    """Return the number of the bin of every spaxel."""
    try:
        from powerbin import PowerBin  # type: ignore[import-not-found]
    except ImportError:
        msg = (
            "--bin-snr needs PowerBin, which is free for non-commercial use only and therefore not "
            "installed with sbi-sfh: python -m pip install powerbin"
        )
        raise ConfigError(msg) from None

    def capacity(rows: Any) -> float:
        return float(signal[rows].sum() ** 2 / (noise[rows] ** 2).sum())

    if len(place) == 1:
        return np.zeros(1, np.int64)
    return np.asarray(PowerBin(place, capacity, float(snr) ** 2, verbose=0).bin_num, np.int64)


def _sum(spaxels: Sequence[RawSpectrum], number: int) -> RawSpectrum:
    """Return the spectrum of a bin; where spaxels are masked, the others stand for them."""
    first = spaxels[0]
    if any(len(s.wave) != len(first.wave) or (s.wave != first.wave).any() for s in spaxels):
        msg = f"{first.where}: spaxels with different wavelengths cannot be binned"
        raise ConfigError(msg)
    light = np.array([_level(s)[0] for s in spaxels])
    good = np.array([_good(s) for s in spaxels])
    flux = np.where(good, [s.flux for s in spaxels], 0.0).sum(0)
    ivar = np.array([s.ivar for s in spaxels])
    variance = np.where(good, 1.0 / np.where(good, ivar, 1.0), 0.0).sum(0)
    seen = light @ good / light.sum()
    kept = seen > _LEAST_SEEN
    scale = 1.0 / np.where(kept, seen, 1.0)
    return replace(
        first,
        id=f"{first.id.rsplit('-x', 1)[0]}-bin{number}",
        flux=flux * scale,
        ivar=np.where(kept, 1.0 / np.where(kept, variance * scale**2, 1.0), 0.0),
        good=kept,
        fixed_mask=True,
        labels={"bin": float(number)},
    )
