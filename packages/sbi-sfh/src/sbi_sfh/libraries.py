"""Load the SSP library named in the configuration."""

from __future__ import annotations

from pathlib import Path

from sbi_sfh.bc03 import read_bc03
from sbi_sfh.config import SfhConfig
from sbi_sfh.embedded import embedded_library
from sbi_sfh.miles import LibraryError, read_miles
from sbi_sfh.ssp import SspLibrary

__all__ = ["load_library"]


def load_library(config: SfhConfig) -> SspLibrary:
    """Return the library, cropped to the wavelength range.

    Raises
    ------
    LibraryError
        If it is missing or unusable, or [alpha/Fe] is requested of a library with one plane.
    ConfigError
        If it does not cover the wavelengths.
    """
    if config.library == "embedded":
        library = embedded_library()
    elif config.library == "bc03":
        library = read_bc03(components=config.components)
    else:
        library = read_miles(Path(config.library).expanduser(), components=config.components)
    if config.afe and len(library.afe) < 2:
        msg = (
            f"afe = true needs >= 2 [alpha/Fe] planes, library '{library.name}' has one "
            f"([alpha/Fe] = {library.afe[0]:g}): give a folder with two, or leave afe out"
        )
        raise LibraryError(msg)
    return library.crop(*config.wave_ends)
