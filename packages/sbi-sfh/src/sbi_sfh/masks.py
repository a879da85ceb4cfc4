"""Pixels that are not used: emission lines, sky, and the ends of the wavelength range."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sbi_sfh.constants import C_KMS

__all__ = ["EMISSION_LINES", "SKY_LINE", "emission_mask", "sky_mask"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_HALF_WIDTH = 400.0  # km/s
EMISSION_LINES: Mapping[str, float] = {  # Angstrom, air
    "[OII] 3726": 3726.03, "[OII] 3729": 3728.82, "[NeIII] 3869": 3868.76, "Hzeta": 3889.05,
    "Hepsilon": 3970.07, "Hdelta": 4101.73, "Hgamma": 4340.46, "[OIII] 4363": 4363.21,
    "Hbeta": 4861.32, "[OIII] 4959": 4958.91, "[OIII] 5007": 5006.84, "[NI] 5198": 5197.90,
    "[NI] 5200": 5200.26, "NaD 5890": 5889.95, "NaD 5896": 5895.92, "[OI] 6300": 6300.30,
    "[OI] 6364": 6363.78, "[NII] 6548": 6548.05, "Halpha": 6562.80, "[NII] 6583": 6583.45,
    "[SII] 6716": 6716.44, "[SII] 6731": 6730.82,
}  # fmt: skip
SKY_LINE = (5577.34, 12.0)  # Angstrom observed, air, half width


def emission_mask(wave: F64) -> Mask:
    """Return which wavelengths lie within 400 km/s of a line, (L,).

    Parameters
    ----------
    wave : (L,) Angstrom
        Rest frame, air, increasing.
    """
    lines = np.array(list(EMISSION_LINES.values()))
    first = np.searchsorted(wave, lines * (1.0 - _HALF_WIDTH / C_KMS), side="right")
    last = np.searchsorted(wave, lines * (1.0 + _HALF_WIDTH / C_KMS), side="left")
    masked = np.zeros(len(wave), bool)
    for a, b in zip(first, last, strict=True):
        masked[a:b] = True
    return masked


def sky_mask(observed: F64) -> Mask:
    """Return which observed air wavelengths [Angstrom] are affected by the 5577 sky line, (L,)."""
    return np.asarray(np.abs(observed - SKY_LINE[0]) < SKY_LINE[1])
