"""Numbers that several modules share, each with its unit and source."""

from __future__ import annotations

__all__ = [
    "AUXILIARY",
    "C_KMS",
    "DECILES",
    "FWHM_LIBRARY",
    "FWHM_PER_SIGMA",
    "T_UNIVERSE_GYR",
    "WAVE_PRESETS",
]

C_KMS = 299_792.458  # speed of light
T_UNIVERSE_GYR = 13.466983947  # age of flat LCDM at z = 0 with H0 = 70, Omega_m = 0.3
FWHM_LIBRARY = 2.51  # Angstrom, constant; MILES: Falcon-Barroso et al. 2011, A&A 532, A95
FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)
DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AUXILIARY = (0.95, 0.98, 0.99, 0.995, 0.999)  # nine deciles do not fix the last tenth of the mass
WAVE_PRESETS = {  # Angstrom, air, rest frame
    "full": (3540.5, 7409.6),
    "sdss": (3820.0, 7400.0),
    "paper-etg": (4023.0, 6000.0),
}
