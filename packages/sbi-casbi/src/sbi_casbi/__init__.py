"""Number, masses and infall times of the galaxies accreted by a stellar halo.

Public names are imported on first use, so that ``import sbi_casbi`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_casbi.config import CasbiConfig
    from sbi_casbi.dwarfs import build_dwarfs
    from sbi_casbi.library import Library, read_library, write_library
    from sbi_casbi.members import MemberSamples, sample_members
    from sbi_casbi.plane import Plane
    from sbi_casbi.readers import read_halo
    from sbi_casbi.simulator import CasbiSimulator

__version__ = "0.1.0"

_HOME = {
    "CasbiConfig": "config",
    "CasbiSimulator": "simulator",
    "Library": "library",
    "MemberSamples": "members",
    "Plane": "plane",
    "build_dwarfs": "dwarfs",
    "read_halo": "readers",
    "read_library": "library",
    "sample_members": "members",
    "write_library": "library",
}

__all__ = [
    "CasbiConfig",
    "CasbiSimulator",
    "Library",
    "MemberSamples",
    "Plane",
    "__version__",
    "build_dwarfs",
    "read_halo",
    "read_library",
    "sample_members",
    "write_library",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'sbi_casbi' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"sbi_casbi.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
