"""Stellar populations of galaxies from broad-band photometry; a plugin for sbi-core.

Public names are imported on first use, so that ``import sbi_sedflow`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_sedflow.analysis import SedflowAnalysis
    from sbi_sedflow.arrays import fit
    from sbi_sedflow.bases import Bases, parametric_bases, provabgs_bases, tng_bases
    from sbi_sedflow.emulator import ProvabgsEmulator
    from sbi_sedflow.flags import Flag
    from sbi_sedflow.forward import ForwardModel
    from sbi_sedflow.simulator import SedflowSimulator
    from sbi_sedflow.ssp import SSPGrid, load_library
    from sbi_sedflow.tables import read_galaxies, read_nsa

__version__ = "0.1.0"

_HOME = {
    "Bases": "bases",
    "Flag": "flags",
    "ForwardModel": "forward",
    "ProvabgsEmulator": "emulator",
    "SSPGrid": "ssp",
    "SedflowAnalysis": "analysis",
    "SedflowSimulator": "simulator",
    "fit": "arrays",
    "load_library": "ssp",
    "parametric_bases": "bases",
    "provabgs_bases": "bases",
    "read_galaxies": "tables",
    "read_nsa": "tables",
    "tng_bases": "bases",
}

__all__ = [
    "Bases",
    "Flag",
    "ForwardModel",
    "ProvabgsEmulator",
    "SSPGrid",
    "SedflowAnalysis",
    "SedflowSimulator",
    "__version__",
    "fit",
    "load_library",
    "parametric_bases",
    "provabgs_bases",
    "read_galaxies",
    "read_nsa",
    "tng_bases",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'sbi_sedflow' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"sbi_sedflow.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
