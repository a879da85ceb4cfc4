"""Stellar populations of galaxies from broad-band photometry; a plugin for sbi-core.

Public names are imported on first use, so that ``import sbi_sedflow`` stays light.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
