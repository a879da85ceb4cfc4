r"""What does not belong to the stars: cosmic rays, and emission beyond the masked lines.

A pixel is a cosmic ray if it exceeds the median of its nine neighbours by 8 of its errors and 45 %,
or falls below that of five by 8 errors and 60 %. Absorption lines that the instrument resolves
(:math:`\sigma \geq 0.7` pixels, at most 80 % deep) stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, median_filter

from sbi_sfh.constants import C_KMS
from sbi_sfh.masks import emission_mask

__all__ = ["emission", "scatter_of", "spikes_in"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_ERRORS = 8.0
_WINDOWS = ((9, 0.45, 1.0), (5, 0.6, -1.0))  # pixels, share of the median, direction
_LINES: Mapping[str, float] = {"Hbeta": 4861.32, "[OIII] 5007": 5006.84, "Halpha": 6562.80}
_CORE, _WINGS, _SIDES = 400.0, 1200.0, 4000.0  # km/s
_WIDTH = 3.0  # Angstrom: smallest equivalent width that is reported
_SIGNIFICANT = 6.0
_WINDOW = 201  # pixels of the local scatter
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])


def spikes_in(flux: F64, ivar: F64, good: Mask) -> Mask:
    """Return the pixels (L,) that stand out of their neighbours, and those beside them."""
    if good.sum() < 20:
        return np.zeros(len(flux), bool)
    at = np.arange(len(flux))
    filled = np.interp(at, at[good], flux[good])
    error = np.where(good, 1.0 / np.sqrt(np.where(good, ivar, 1.0)), 0.0)
    spikes = np.zeros(len(flux), bool)
    for width, share, sign in _WINDOWS:
        level = median_filter(filled, width, mode="nearest")
        out = sign * (filled - level)
        spikes |= (out > _ERRORS * error) & (out > share * np.abs(level)) & good
    return np.asarray(binary_dilation(spikes))


def scatter_of(flux: F64) -> F64:
    """Return one standard deviation of white noise along a spectrum (L,): fourth differences."""
    size = np.abs(np.convolve(flux, _FOURTH, "same")) / np.sqrt((_FOURTH**2).sum())
    size[:2], size[-2:] = size[2], size[-3]
    local = 1.4826 * median_filter(size, min(_WINDOW, len(flux)), mode="reflect")
    return np.asarray(np.maximum(local, 1e-6 * np.abs(np.median(flux)) + 1e-300))


def emission(
    wave: F64, flux: F64, variance: F64, mask: Mask, *, masked: bool
) -> tuple[list[str], bool]:
    """Return sentences on emission lines, and whether the result would feel them.

    Parameters
    ----------
    wave : (L,) Angstrom
        Rest frame, air.
    flux, variance, mask
        The spectrum, (L,); mask is True where there are data.
    masked
        True if lines are masked within 400 km/s: only what is beyond them matters then.
    """
    lines = emission_mask(wave)
    step = np.gradient(wave)
    inside: list[str] = []
    beyond: list[str] = []
    for name, line in _LINES.items():
        speed = np.abs(wave / line - 1.0) * C_KMS
        side = mask & (speed > _WINGS) & (speed < _SIDES) & ~lines
        if side.sum() < 20:
            continue
        slope, level = np.polyfit(wave[side] - line, flux[side], 1)
        for words, there in (
            (inside, mask & (speed < _CORE)),
            (beyond, mask & (speed < _WINGS) & ~lines),
        ):
            local = level + slope * (wave[there] - line)
            if there.sum() < 5 or not (local > 0).all():
                continue
            width = float(((flux[there] / local - 1.0) * step[there]).sum())
            error = float(np.sqrt((variance[there] / local**2 * step[there] ** 2).sum()))
            if width > max(_WIDTH, _SIGNIFICANT * error):
                words.append(f"{name} {width:.0f} A")
    notes = [f"emission lines masked: {', '.join(inside)}"] if inside and masked else []
    if inside and not masked:
        notes.append(f"emission lines in a mode without masks of lines: {', '.join(inside)}")
    if beyond and masked:
        notes.append(f"emission lines beyond the masked 400 km/s: {', '.join(beyond)}")
    return notes, bool(beyond if masked else inside)
