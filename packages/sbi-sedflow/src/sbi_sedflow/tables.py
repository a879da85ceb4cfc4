r"""Reading galaxies: NSA files and any table with fluxes or magnitudes, one row each.

A generic table has ``id`` (or row numbers), ``z``, and per band b of F N u g r i z either
``flux_b`` with ``flux_err_b`` (nanomaggies, maggies or a spectral flux density: the unit of the
column decides, and must be there) or ``mag_b`` with ``mag_err_b`` (AB; converted by
:math:`f = 10^{0.4 (22.5 - m)}`, :math:`\sigma = f \sigma_m / 1.0857`). Optional: ``ra``, ``dec``,
``z_dist``. Other names are mapped with ``columns``.

Nothing is dropped: a value that cannot be used masks its band, and a row without redshift or
without any band stays, flagged. Counts of both are in the notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import (
    Batch,
    ColumnReader,
    ObservationError,
    Observations,
    read_table,
)
from sbi_sedflow.constants import BANDS, N_BANDS, POGSON
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.flags import Flag
from sbi_sedflow.luptitudes import luptitude, luptitude_error
from sbi_sedflow.parameters import CONTEXT, OBSERVABLES

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["GalaxyTable", "Photometry", "read_galaxies", "read_photometry"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_R = BANDS.index("r")


@dataclass(frozen=True)
class Photometry:
    """Fluxes of a catalogue.

    Parameters
    ----------
    id : (n,)
        Identifiers, unique.
    flux, sigma : (n, 7)
        Fluxes and errors [nanomaggies]; NaN where missing or unusable.
    z, z_dist : (n,)
        Observed redshift, and that which gives the distance; NaN where unknown.
    more
        Further columns to keep, (n,) each: ``ra``, ``dec``, ``mass`` (Msun), ``quality``.
    notes
        What was masked, one sentence each.
    source
        File.
    """

    id: list[str]
    flux: F64
    sigma: F64
    z: F64
    z_dist: F64
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.id)


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
    photometry: Literal["elpetro", "sersic"] = "elpetro",
    flags_table: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    z_range: tuple[float, float] = (0.003, 0.2),
    allow_prior: bool = False,
) -> GalaxyTable:
    """Read a file into observations, with a flag for every row of it.

    Parameters
    ----------
    path
        NSA file (v0_1_2 or v1_0_1), or any table.
    photometry
        Which fluxes of NSA v1_0_1.
    flags_table
        SDSS photometric flags for the quality cuts of NSA galaxies.
    columns
        Name of the column for each standard name, where they differ.
    z_range
        Redshifts that can be inferred.
    allow_prior
        Also keep galaxies without any band: their posterior is the prior.

    Raises
    ------
    DataFileError
        If the file cannot be read.
    ObservationError
        If columns are missing or in the wrong unit, or identifiers repeat.
    """
    found = read_photometry(path, photometry=photometry, flags_table=flags_table, columns=columns)
    return as_observations(found, z_range, allow_prior=allow_prior)


def read_photometry(
    path: str | Path,
    *,
    photometry: Literal["elpetro", "sersic"] = "elpetro",
    flags_table: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Photometry:
    """Read fluxes and redshifts of all rows (see :func:`read_galaxies`)."""
    from sbi_sedflow.nsa import looks_like_nsa, photometry_of_nsa

    table = read_table(path)
    source = str(path)
    if looks_like_nsa(table.colnames) and not columns:
        return photometry_of_nsa(table, source, photometry=photometry, flags_table=flags_table)
    if flags_table is not None:
        msg = f"{source}: a table of SDSS flags goes with an NSA file, which this is not"
        raise ObservationError(msg)
    return _generic(table, source, dict(columns or {}))


# -- generic tables ---------------------------------------------------------------------


def _generic(table: Table, source: str, columns: dict[str, str]) -> Photometry:
    for standard, own in columns.items():
        if own not in table.colnames:
            msg = f"{source}: no column '{own}' (for '{standard}'); it has {_listed(table)}"
            raise ObservationError(msg)
        table.rename_column(own, standard)
    reader = ColumnReader(table, source)
    names = {b: (reader.find([f"flux_{b}"]), reader.find([f"mag_{b}"])) for b in BANDS}
    present = [b for b, (flux, mag) in names.items() if flux or mag]
    if not present:
        msg = (
            f"{source}: neither an NSA file (columns NMGY and NMGY_IVAR, or ELPETRO_NMGY and "
            f"ELPETRO_NMGY_IVAR) nor a table with flux_b, flux_err_b or mag_b, mag_err_b for b in "
            f"{' '.join(BANDS)}; it has {_listed(table)}"
        )
        raise ObservationError(msg)
    z_name = reader.find(["z", "redshift", "zspec", "z_spec"])
    if z_name is None:
        msg = f"{source}: no column 'z' with the redshift; it has {_listed(table)}"
        raise ObservationError(msg)
    n = len(table)
    flux, sigma = np.full((n, N_BANDS), np.nan), np.full((n, N_BANDS), np.nan)
    for k, b in enumerate(BANDS):
        f_name, m_name = names[b]
        if f_name and m_name:
            msg = f"{source}: band {b} has both '{f_name}' and '{m_name}'; keep one"
            raise ObservationError(msg)
        if f_name:
            flux[:, k], sigma[:, k] = _flux_columns(reader, f_name, b)
        elif m_name:
            flux[:, k], sigma[:, k] = _magnitude_columns(reader, m_name, b)
    notes = []
    absent = [b for b in BANDS if b not in present]
    if absent:
        notes.append(f"bands not in the table, treated as missing: {' '.join(absent)}")
    flux, sigma, more_notes = usable(flux, sigma, source)
    z = reader.values(z_name)
    dist = reader.find(["z_dist", "zdist"])
    kept = {
        name: reader.values(column)
        for name in ("ra", "dec")
        if (column := reader.find([name])) is not None
    }
    return Photometry(
        reader.ids()[0],
        flux,
        sigma,
        z,
        z if dist is None else reader.values(dist),
        kept,
        (*notes, *more_notes),
        source,
    )


def _listed(table: Table) -> str:
    names = table.colnames
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _flux_columns(reader: ColumnReader, name: str, band: str) -> tuple[F64, F64]:
    error = reader.find([f"flux_err_{band}", f"{name}_err", f"e_{name}"])
    if error is None:
        msg = f"{reader.source}: column '{name}' has no errors; add 'flux_err_{band}'"
        raise ObservationError(msg)
    found = []
    for column in (name, error):
        given = reader.table[column].unit
        if given is None or not str(given):
            msg = (
                f"{reader.source}: column '{column}' has no unit; give it nmgy (nanomaggies), "
                "mgy or a flux density such as uJy (FITS, ECSV and VOTable keep units)"
            )
            raise ObservationError(msg)
        found.append(_plain(reader, column) * nanomaggies_per(str(given), reader.source, column))
    return found[0], found[1]


def _plain(reader: ColumnReader, column: str) -> F64:
    """Return the numbers of a column whatever its unit, NaN where masked."""
    data = reader.table[column]
    if data.dtype.kind not in "fiub" or getattr(data, "ndim", 1) != 1:
        msg = f"{reader.source}: column '{column}' must hold one number per row"
        raise ObservationError(msg)
    return np.asarray(np.ma.filled(np.ma.asarray(data).astype(np.float64), np.nan), np.float64)


def nanomaggies_per(unit: str, source: str, column: str) -> float:
    """Return how many nanomaggies one of ``unit`` is.

    Raises
    ------
    ObservationError
        If it is no flux unit, magnitudes among them.
    """
    from astropy import units

    words = {"nmgy": 1.0, "nanomaggy": 1.0, "nanomaggies": 1.0, "mgy": 1e9, "maggy": 1e9,
             "maggies": 1e9, "nMgy": 1.0, "Mgy": 1e9}  # fmt: skip
    if unit in words:
        return words[unit]
    try:
        return float(units.Unit(unit).to(3631e-9 * units.Jy))
    except (units.UnitsError, ValueError, TypeError):
        hint = "; magnitudes go into mag_b columns" if "mag" in unit.lower() else ""
        msg = (
            f"{source}: column '{column}' has unit '{unit}', expected nmgy, mgy or a flux density "
            f"such as uJy{hint}"
        )
        raise ObservationError(msg) from None


def _magnitude_columns(reader: ColumnReader, name: str, band: str) -> tuple[F64, F64]:
    error = reader.find([f"mag_err_{band}", f"{name}_err", f"e_{name}"])
    if error is None:
        msg = f"{reader.source}: column '{name}' has no errors; add 'mag_err_{band}'"
        raise ObservationError(msg)
    mag, err = _plain(reader, name), _plain(reader, error)
    seen = np.isfinite(mag) & (np.abs(mag) < 90)  # 99, -99, -999: not measured
    typical = float(np.median(mag[seen])) if seen.any() else 20.0
    if seen.any() and not 3.0 < typical < 35.0:
        msg = (
            f"{reader.source}: column '{name}' has a median of {typical:.3g}, which is no AB "
            f"magnitude of a galaxy; fluxes go into 'flux_{band}'"
        )
        raise ObservationError(msg)
    flux = np.where(seen, 10.0 ** (0.4 * (22.5 - np.where(seen, mag, 22.5))), np.nan)
    return flux, flux * err / POGSON


def usable(flux: F64, sigma: F64, source: str) -> tuple[F64, F64, list[str]]:
    """Return fluxes and errors with NaN where either cannot be used, and the counts.

    Raises
    ------
    ObservationError
        If fluxes look like magnitudes: no flux is negative and bands lie close to 20.
    """
    seen = np.isfinite(flux)
    r = flux[seen[:, _R], _R]
    if len(r) >= 5 and 10 < np.median(r) < 25 and np.ptp(np.percentile(r, [2, 98])) < 10:
        ratio = np.nanmedian(np.abs(flux[:, _R - 1] - flux[:, _R + 1]))
        if ratio < 3 and np.nanmin(flux) > 5:
            msg = (
                f"{source}: fluxes look like magnitudes (median r {np.median(r):.1f}, spread of a "
                "few units); put magnitudes into mag_b columns"
            )
            raise ObservationError(msg)
    notes = []
    bad = seen & ~(np.isfinite(sigma) & (sigma > 0))
    if bad.any():
        per = ", ".join(f"{b} {c}" for b, c in zip(BANDS, bad.sum(0), strict=True) if c)
        notes.append(f"{int(bad.sum())} value(s) without a positive error masked ({per})")
    seen &= ~bad
    return np.where(seen, flux, np.nan), np.where(seen, sigma, np.nan), notes


# -- observations -----------------------------------------------------------------------


def as_observations(
    photometry: Photometry, z_range: tuple[float, float], *, allow_prior: bool = False
) -> GalaxyTable:
    """Return what can be inferred, and flags for all rows.

    Raises
    ------
    ObservationError
        If identifiers repeat, or no row can be inferred.
    """
    p = photometry
    ids, counts = np.unique(np.asarray(p.id), return_counts=True)
    if (counts > 1).any():
        twice = ids[counts > 1]
        rows = [k for k, i in enumerate(p.id) if i == twice[0]][:5]
        msg = (
            f"{p.source}: {len(twice)} id(s) appear more than once, e.g. '{twice[0]}' in rows "
            f"{rows}; every galaxy needs its own id"
        )
        raise ObservationError(msg)
    mask = np.isfinite(p.flux)
    flags = np.zeros(len(p), np.int64)
    flags[~mask.all(1)] |= Flag.MISSING_BAND
    flags[~mask.any(1)] |= Flag.NO_DATA
    with np.errstate(invalid="ignore"):
        inside = (p.z >= z_range[0]) & (p.z <= z_range[1])
        inside &= (p.z_dist > 0) & (p.z_dist < 0.25)
    flags[~inside] |= Flag.Z_RANGE
    quality = p.more.get("quality")
    if quality is not None:
        flags[~quality.astype(bool)] |= Flag.QUALITY
    rows_ok = np.flatnonzero(inside & (mask.any(1) | allow_prior))
    notes = list(p.notes)
    for bit, what in (
        (Flag.Z_RANGE, f"redshift unknown or outside {z_range[0]:g}-{z_range[1]:g}: no result"),
        (Flag.NO_DATA, f"no band observed: {'the prior' if allow_prior else 'no result'}"),
        (Flag.QUALITY, "rejected by quality cuts: inferred and flagged"),
    ):
        count = int(((flags & bit) != 0).sum())
        if count:
            first = p.id[int(np.flatnonzero((flags & bit) != 0)[0])]
            notes.append(f"{count} of {len(p)} galaxies: {what} (first: {first})")
    if len(rows_ok) == 0:
        msg = f"{p.source}: none of {len(p)} galaxies can be inferred: {'; '.join(notes)}"
        raise ObservationError(msg)
    r = p.flux[rows_ok, _R]
    r = r[np.isfinite(r) & (r > 0)]
    if r.size:
        median = 22.5 - 2.5 * np.log10(np.median(r))
        if not 5 < median < 30:
            notes.append(f"median r is {median:.1f} mag: are these nanomaggies?")
    return GalaxyTable(p, flags, rows_ok, _observations(p, rows_ok, tuple(notes)))


def _observations(p: Photometry, rows: NDArray[np.int64], notes: tuple[str, ...]) -> Observations:
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
    )


def without_bands(photometry: Photometry, keep: tuple[int, ...]) -> Photometry:
    """Return the photometry with only the bands marked 1 in ``keep``."""
    seen = np.asarray(keep, bool)
    flux, sigma = (np.where(seen, v, np.nan) for v in (photometry.flux, photometry.sigma))
    return replace(photometry, flux=flux, sigma=sigma)
