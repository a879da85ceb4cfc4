"""Star formation histories of galaxies from one optical spectrum.

The physics stands on its own: :mod:`sbi_sfh.ssp`, :mod:`sbi_sfh.miles`, :mod:`sbi_sfh.tau`,
:mod:`sbi_sfh.gaussian_process` and :mod:`sbi_sfh.spectra`. ``sbi_core.get_simulator("sfh")``
gives the simulator.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
