"""Simulation-based inference with plugins: the machine without the astronomy.

Public names are imported on first use, so that ``import sbi_core`` stays light.
"""

import threading

import lazy_loader

__version__ = "0.1.0"

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _imported(name)
    except RuntimeError:  # pools of workers cannot be imported while the interpreter ends
        if threading.main_thread().is_alive():
            raise
        from sbi_core.errors import MAIN_THREAD_ENDED, SbiError

        raise SbiError(MAIN_THREAD_ENDED) from None
