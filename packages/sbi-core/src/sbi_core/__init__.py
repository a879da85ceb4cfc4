"""Simulation-based inference with plugins: the machine without the astronomy.

Public names are imported on first use, so that ``import sbi_core`` stays light.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
