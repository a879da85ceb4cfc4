"""The NASA-Sloan Atlas: two layouts, its photometry, and quality cuts.

v0_1_2 has ``NMGY, NMGY_IVAR, OK, MASS``; v1_0_1 has them twice, with the prefixes ``ELPETRO_`` and
``SERSIC_``. Fluxes are nanomaggies, corrected for Galactic extinction and for the zero point of the
AB system; the raw ``*FLUX`` columns are neither and are not used. An inverse variance of zero means
a missing band; negative fluxes with a positive one are data. ``MASS`` is in Msun / h^2, surviving
stars; converted with h = 0.7.

Quality cuts (Hahn & Melchior 2022 used SDSS flags that the file does not have): with a table of
``flags`` (64 bits, by ``NSAID``), objects with PEAKCENTER, NOPROFILE, SATURATED, NOTCHECKED,
BAD_COUNTS_ERROR, PSF_FLUX_INTERP, or INTERP_CENTER and CR together, or without BINNED1, are
rejected; without one: OK = 1 and a positive flux and inverse variance in g, r and i.

References:
    | Blanton et al. 2011, AJ 142, 31
    | SDSS sdssMaskbits (OBJECT1, OBJECT2)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from sbi_core import ColumnReader, ObservationError, counted, read_table
from sbi_sedflow.bandsets import BandSet
from sbi_sedflow.columns import usable
from sbi_sedflow.constants import BANDS, N_BANDS
from sbi_sedflow.photometry import Photometry

__all__ = ["SDSS_BITS", "looks_like_nsa", "photometry_of_nsa", "quality_cuts"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
H = 0.7
SDSS_BITS = {
    "PEAKCENTER": 5,
    "NOPROFILE": 7,
    "CR": 12,
    "SATURATED": 18,
    "NOTCHECKED": 19,
    "BINNED1": 28,
    "BAD_COUNTS_ERROR": 40,
    "INTERP_CENTER": 44,
    "PSF_FLUX_INTERP": 47,
}
_REJECT = (
    "PEAKCENTER", "NOPROFILE", "SATURATED", "NOTCHECKED", "BAD_COUNTS_ERROR", "PSF_FLUX_INTERP",
)  # fmt: skip
_PREFIXES = ("", "ELPETRO_", "SERSIC_")


def looks_like_nsa(columns: Sequence[str]) -> bool:
    """Return whether a table has the photometry of one of the two layouts."""
    names = {c.upper() for c in columns}
    return any({f"{p}NMGY", f"{p}NMGY_IVAR"} <= names for p in _PREFIXES)


def photometry_of_nsa(
    table: Table,
    source: str,
    bands: BandSet | None = None,
    *,
    photometry: Literal["elpetro", "sersic"] | None = None,
    flags_table: str | Path | None = None,
) -> Photometry:
    """Return the photometry of an NSA table; default: Petrosian, if it has both.

    Raises
    ------
    ObservationError
        If a needed column is missing, or fluxes are not seven per row.
    """
    table = Table(table, names=[c.upper() for c in table.colnames], copy=False)
    names = table.colnames
    has = [p for p in _PREFIXES if f"{p}NMGY" in names and f"{p}NMGY_IVAR" in names]
    if photometry == "sersic" and "" in has:
        msg = f"{source}: simulator.photometry = sersic, but NSA v0_1_2 has NMGY only"
        raise ObservationError(msg)
    prefix = f"{photometry.upper()}_" if photometry and "" not in has else has[0]
    needed = [f"{prefix}NMGY", f"{prefix}NMGY_IVAR", "NSAID", "Z"]
    missing = [c for c in needed if c not in names]
    if missing:
        msg = (
            f"{source}: an NSA file needs {', '.join(needed)}; {', '.join(missing)} missing (it "
            f"has {', '.join(names[:20])})"
        )
        raise ObservationError(msg)
    flux, ivar = (_filled(table[c]) for c in needed[:2])
    if flux.ndim != 2 or flux.shape[1] != N_BANDS or ivar.shape != flux.shape:
        msg = (
            f"{source}: {needed[0]} has shape {flux.shape} and {needed[1]} {ivar.shape}, expected "
            f"seven bands {' '.join(BANDS)} per row"
        )
        raise ObservationError(msg)
    with np.errstate(divide="ignore", invalid="ignore"):
        good = np.isfinite(ivar) & (ivar > 0) & np.isfinite(flux)
        sigma = np.where(good, 1 / np.sqrt(np.where(good, ivar, 1.0)), np.nan)
    odd = np.isfinite(ivar) & (ivar < 0)
    notes = [f"{counted(int(odd.sum()), 'negative inverse variance')} masked"] if odd.any() else []
    absent = ~good
    per = ", ".join(f"{b} {c}" for b, c in zip(BANDS, absent.sum(0), strict=True) if c)
    if per:
        notes.append(f"bands without data masked: {per}")
    flux, sigma, more = usable(np.where(good, flux, np.nan), sigma)
    z = _filled(table["Z"])
    z_dist = _filled(table["ZDIST"]) if "ZDIST" in names else z
    quality, cut_notes = quality_cuts(table, source, flux, prefix, flags_table)
    if bands is not None and bands.names != BANDS:
        flux, sigma = (_chosen(v, bands.names) for v in (flux, sigma))
        other = [b.curve.name for b in bands.bands
                 if b.name in BANDS and not b.curve.name.startswith(("sdss", "galex"))]  # fmt: skip
        if other:
            notes.append(f"filters of SDSS differ from the curves of this run: {', '.join(other)}")
    kept: dict[str, NDArray[Any]] = {}
    for name, column in (("ra", "RA"), ("dec", "DEC")):
        if column in names:
            kept[name] = _filled(table[column])
    if f"{prefix}MASS" in names:
        kept["nsa_mass"] = _filled(table[f"{prefix}MASS"]) / H**2
    reader = ColumnReader(table, source)
    notes += [
        f"{needed[0]}: corrected for Galactic extinction and to AB by the atlas",
        *more,
        *cut_notes,
        *reader.notes,
    ]
    ids = reader.ids(["nsaid"])[0]
    return Photometry(ids, flux, sigma, z, z_dist, kept, tuple(notes), source, quality)


def quality_cuts(
    table: Table, source: str, flux: F64, prefix: str, flags_table: str | Path | None = None
) -> tuple[Bool, list[str]]:
    """Return which rows pass, and a note with the number of rows that each cut rejects.

    Raises
    ------
    ObservationError
        If the table of flags lacks a column.
    """
    if flags_table is not None:
        cuts = _flag_cuts(table, flags_table)
    else:
        ok = f"{prefix}OK"
        cuts = {}
        if ok in table.colnames:
            cuts[f"{ok} = 1"] = np.asarray(table[ok]).astype(int) == 1
        with np.errstate(invalid="ignore"):
            for b in "gri":
                cuts[f"{b} flux > 0"] = flux[:, BANDS.index(b)] > 0
    passed = np.logical_and.reduce(list(cuts.values()))
    counts = ", ".join(f"{name} rejects {int((~v).sum())}" for name, v in cuts.items())
    return passed, [f"quality cuts: {int(passed.sum())} of {len(table)} pass ({counts})"]


def _flag_cuts(table: Table, flags_table: str | Path) -> dict[str, Bool]:
    flags = read_table(flags_table)
    lacking = [c for c in ("NSAID", "flags") if c not in flags.colnames]
    if lacking:
        msg = (
            f"'{flags_table}' lacks {', '.join(lacking)}; a table of SDSS flags has NSAID and flags"
        )
        raise ObservationError(msg)
    known = dict(
        zip(
            np.asarray(flags["NSAID"]).astype(int).tolist(),
            np.asarray(flags["flags"]).astype(np.int64).tolist(),
            strict=True,
        )
    )
    own = np.asarray(table["NSAID"]).astype(int).tolist()
    bits = np.array([known.get(i, 0) for i in own], np.int64)
    cuts = {"flags known": np.array([i in known for i in own])}
    for name in _REJECT:
        cuts[f"no {name}"] = ~_set(bits, name)
    cuts["no INTERP_CENTER with CR"] = ~(_set(bits, "INTERP_CENTER") & _set(bits, "CR"))
    cuts["BINNED1"] = _set(bits, "BINNED1")
    return cuts


def _chosen(values: F64, names: Sequence[str]) -> F64:
    """Return the columns of other bands, NaN where the atlas has none."""
    out = np.full((len(values), len(names)), np.nan)
    for k, name in enumerate(names):
        if name in BANDS:
            out[:, k] = values[:, BANDS.index(name)]
    return out


def _set(bits: NDArray[np.int64], name: str) -> Bool:
    return np.asarray((bits >> SDSS_BITS[name]) & 1, bool)


def _filled(column: Any) -> F64:
    return np.asarray(np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan), np.float64)
