"""Simple stellar populations: grids of spectra and their sources."""

from sbi_sedflow.ssp.grid import SSPGrid, read_grid, write_grid
from sbi_sedflow.ssp.providers import PROVIDERS, load_library
from sbi_sedflow.ssp.rebin import Library, pixel_edges

__all__ = [
    "PROVIDERS",
    "Library",
    "SSPGrid",
    "load_library",
    "pixel_edges",
    "read_grid",
    "write_grid",
]
