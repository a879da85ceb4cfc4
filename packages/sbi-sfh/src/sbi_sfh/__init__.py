"""Star formation histories of galaxies from one optical spectrum.

``sbi_core.get_simulator("sfh")`` returns the simulator. The physics can be used without it: SSP
libraries (:mod:`sbi_sfh.ssp`, :mod:`sbi_sfh.miles`), histories (:mod:`sbi_sfh.tau`,
:mod:`sbi_sfh.gaussian_process`) and their spectra (:mod:`sbi_sfh.populations`).
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
