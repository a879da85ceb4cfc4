"""Galaxies of a file: the NASA-Sloan Atlas, or any table with fluxes or magnitudes.

No row is dropped: a value that cannot be used masks its band, and a row without redshift or without
any band is excluded with its reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sbi_core import ObservationError, Observations, read_table
from sbi_sedflow.bandsets import BandSet
from sbi_sedflow.columns import Aperture, Choices, photometry_of_table
from sbi_sedflow.extinction import Choice
from sbi_sedflow.magnitudes import System
from sbi_sedflow.nsa import looks_like_nsa, photometry_of_nsa
from sbi_sedflow.photometry import Photometry, observations_of

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["photometry_of", "read_galaxies", "read_nsa"]


def read_galaxies(
    path: str | Path,
    *,
    photometry: Aperture | None = None,
    flags_table: str | Path | None = None,
    flux_unit: str | None = None,
    magnitudes: System | None = None,
    extinction: Choice | None = None,
    ab_offsets: Literal["none", "sdss", "kcorrect"] = "none",
    z_range: tuple[float, float] = (0.003, 0.2),
    allow_prior: bool = False,
) -> Observations:
    """Read the galaxies of a file.

    Parameters
    ----------
    path
        NSA file (v0_1_2 or v1_0_1), or any table (see :mod:`sbi_sedflow.columns`).
    photometry
        Which fluxes of a table that has several: elpetro or sersic (NSA), model, cmodel, petro or
        psf (SDSS); default: the first of each.
    flags_table
        SDSS photometric flags for the quality cuts of NSA galaxies.
    flux_unit
        Unit of flux columns that have none.
    magnitudes
        AB, asinh or Vega; default: by the names and units of columns.
    extinction
        Galactic: ``columns`` of the table correct it, values are ``corrected``, or ``none``;
        default: columns if there are any, else by the names of the columns.
    ab_offsets
        Offsets from SDSS to AB magnitudes.
    z_range
        Redshifts that can be inferred.
    allow_prior
        Also keep galaxies without any band: their posterior is the prior.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    ObservationError
        If columns are missing or in the wrong unit.
    """
    choices = Choices(photometry, flux_unit, magnitudes, extinction, ab_offsets)
    fluxes = photometry_of(read_table(path), str(path), choices, flags_table=flags_table)
    return observations_of(fluxes, z_range, allow_prior=allow_prior)


def read_nsa(
    path: str | Path,
    photometry: Literal["elpetro", "sersic"] | None = None,
    *,
    flags_table: str | Path | None = None,
    z_range: tuple[float, float] = (0.003, 0.2),
) -> Observations:
    """Read a file of the NASA-Sloan Atlas, whole or some rows (see :func:`read_galaxies`).

    Raises
    ------
    ObservationError
        If it is another file; the message lists its columns and the two layouts.
    """
    columns = read_table(path).colnames
    if not looks_like_nsa(columns):
        msg = (
            f"'{path}' is not an NSA file: v0_1_2 has NMGY and NMGY_IVAR, v1_0_1 has ELPETRO_NMGY "
            f"and ELPETRO_NMGY_IVAR; it has {', '.join(columns[:20])}"
        )
        raise ObservationError(msg)
    return read_galaxies(path, photometry=photometry, flags_table=flags_table, z_range=z_range)


def photometry_of(
    table: Table,
    source: str,
    choices: Choices | None = None,
    bands: BandSet | None = None,
    *,
    flags_table: str | Path | None = None,
) -> Photometry:
    """Return fluxes and redshifts of all rows of a table (see :func:`read_galaxies`)."""
    if looks_like_nsa(table.colnames):
        wanted = None if choices is None else choices.photometry
        if wanted is not None and wanted != "elpetro" and wanted != "sersic":
            msg = f"{source}: simulator.photometry = {wanted}, but NSA files have elpetro or sersic"
            raise ObservationError(msg)
        return photometry_of_nsa(table, source, bands, photometry=wanted, flags_table=flags_table)
    if flags_table is not None:
        msg = f"{source}: simulator.flags_table needs an NSA file, which this is not"
        raise ObservationError(msg)
    return photometry_of_table(table, source, choices, bands)
