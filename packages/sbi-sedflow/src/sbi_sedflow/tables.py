"""Galaxies of a file: the NASA-Sloan Atlas, or any table with fluxes or magnitudes.

Nothing is dropped: a value that cannot be used masks its band, and a row without redshift or
without any band stays, flagged. Counts of both are in the notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import (
    Batch,
    Excluded,
    ObservationError,
    Observations,
    read_table,
)
from sbi_sedflow.columns import photometry_of_table
from sbi_sedflow.constants import BANDS
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.flags import Flag
from sbi_sedflow.luptitudes import luptitude, luptitude_error
from sbi_sedflow.nsa import looks_like_nsa, photometry_of_nsa
from sbi_sedflow.parameters import CONTEXT, OBSERVABLES
from sbi_sedflow.photometry import Photometry, repeated

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "GalaxyTable",
    "Photometry",
    "as_observations",
    "photometry_of",
    "read_galaxies",
    "read_nsa",
]

Atlas = Literal["elpetro", "sersic"]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_R = BANDS.index("r")


@dataclass(frozen=True)
class GalaxyTable:
    """Galaxies of a file: those that can be inferred, and a flag for every row.

    Parameters
    ----------
    photometry
        All rows.
    flags : (n,)
        Bits known before inference.
    rows : (m,)
        Rows that can be inferred.
    observations
        Those rows.
    """

    photometry: Photometry
    flags: NDArray[np.int64]
    rows: NDArray[np.int64]
    observations: Observations


def read_galaxies(
    path: str | Path,
    *,
    photometry: Atlas = "elpetro",
    flags_table: str | Path | None = None,
    flux_unit: str | None = None,
    z_range: tuple[float, float] = (0.003, 0.2),
    allow_prior: bool = False,
) -> GalaxyTable:
    """Read a file into observations, with a flag for every row of it.

    Parameters
    ----------
    path
        NSA file (v0_1_2 or v1_0_1), or any table (see :mod:`sbi_sedflow.columns`).
    photometry
        Which fluxes of NSA v1_0_1.
    flags_table
        SDSS photometric flags for the quality cuts of NSA galaxies.
    flux_unit
        Unit of flux columns that have none.
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
    found = photometry_of(
        read_table(path),
        str(path),
        photometry=photometry,
        flags_table=flags_table,
        flux_unit=flux_unit,
    )
    return as_observations(found, z_range, allow_prior=allow_prior)


def read_nsa(
    path: str | Path,
    photometry: Atlas = "elpetro",
    *,
    flags_table: str | Path | None = None,
    z_range: tuple[float, float] = (0.003, 0.2),
) -> GalaxyTable:
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
    *,
    photometry: Atlas = "elpetro",
    flags_table: str | Path | None = None,
    flux_unit: str | None = None,
) -> Photometry:
    """Return fluxes and redshifts of all rows of a table (see :func:`read_galaxies`)."""
    if looks_like_nsa(table.colnames):
        return photometry_of_nsa(table, source, photometry=photometry, flags_table=flags_table)
    if flags_table is not None:
        msg = f"{source}: a table of SDSS flags goes with an NSA file, which this is not"
        raise ObservationError(msg)
    return photometry_of_table(table, source, flux_unit=flux_unit)


# -- observations -----------------------------------------------------------------------


def as_observations(
    photometry: Photometry, z_range: tuple[float, float], *, allow_prior: bool = False
) -> GalaxyTable:
    """Return what can be inferred, and flags for all rows."""
    p = photometry
    mask = np.isfinite(p.flux)
    flags = np.zeros(len(p), np.int64)
    flags[~mask.all(1)] |= Flag.MISSING_BAND
    flags[~mask.any(1)] |= Flag.NO_DATA
    with np.errstate(invalid="ignore"):
        inside = (p.z >= z_range[0]) & (p.z <= z_range[1])
        inside &= (p.z_dist > 0) & (p.z_dist < 0.25)
    flags[~inside] |= Flag.Z_RANGE
    twice = repeated(p)
    flags[twice] |= Flag.DUPLICATE
    quality = p.more.get("quality")
    if quality is not None:
        flags[~quality.astype(bool)] |= Flag.QUALITY
    rows_ok = np.flatnonzero(inside & ~twice & (mask.any(1) | allow_prior))
    notes = list(p.notes)
    for bit, what in (
        (Flag.NO_DATA if allow_prior else Flag(0), "no band observed: the prior"),
        (Flag.QUALITY, "rejected by quality cuts: inferred and flagged"),
    ):
        count = int(((flags & bit) != 0).sum())
        if count:
            first = p.id[int(np.flatnonzero((flags & bit) != 0)[0])]
            notes.append(f"{count} of {len(p)} galaxies: {what} (first: {first})")
    r = p.flux[rows_ok, _R]
    r = r[np.isfinite(r) & (r > 0)]
    if r.size:
        median = 22.5 - 2.5 * np.log10(np.median(r))
        if not 5 < median < 30:
            notes.append(f"median r is {median:.1f} mag: are these nanomaggies?")
    return GalaxyTable(p, flags, rows_ok, _observations(p, flags, rows_ok, tuple(notes)))


def _observations(
    p: Photometry, flags: NDArray[np.int64], rows: NDArray[np.int64], notes: tuple[str, ...]
) -> Observations:
    flux, sigma = (torch.as_tensor(v[rows]) for v in (p.flux, p.sigma))
    mask = torch.isfinite(flux)
    context = np.stack([p.z[rows], distance_modulus(p.z_dist[rows])], 1)
    batch = Batch(
        x=luptitude(flux).float(),
        x_err=luptitude_error(flux, sigma).float(),
        mask=mask,
        context=torch.as_tensor(context, dtype=torch.float32),
    )
    return Observations.from_batch(
        batch,
        id=[p.id[k] for k in rows],
        observables=OBSERVABLES,
        context_names=CONTEXT,
        source=p.source,
        notes=notes,
        excluded=tuple(
            Excluded(int(k), str(p.id[k]), _reason(int(flags[k])))
            for k in np.setdiff1d(np.arange(len(p)), rows)
        ),
        rows=rows,
        labels={
            **{name: np.asarray(p.more[name])[rows] for name in ("ra", "dec") if name in p.more},
            "flag_bits": flags[rows],
        },
    )


def _reason(flags: int) -> str:
    """Return the flag of a row without a result."""
    if flags & Flag.DUPLICATE:
        return "repeated_id"
    return "redshift_outside_model" if flags & Flag.Z_RANGE else "nothing_observed"
