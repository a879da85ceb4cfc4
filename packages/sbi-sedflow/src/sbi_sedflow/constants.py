"""Numbers that the whole package shares, with units and sources."""

from __future__ import annotations

from typing import Final

__all__ = [
    "AB_ZERO_POINT",
    "BANDS",
    "C_ANGSTROM",
    "L_SUN",
    "MPC_CM",
    "NANOMAGGIES",
    "N_BANDS",
    "PIVOTS",
    "POGSON",
    "WAVE_RANGE",
    "Z_MAX",
]

BANDS: Final = ("F", "N", "u", "g", "r", "i", "z")  # GALEX FUV, NUV; SDSS; the order of the NSA
N_BANDS: Final = len(BANDS)
PIVOTS: Final = (1536.0, 2299.0, 3589.0, 4701.0, 6177.0, 7497.0, 8904.0)  # Angstrom, speclite
C_ANGSTROM: Final = 2.99792458e18  # speed of light, Angstrom / s
L_SUN: Final = 3.846e33  # erg / s, as in FSPS and PROVABGS
AB_ZERO_POINT: Final = 3631e-23  # erg / s / cm^2 / Hz: AB = 0 (Oke & Gunn 1983)
NANOMAGGIES: Final = 1e9  # per maggy; 22.5 mag is one nanomaggy
MPC_CM: Final = 3.0856775814913673e24  # cm, IAU 2015
POGSON: Final = 1.0857362047581294  # 2.5 / ln 10, mag per relative change
WAVE_RANGE: Final = (912.0, 11800.0)  # Angstrom, rest frame: covers F..z for 0 < z <= Z_MAX
Z_MAX: Final = 0.2  # the age of the universe there still exceeds the last fixed edge, 11.22 Gyr
