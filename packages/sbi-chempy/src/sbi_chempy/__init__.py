"""CHEMPY galactic chemical evolution: abundances of stars from six parameters.

The physics stands on its own: :mod:`sbi_chempy.engine`, :mod:`sbi_chempy.ssp`,
:mod:`sbi_chempy.tracks` and :mod:`sbi_chempy.yields`. ``sbi_core.get_simulator("chempy")`` gives
the simulator.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
