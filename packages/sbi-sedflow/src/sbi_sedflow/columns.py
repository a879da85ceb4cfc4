r"""Fluxes and redshifts of any table of galaxies, found by the names that surveys give columns.

Band b is one of F N u g r i z; FUV and NUV stand for F and N; upper and lower case do not matter.

====================== ============================ ====================================
value                  error                        tables that use it
====================== ============================ ====================================
``flux_b``             ``flux_err_b, flux_ivar_b``  ours; Legacy Surveys (nanomaggies)
``mag_b``              ``mag_err_b``                ours
``dered_b``            ``err_b``                    SDSS CasJobs, corrected for dust
``modelMag_b`` ...     ``modelMagErr_b`` ...        SDSS CasJobs; also cModel, petro, psf
``b_flux``             ``b_fluxerr``                GALEX
``b_mag, bmag``        ``b_magerr, e_bmag``         GALEX, VizieR
``b``                  ``err_b, e_b``               SDSS CasJobs
====================== ============================ ====================================

Fluxes are converted by the unit of their column: nanomaggies, maggies, a flux density per
frequency, or one per wavelength, converted at the pivot wavelength of the band,
:math:`f_\nu = f_\lambda \lambda_p^2 / c`. The unit may stand in brackets behind the name,
``flux_r [uJy]``. Magnitudes are AB, :math:`f = 10^{0.4 (22.5 - m)}`,
:math:`\sigma = f \sigma_m / 1.0857`. Galactic extinction is corrected
with columns ``extinction_b`` [mag] or ``mw_transmission_b``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy import units
from numpy.typing import NDArray

from sbi_core import ColumnReader, ObservationError, counted
from sbi_sedflow.constants import AB_ZERO_POINT, BANDS, C_ANGSTROM, N_BANDS, PIVOTS, POGSON
from sbi_sedflow.photometry import Photometry

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["nanomaggies_per", "photometry_of_table"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How columns are named; ``{}`` stands for the band."""

    value: str
    error: tuple[str, ...]
    kind: Literal["flux", "mag"]
    ivar: tuple[str, ...] = ()
    ours: bool = False  # values are corrected for Galactic extinction by definition


_BARE = _Layout("{}", ("err_{}", "e_{}", "{}_err", "{}err"), "mag")
_LAYOUTS = (
    _Layout(
        "flux_{}",
        ("flux_err_{}", "fluxerr_{}", "flux_{}_err", "e_flux_{}"),
        "flux",
        ("flux_ivar_{}", "ivar_flux_{}", "flux_{}_ivar"),
        ours=True,
    ),
    _Layout("mag_{}", ("mag_err_{}", "magerr_{}", "mag_{}_err", "e_mag_{}"), "mag", ours=True),
    _Layout("dered_{}", ("err_{}", "modelmagerr_{}", "e_dered_{}"), "mag", ours=True),
    *(
        _Layout(f"{kind}mag_{{}}", (f"{kind}magerr_{{}}", f"{kind}mag_{{}}_err"), "mag")
        for kind in ("model", "cmodel", "petro", "psf")
    ),
    _Layout("{}_flux", ("{}_fluxerr", "{}_flux_err", "e_{}_flux"), "flux", ("{}_flux_ivar",)),
    _Layout("{}_mag", ("{}_magerr", "{}_mag_err", "e_{}_mag"), "mag"),
    _Layout("{}mag", ("e_{}mag", "{}magerr", "{}mag_err"), "mag"),
    _BARE,
)
_TOKENS = {"F": ("f", "fuv"), "N": ("n", "nuv")} | {b: (b,) for b in "ugriz"}
_REDSHIFT = ("redshift", "z_spec", "zspec", "specz", "spec_z", "zsp", "z_sp")
_DISTANCE = ("z_dist", "zdist")
_FAINTEST = 90.0  # 99, 99.99, -99, -999, -9999 mark missing magnitudes
_WORST = 9.0  # mag: 9.99 and 99 mark missing errors
_WORDS = {"nmgy": 1.0, "nanomaggy": 1.0, "nanomaggies": 1.0, "mgy": 1e9, "maggy": 1e9,
          "maggies": 1e9}  # fmt: skip
_AB = {"", "mag", "mags", "magnitude", "ab", "abmag", "ab mag", "mag(ab)", "mag (ab)"}
_IN_BRACKETS = re.compile(r"(?P<name>[^\[(]+?)\s*[\[(]\s*(?P<unit>[^\[\]]+?)\s*[\])]")
_INVERSE_SQUARE = re.compile(
    r"1\s*/\s*\(?(?P<over>[^()]+?)\)?\s*(?:\^|\*\*)?\s*2|(?P<power>.+?)\s*(?:\^|\*\*)?\s*\(?-2\)?"
)


@dataclass(frozen=True, slots=True)
class _Band:
    """The columns of one band of a table."""

    band: str
    layout: _Layout
    value: str
    error: str
    inverse: bool  # the error column holds inverse variances


def photometry_of_table(table: Table, source: str, *, flux_unit: str | None = None) -> Photometry:
    """Return fluxes and redshifts of all rows of a table.

    Parameters
    ----------
    table
        One galaxy per row.
    source
        Its name for messages.
    flux_unit
        Unit of flux columns that have none.

    Raises
    ------
    ObservationError
        If columns are missing, have no or another unit, or hold words.
    """
    reader = ColumnReader(_units_from_names(table), source)
    bands = list(_bands(reader))
    if not bands:
        msg = (
            f"{source}: no photometry: neither a file of the NASA-Sloan Atlas (NMGY and NMGY_IVAR, "
            f"or ELPETRO_NMGY and ELPETRO_NMGY_IVAR) nor a table with flux_b and flux_err_b, or "
            f"mag_b and mag_err_b, for b in {' '.join(BANDS)}; it has {_listed(table)}. Columns "
            "of other names: --column flux_r=NAME"
        )
        raise ObservationError(msg)
    n = len(table)
    flux, sigma = np.full((n, N_BANDS), np.nan), np.full((n, N_BANDS), np.nan)
    notes = _described(bands)
    unit = flux_unit or _survey_unit(reader, bands, notes)
    for b in bands:
        k = BANDS.index(b.band)
        if b.layout.kind == "flux":
            flux[:, k], sigma[:, k] = _flux(reader, b, unit, notes)
        else:
            flux[:, k], sigma[:, k] = _magnitude(reader, b)
    _count_missing(bands, flux, sigma, notes)
    _correct_extinction(reader, bands, flux, sigma, notes)
    flux, sigma, more = usable(flux, sigma)
    z = reader.numbers(_redshift(reader, bands))
    distance = reader.find(_DISTANCE)
    kept = {c: reader.numbers(name) for c in ("ra", "dec") if (name := reader.find([c]))}
    z_dist = z if distance is None else reader.numbers(distance)
    ids = reader.ids()[0]
    read = [n for n in reader.notes if "at a mark" not in n]  # counted by band above
    return Photometry(
        ids, flux, sigma, z, z_dist, kept, (*notes, *more, *read), source, bad=reader.excluded
    )


# -- finding columns --------------------------------------------------------------------


def _units_from_names(table: Table) -> Table:
    """Return the table with units in brackets, ``flux_r [uJy]``, moved to the columns."""
    named = {c: m for c in table.colnames if (m := _IN_BRACKETS.fullmatch(c))}
    if not named:
        return table
    out = table.copy(copy_data=False)
    for column, match in named.items():
        if match["name"] not in out.colnames:
            out.rename_column(column, match["name"])
            given = out[match["name"]].unit
            out[match["name"]].unit = given or units.Unit(match["unit"], parse_strict="silent")
    return out


def _bands(reader: ColumnReader) -> Iterator[_Band]:
    """Yield the columns of every band that the table has, by the first layout that it fits."""
    bare = [b for b in "ugri" if _named(reader, ("{}",), b) and _named(reader, _BARE.error, b)]
    layouts = _LAYOUTS if len(bare) > 1 else _LAYOUTS[:-1]  # one letter may mean anything
    for band in BANDS:
        lonely = None
        for layout in layouts:
            value = _named(reader, (layout.value,), band)
            if value is None:
                continue
            error = _named(reader, layout.error, band)
            ivar = _named(reader, layout.ivar, band)
            if error or ivar:
                _only(reader, band, layout, value)
                yield _Band(band, layout, value, str(error or ivar), error is None)
                break
            if layout is not _BARE:
                lonely = lonely or (value, layout.error[0].format(band))
        else:
            if lonely:
                msg = f"{reader.source}: column '{lonely[0]}' has no errors; add '{lonely[1]}'"
                raise ObservationError(msg)


def _named(reader: ColumnReader, forms: tuple[str, ...], band: str) -> str | None:
    return reader.find(form.format(token) for form in forms for token in _TOKENS[band])


def _only(reader: ColumnReader, band: str, layout: _Layout, value: str) -> None:
    """Raise if a band has both flux_b and mag_b."""
    if layout.value == "flux_{}" and (mag := _named(reader, ("mag_{}",), band)):
        msg = f"{reader.source}: band {band} has both '{value}' and '{mag}'; keep one"
        raise ObservationError(msg)


def _redshift(reader: ColumnReader, bands: list[_Band]) -> str:
    certain = reader.find(_REDSHIFT)
    if certain is not None:
        return certain
    column = reader.find(["z"])
    if column is not None and column in [b.value for b in bands]:
        msg = (
            f"{reader.source}: is column '{column}' the redshift or the magnitude of band z? Name "
            "the redshift: --column redshift=NAME"
        )
        raise ObservationError(msg)
    if column is None:
        msg = (
            f"{reader.source}: no column 'redshift' or 'z'; it has {_listed(reader.table)}. "
            "A column of another name: --column redshift=NAME"
        )
        raise ObservationError(msg)
    return column


def _listed(table: Table) -> str:
    names = table.colnames
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _described(bands: list[_Band]) -> list[str]:
    """Return notes on the columns that were chosen, and on missing bands."""
    notes = []
    chosen: dict[str, list[str]] = {}
    for b in bands:
        chosen.setdefault(b.layout.value, []).append(b.value)
    if set(chosen) - {"flux_{}", "mag_{}"}:
        notes.append(f"photometry from {', '.join(c for part in chosen.values() for c in part)}")
    absent = [b for b in BANDS if b not in [x.band for x in bands]]
    if absent:
        notes.append(f"bands not in the table, treated as missing: {' '.join(absent)}")
    return notes


# -- values -----------------------------------------------------------------------------


def _unit(reader: ColumnReader, name: str) -> str:
    given = reader.table[name].unit
    return "" if given is None else str(given).strip()


def _count_missing(bands: list[_Band], flux: F64, sigma: F64, notes: list[str]) -> None:
    """Mask values without an error, in place, and add a note with the number of missing values."""
    absent = ~np.isfinite(flux) | np.isnan(sigma)
    flux[absent] = np.nan
    counts = {b.band: int(absent[:, BANDS.index(b.band)].sum()) for b in bands}
    listed = ", ".join(f"{band} {c}" for band, c in counts.items() if c)
    if listed:
        notes.append(f"missing values (empty, N/A, -999, 99 and the like): {listed}")


def _flux(reader: ColumnReader, b: _Band, default: str, notes: list[str]) -> tuple[F64, F64]:
    """Return flux and error [nanomaggies] of a band; NaN where missing."""
    unit = _unit(reader, b.value) or default
    if not unit:
        msg = (
            f"{reader.source}: column '{b.value}' has no unit. Give nmgy (nanomaggies), mgy or a "
            f"flux density such as uJy in the file (FITS, ECSV and VOTable keep units, the name "
            f"'{b.value} [uJy]' does in CSV), or for all columns: --set simulator.flux_unit=uJy"
        )
        raise ObservationError(msg)
    factor = nanomaggies_per(unit, reader.source, b.value, PIVOTS[BANDS.index(b.band)])
    if _per_wavelength(unit):
        _once(notes, "fluxes per wavelength converted at the pivot wavelengths of the bands")
    value, error = reader.numbers(b.value), reader.numbers(b.error)
    error_unit = _unit(reader, b.error)
    if b.inverse:
        error_unit = _root(error_unit)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(error > 0, 1.0 / np.sqrt(error), np.where(error <= 0, 0.0, np.nan))
    own = nanomaggies_per(error_unit or unit, reader.source, b.error, PIVOTS[BANDS.index(b.band)])
    return value * factor, error * own


def _root(unit: str) -> str:
    """Return the unit of an error from that of its inverse variance."""
    match = _INVERSE_SQUARE.fullmatch(unit)
    return (match["over"] or match["power"]) if match else unit


def _survey_unit(reader: ColumnReader, bands: list[_Band], notes: list[str]) -> str:
    """Return the unit that the columns of a known survey have by definition, or ""."""
    fluxes = [b for b in bands if b.layout.kind == "flux"]
    if not fluxes or not all(b.inverse and b.layout.ours for b in fluxes):
        return ""
    notes.append(
        "flux_b with flux_ivar_b: read as in the Legacy Surveys, whose filters differ a little "
        "from those of SDSS; nanomaggies if the columns have no unit"
    )
    return "nmgy"


def _once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _per_wavelength(unit: str) -> bool:
    try:
        return bool(units.Unit(unit).is_equivalent("erg / (s cm2 Angstrom)"))
    except (ValueError, TypeError):
        return False


def nanomaggies_per(unit: str, source: str, column: str, pivot: float | None = None) -> float:
    """Return how many nanomaggies one of ``unit`` is.

    Parameters
    ----------
    unit
        nmgy, mgy, or a flux density per frequency; per wavelength when ``pivot`` is given.
    source, column
        Names for messages.
    pivot
        Pivot wavelength of the band [Angstrom].

    Raises
    ------
    ObservationError
        If it is not a flux unit, magnitudes among them.
    """
    word = unit if unit in _WORDS else unit.lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        if pivot is not None and _per_wavelength(unit):
            density = units.Unit(unit).to("erg / (s cm2 Angstrom)") * pivot**2 / C_ANGSTROM
            return float(density / AB_ZERO_POINT * 1e9)
        return float(units.Unit(unit).to(3631e-9 * units.Jy))
    except (units.UnitsError, ValueError, TypeError):
        hint = "; magnitudes go into columns mag_b" if "mag" in unit.lower() else ""
        msg = (
            f"{source}: column '{column}' has unit '{unit}', expected nmgy, mgy or a flux density "
            f"such as uJy{hint}"
        )
        raise ObservationError(msg) from None


def _magnitude(reader: ColumnReader, b: _Band) -> tuple[F64, F64]:
    """Return flux and error [nanomaggies] of a band given in magnitudes; NaN where missing."""
    unit = _unit(reader, b.value)
    if _is_vega(reader, b.value):
        msg = (
            f"{reader.source}: column '{b.value}' holds Vega magnitudes; convert them to AB before "
            "(m_AB = m_Vega + offset of the filter)"
        )
        raise ObservationError(msg)
    if unit.lower() not in _AB:
        hint = f"; fluxes go into 'flux_{b.band}'" if _is_flux(unit) else ""
        msg = f"{reader.source}: column '{b.value}' has unit '{unit}', expected AB mag{hint}"
        raise ObservationError(msg)
    mag, error = reader.numbers(b.value), reader.numbers(b.error)
    seen = (np.abs(mag) < _FAINTEST) & (error < _WORST) & (error > -_FAINTEST)
    flux = np.where(seen, 10.0 ** (0.4 * (22.5 - np.where(seen, mag, 22.5))), np.nan)
    return flux, flux * error / POGSON


def _is_flux(unit: str) -> bool:
    try:
        nanomaggies_per(unit, "", "", 5000.0)
    except ObservationError:
        return False
    return True


def _is_vega(reader: ColumnReader, column: str) -> bool:
    """Return True if the unit or description of a column or the metadata contain Vega."""
    facts = reader.table.meta.items()
    words = [_unit(reader, column), reader.table[column].description or ""]
    words += [str(v) for k, v in facts if re.search("sys|mag|phot", str(k).lower())]
    return any(re.search(r"\bvega(mag)?\b", str(w), re.IGNORECASE) for w in words)


def _correct_extinction(
    reader: ColumnReader, bands: list[_Band], flux: F64, sigma: F64, notes: list[str]
) -> None:
    """Divide fluxes by the transmission of the Galaxy where the table has it; in place."""
    corrected: list[str] = []
    ignored: list[_Band] = []
    without: list[_Band] = []
    for b in bands:
        share = _named(reader, ("mw_transmission_{}",), b.band)
        mag = _named(reader, ("extinction_{}", "ext_{}"), b.band)
        if share is None and (mag is None or b.layout.ours):
            (without if mag is None else ignored).append(b)
            continue
        with np.errstate(over="ignore"):
            through = (
                reader.numbers(share)
                if share
                else 10.0 ** (-0.4 * np.asarray(reader.numbers(str(mag))))
            )
        k = BANDS.index(b.band)
        through = np.where((through > 0) & (through < 1.5), through, np.nan)
        flux[:, k], sigma[:, k] = flux[:, k] / through, sigma[:, k] / through
        corrected.append(b.band)
    if corrected:
        notes.append(f"corrected for Galactic extinction: {' '.join(corrected)}")
    raw = [b.band for b in without if not b.layout.ours or b.inverse]
    if raw:
        notes.append(
            "Galactic extinction not corrected here (no column extinction_b or mw_transmission_b): "
            f"{' '.join(raw)}"
        )
    if ignored:
        names = ", ".join(b.value for b in ignored)
        notes.append(f"extinction not applied to {names}: these names mean corrected values")


def usable(flux: F64, sigma: F64) -> tuple[F64, F64, list[str]]:
    """Return fluxes and errors (n, 7) with NaN where either cannot be used, and notes."""
    seen = np.isfinite(flux)
    bad = seen & ~(np.isfinite(sigma) & (sigma > 0))
    notes = []
    if bad.any():
        per = ", ".join(f"{b} {c}" for b, c in zip(BANDS, bad.sum(0), strict=True) if c)
        notes.append(f"{counted(int(bad.sum()), 'value')} without a positive error masked ({per})")
    seen &= ~bad
    f, e = flux[seen], sigma[seen]
    if f.size and ((f > 8) & (f < 30)).mean() > 0.95 and np.median(e / f) < 0.005:
        notes.append(
            "these fluxes lie between 8 and 30 nmgy with errors below 0.5 %, as magnitudes would: "
            "if they are magnitudes, name the columns mag_b and mag_err_b"
        )
    return np.where(seen, flux, np.nan), np.where(seen, sigma, np.nan), notes
