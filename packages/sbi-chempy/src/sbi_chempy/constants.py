"""Numbers of the one-zone model, each with its unit and source.

Everything here is part of the model definition: changing a value changes results. Masses
inside the model are in units of all stellar mass formed up to the birth time of the star.

References:
    | Rybizki, Just & Rix 2017, A&A 605, A59 (the Chempy model)
    | Philcox, Rybizki & Gutcke 2018, ApJ 861, 40 (the IllustrisTNG choices)
    | Asplund, Grevesse, Sauval & Scott 2009, ARA&A 47, 481 (solar composition)
"""

from __future__ import annotations

__all__ = [
    "ABUNDANCES",
    "AGB_RANGE_MSUN",
    "ATOMIC_MASS",
    "CO_CORE_MSUN",
    "ELEMENTS",
    "FACTOR_CHANNELS",
    "FACTOR_ELEMENTS",
    "FACTOR_LOG_Z",
    "N_STEPS",
    "PARAMETERS",
    "PRIMORDIAL",
    "SN2_RANGE_MSUN",
    "SN_IA_DELAY_GYR",
    "SN_IA_END_GYR",
    "SN_IA_SLOPE",
    "SOLAR_A",
    "STATUS",
    "T_END_GYR",
    "T_MIN_GYR",
    "Z_FLOOR",
    "Z_SUN",
]

ELEMENTS = ("C", "Fe", "H", "He", "Mg", "N", "Ne", "O", "Si")
"""Tracked elements, in the order of every length-9 axis."""

ABUNDANCES = ("C_Fe", "Fe_H", "He_Fe", "Mg_Fe", "N_Fe", "Ne_Fe", "O_Fe", "Si_Fe")
"""Outputs [dex relative to the Sun], in the order of every length-8 axis."""

PARAMETERS = (
    "alpha_imf",  # high-mass slope of the IMF, dimensionless
    "log10_n_ia",  # log10 SN Ia per Msun formed, within 13.8 Gyr
    "log10_sfe",  # log10 star-formation efficiency, 1/Gyr
    "log10_sfr_peak",  # log10 time of the star-formation peak, Gyr
    "x_out",  # fraction of the stellar feedback that goes to the corona
    "t_birth",  # birth time of the observed star, Gyr after the start
)
"""Columns of theta."""

ATOMIC_MASS = (12.0107, 55.845, 1.00794, 4.002602, 24.305, 14.0067, 20.1797, 15.9994, 28.0855)
"""Atomic mass of ELEMENTS [u], standard atomic weights as used by Chempy."""

SOLAR_A = (8.43, 7.50, 12.0, 10.93, 7.60, 7.83, 7.93, 8.69, 7.51)
"""Solar log10(n_e/n_H) + 12 of ELEMENTS, Asplund et al. 2009."""

PRIMORDIAL = (0.0, 0.0, 0.76, 0.24, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Mass fractions of ELEMENTS in infalling primordial gas (Chempy, TNG configuration)."""

T_END_GYR = 13.797617  # Gyr, age of the Universe at the end of the IllustrisTNG run
T_MIN_GYR = 0.797617  # Gyr, earliest birth time accepted (T_END_GYR - 13)
N_STEPS = 27  # time steps between 0 and the birth time: 28 points, part of the model

SN_IA_SLOPE = -1.12  # slope of the SN Ia delay-time distribution (Maoz & Mannucci 2012)
SN_IA_DELAY_GYR = 0.04  # Gyr, no SN Ia before (log10 = -1.40 in the code behind the data)
SN_IA_END_GYR = 13.8  # Gyr, the delay-time distribution is normalised up to here
CO_CORE_MSUN = 0.6468  # Msun per event already booked as a white-dwarf remnant (Chempy)

SN2_RANGE_MSUN = (8.0, 100.0)  # Msun, initial masses of core-collapse supernovae
AGB_RANGE_MSUN = (1.0, 8.0)  # Msun, initial masses of AGB stars

Z_FLOOR = 1e-10  # metal mass fraction that stands for 0 in log-metallicity interpolation

FACTOR_CHANNELS = ("sn2", "agb", "sn1a")
"""Channels of the yield factors, in the order of their first axis."""

FACTOR_ELEMENTS = tuple(e for e in ELEMENTS if e != "H")
"""Elements of the yield factors, in the order of their second axis."""

Z_SUN = 0.0134  # metal mass fraction at which yield factors have no slope (Asplund et al. 2009)
FACTOR_LOG_Z = (-2.0, 0.5)  # dex, yield factors are constant in log10(Z/Z_SUN) beyond these

STATUS = {
    0: "ok",
    1: "star formation at the birth time is below 5 % of its mean",
    2: "negative mass in gas or corona",
    3: "star formation exceeds the gas",
    4: "abundances are not finite",
    5: "parameter row is not finite or out of range",
}
"""Meaning of the status code of a row."""
