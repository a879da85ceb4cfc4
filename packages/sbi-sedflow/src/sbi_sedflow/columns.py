r"""Fluxes and redshifts of any table of galaxies, found by the names that surveys give columns.

Band b is one of F N u g r i z; FUV and NUV stand for F and N; upper and lower case do not matter.
The names are those of :mod:`sbi_sedflow.layouts`. Where a band has columns of several surveys, the
user must choose.

A column that holds all bands (``MODELFLUX``, ``EXTINCTION``, ``DECAM_FLUX``) is taken apart. Fluxes
are converted by their unit: nanomaggies, maggies, a flux density per frequency, or one per
wavelength, converted at the pivot wavelength: :math:`f_\nu = f_\lambda \lambda_p^2 / c`.
The unit may stand in brackets behind the name, ``flux_r [uJy]``. A column of ``--column r=NAME``,
or ``r`` beside ``r_err``, is a flux or a magnitude by its unit. Magnitudes:
:mod:`sbi_sedflow.magnitudes`; extinction: :mod:`sbi_sedflow.extinction`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_core import ColumnReader, ObservationError, counted
from sbi_sedflow.bandsets import Band, BandSet, load_bands
from sbi_sedflow.constants import BANDS, N_BANDS
from sbi_sedflow.extinction import Choice, Measured, correct_extinction
from sbi_sedflow.fluxunits import (
    is_flux,
    is_unitless,
    nanomaggies_per,
    per_wavelength,
    quiet_unit,
    root,
)
from sbi_sedflow.layouts import (
    BARE,
    FLUX,
    LAYOUTS,
    MAG,
    OTHER_BANDS,
    SURVEYS,
    VECTORS,
    VEGA_BANDS,
    Layout,
)
from sbi_sedflow.magnitudes import AB_OFFSETS, SDSS_SOFTENING, System, flux_of_magnitude
from sbi_sedflow.photometry import Photometry

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Aperture", "Choices", "photometry_of_table", "usable"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Aperture = Literal[
    "elpetro", "sersic", "model", "cmodel", "petro", "psf", "kron", "auto", "flux", "mag"
]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user decides about a table (see :class:`~sbi_sedflow.config.SedflowConfig`)."""

    photometry: Aperture | None = None
    flux_unit: str | None = None
    magnitudes: System | None = None
    extinction: Choice | None = None
    ab_offsets: Literal["none", "sdss", "kcorrect"] = "none"

    @property
    def says_kind(self) -> bool:
        """Whether it tells magnitudes from fluxes in columns without a unit."""
        return self.magnitudes is not None or self.flux_unit is not None


_IDS = ("photoobjid", "bestobjid", "ls_id", "objectid", "coadd_object_id", "nsa_nsaid",
        "galex_objid", "mangaid", "cataid", "uberid", "galaxy_id", "galaxyid", "gal_id",
        "iauname", "iau_name", "designation", "galaxy_name",
        "object_name", "objname")  # fmt: skip
_REDSHIFT = ("redshift", "z_spec", "zspec", "specz", "spec_z", "zsp", "z_sp", "z_helio", "zhelio",
             "z_hel", "z_best", "nsa_z")  # fmt: skip
_PHOTOMETRIC = ("zphot", "z_phot", "photoz", "photo_z", "phot_z", "z_phot_median", "z_phot_mean",
                "z_photo", "zp", "z_best_phot", "zpdf", "zph", "z_peak", "photoz_best")  # fmt: skip
_DISTANCE = ("z_dist", "zdist", "nsa_zdist")
_NO_REDSHIFT = 15.0  # larger ones are velocities or distances
_SAME_REDSHIFT = 0.003  # of two columns
_SKY = {
    "ra": ("ra", "target_ra", "raj2000", "ra_icrs", "objra", "ifura"),
    "dec": ("dec", "target_dec", "dej2000", "de_icrs", "dec_icrs", "objdec", "ifudec"),
}
_SPECTRUM = (("zwarn", "zwarning", "z_warn", "z_warning"), ("spectype", "class", "specclass"))
_BOTH_MARKED = (99.0, 99.9, 99.99, 999.0, 9999.0)  # missing, where flux and error have the same
_AB = {"", "mag", "mags", "magnitude", "ab", "abmag", "abmags", "magab", "maggab", "mmag"}
_IN_BRACKETS = re.compile(r"(?P<name>[^\[(]+?)\s*[\[(]\s*(?P<unit>[^\[\]]+?)\s*[\])]")
_COLOUR = re.compile(r"[A-Z]-[A-Z]s?")


@dataclass(frozen=True, slots=True)
class _Band:
    """The columns of one band of a table."""

    of: Band
    index: int  # of the fluxes
    layout: Layout
    value: str
    error: str
    inverse: bool  # the error column holds inverse variances

    @property
    def band(self) -> str:
        return self.of.name


def photometry_of_table(
    table: Table, source: str, choices: Choices | None = None, bandset: BandSet | None = None
) -> Photometry:
    """Return fluxes and redshifts of all rows of a table.

    Parameters
    ----------
    table
        One galaxy per row.
    source
        Its name for messages.
    choices
        What the user decides where the table does not tell.
    bandset
        The bands to look for; default F N u g r i z.

    Raises
    ------
    ObservationError
        If columns are missing, have no or another unit, or hold words, or it is not known whether
        fluxes are corrected for Galactic extinction.
    """
    c, known = choices or Choices(), bandset or load_bands()
    reader = ColumnReader(_taken_apart(_units_from_names(table)), source)
    bands = _of_surveys(reader, list(_bands(reader, known, c.photometry)))
    _no_johnson(reader, bands)
    letters = [name for b in "ugriz" if (name := reader.find([b]))]
    if not bands and len(letters) > 3:
        msg = (
            f"{source}: magnitudes {', '.join(letters)} have no errors; add err_u, err_g, ... "
            "(SDSS: Err_u of PhotoObj), and the redshift as 'redshift'"
        )
        raise ObservationError(msg)
    if not bands:
        msg = (
            f"{source}: no photometry: neither a file of the NASA-Sloan Atlas (NMGY and NMGY_IVAR, "
            f"or ELPETRO_NMGY and ELPETRO_NMGY_IVAR) nor a table with flux_b and flux_err_b, or "
            f"mag_b and mag_err_b, for b in {' '.join(known.names)}; it has "
            f"{_listed(table)}. Columns of other names: --column r=NAME --column err_r=NAME "
            "--unit r=UNIT"
        )
        msg += "".join(f"; {note}" for note in reader.notes if note.startswith("the file has"))
        raise ObservationError(msg)
    n = len(table)
    flux, sigma = np.full((2, n, len(known)), np.nan)
    notes = _described(reader, bands, known, c)
    for b in bands:
        k = b.index
        if _kind(reader, b, c) == "flux":
            flux[:, k], sigma[:, k] = _flux(reader, b, c.flux_unit, notes)
        else:
            flux[:, k], sigma[:, k] = _magnitude(reader, b, c.magnitudes, notes)
    _count_missing(bands, flux, sigma, notes)
    _shift_to_ab(bands, flux, sigma, c.ab_offsets, notes)
    measured = [
        Measured(
            b.band,
            b.index,
            b.of.extinction,
            b.value,
            b.of.tokens,
            b.layout.corrected,
            b.layout.legacy,
        )
        for b in bands
    ]
    notes += correct_extinction(reader, measured, flux, sigma, c.extinction)
    flux, sigma, more = usable(flux, sigma, known.names)
    z = reader.numbers(_redshift(reader, bands))
    z_dist = _distance(reader, z, notes)
    kept = _sky(reader, notes)
    quality = _quality(reader, notes)
    ids = _identifiers(reader, notes)
    read = [n for n in reader.notes if "at a mark" not in n]  # counted by band above
    return Photometry(
        ids, flux, sigma, z, z_dist, kept, (*notes, *more, *read), source, quality, reader.excluded
    )


# -- tables -----------------------------------------------------------------------------


def _units_from_names(table: Table) -> Table:
    """Return the table with units in brackets, ``flux_r [uJy]``, moved to the columns."""
    named = {c: m for c in table.colnames if (m := _IN_BRACKETS.fullmatch(c))}
    named = {c: m for c, m in named.items() if not _COLOUR.fullmatch(m["unit"])}  # of E(B-V)
    if not named:
        return table
    out = table.copy(copy_data=False)
    for column, match in named.items():
        if match["name"] not in out.colnames:
            out.rename_column(column, match["name"])
            given = out[match["name"]].unit
            out[match["name"]].unit = given or quiet_unit(match["unit"])
    return out


def _taken_apart(table: Table) -> Table:
    """Return the table with a column per band for those that hold all bands."""
    known = {c: VECTORS[c.lower()] for c in table.colnames if c.lower() in VECTORS}
    known = {c: v for c, v in known.items() if len(table[c].shape) == 2}
    if not known:
        return table
    out = table.copy(copy_data=False)
    for column, (form, bands) in known.items():
        width = table[column].shape[1]
        bands = "".join(BANDS) if width == N_BANDS else bands
        if width == len(bands):
            for k, band in enumerate(bands):
                out[form.format(band)] = table[column][:, k]
                out[form.format(band)].unit = table[column].unit
            out.remove_column(column)
    return out


def _listed(table: Table) -> str:
    names = table.colnames
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# -- finding columns --------------------------------------------------------------------


def _bands(reader: ColumnReader, bandset: BandSet, wanted: Aperture | None) -> Iterator[_Band]:
    """Yield the columns of every band that the table has, by the first layout that it fits."""
    bare = [
        b.name
        for b in bandset.bands
        if b.name not in ("F", "N", "z")
        and _named(reader, ("{}",), b)
        and _named(reader, BARE.error, b)
    ]
    # one letter may mean anything, unless the user says so
    layouts: Sequence[Layout] = LAYOUTS if len(bare) > 1 else LAYOUTS[:-1]
    for index, band in enumerate(bandset.bands):
        chosen = bool(reader.chosen.keys() & set(band.tokens))
        fits = list(_fits(reader, band, index, (BARE,) if chosen else layouts))
        preferred = [b for b in fits if wanted and b.layout.choice == wanted]
        if fits and not preferred:
            _same_survey(reader, fits)
        if fits:
            yield (preferred or fits)[0]
        else:
            _not_lonely(reader, band, BARE if chosen else None)


def _fits(
    reader: ColumnReader, band: Band, index: int, layouts: Sequence[Layout]
) -> Iterator[_Band]:
    """Yield all columns of a band that have errors."""
    chosen = layouts == (BARE,)
    for layout, token in ((x, token) for x in layouts for token in band.tokens):
        value = reader.find([layout.value.format(token)])
        if value is None:
            continue
        names = [form.format(token) for form in layout.error]
        error = reader.find_error(band.tokens) if chosen else reader.find(names)
        ivar = reader.find(form.format(token) for form in layout.ivar)
        if error or ivar:
            yield _Band(band, index, layout, value, str(error or ivar), error is None)


def _not_lonely(reader: ColumnReader, band: Band, only: Layout | None) -> None:
    """Raise if a band has values, but no errors."""
    for layout in (only,) if only else LAYOUTS[:-1]:
        value = reader.find(layout.value.format(token) for token in band.tokens)
        if value is None:
            continue
        forms = (*layout.error[:1], *(() if only else layout.ivar[:1]))
        wanted = [form.format(band.tokens[0]) for form in forms]
        msg = f"{reader.source}: column '{reader.written(value)}' has no errors; add "
        msg += " or ".join(f"'{name}'" for name in wanted)
        msg += f" (--column {wanted[0]}=NAME)" if only else ""
        raise ObservationError(f"{msg}; without the column {band.name} counts as missing")


def _same_survey(reader: ColumnReader, fits: Sequence[_Band]) -> None:
    """Raise if the columns of a band are measurements of several surveys.

    Letters such as ``r``, beside columns with longer names, may be a radius.
    """
    fits = [b for b in fits if _family(b) != BARE.family] or fits
    families = {_family(b): b for b in reversed(fits)}
    if len(families) < 2:
        return
    columns = [f"'{reader.written(b.value)}'" for b in fits if families[_family(b)] is b]
    chosen = [b.layout.choice for b in fits if families[_family(b)] is b]
    options = [f"--set simulator.photometry={c}" for c in dict.fromkeys(chosen) if c]
    if "" in chosen or len(options) < len(chosen):
        name = fits[0].band
        options.append(f"--column {name}=NAME --column err_{name}=NAME for every band")
    msg = (
        f"{reader.source}: band {fits[0].band} has both {' and '.join(columns)}; choose one: "
        f"{', or '.join(options)}"
    )
    raise ObservationError(msg)


def _family(b: _Band) -> str:
    """Return the survey of a band: u beside err_u is SDSS."""
    sdss = b.layout is BARE and b.error.lower().startswith("err_")
    return "sdss" if sdss else b.layout.family


def _named(reader: ColumnReader, forms: tuple[str, ...], band: Band) -> str | None:
    return reader.find(form.format(token) for form in forms for token in band.tokens)


def _no_johnson(reader: ColumnReader, bands: Sequence[_Band]) -> None:
    """Raise if U, R or I are bands of Johnson and Cousins: beside B or V, or in VizieR's Umag."""
    found = []
    for b in bands:
        if b.band not in ("u", "r", "i") or _is_chosen(reader, b):
            continue
        at = b.layout.value.index("{}")
        letter = b.value[at : at + 1]
        beside = [b.value[:at] + other + b.value[at + 1 :] for other in "BV"]
        vizier = b.layout.value == "{}mag" and b.value[1:] == "mag"
        if letter in "URI" and (vizier or set(beside) & set(reader.table.colnames)):
            found.append(b)
    if found:
        first, name = found[0], found[0].band
        listed = ", ".join(b.value for b in found)
        msg = (
            f"{reader.source}: {listed}: capital letters are bands of Johnson and Cousins, not "
            f"{' '.join(b.band for b in found)}. Rename or leave out these columns; if they are "
            f"{name} all the same: --column {name}={first.value} --column err_{name}={first.error}"
        )
        raise ObservationError(msg)


def _of_surveys(reader: ColumnReader, bands: list[_Band]) -> list[_Band]:
    """Return the bands with what the names of all of them, together, tell about their survey."""
    fluxes = [b for b in bands if b.layout is FLUX]
    legacy = all(b.inverse and b.band not in "FN" for b in fluxes)
    out = []
    for b in bands:
        layout = b.layout
        if layout is FLUX and legacy:
            layout = replace(layout, legacy=True, corrected=False, unit="nmgy")
        elif layout.value == "{}_flux" and b.band in "FN":
            layout = replace(layout, unit="uJy")
        elif layout is BARE and b.error.lower().startswith("err_") and not _is_chosen(reader, b):
            layout = replace(layout, sdss=True)  # err_u ... beside u ...
        out.append(replace(b, layout=layout))
    return out


def _is_chosen(reader: ColumnReader, b: _Band) -> bool:
    return b.layout.value == "{}" and bool(reader.chosen.keys() & set(b.of.tokens))


def _kind(reader: ColumnReader, b: _Band, choices: Choices) -> str:
    """Return whether a band has fluxes or magnitudes: by its name, or by the unit."""
    unit = reader.unit_of(b.value)
    if b.layout.value != "{}" or not unit:
        if _is_chosen(reader, b) and "mag" not in reader.written(b.value).lower():
            msg = (
                f"{reader.source}: column '{reader.written(b.value)}', read as '{b.band}', has no "
                f"unit: add --unit {b.band}=nmgy, or uJy, mag, ..."
            )
            raise ObservationError(msg)
        if b.layout is BARE and not _is_chosen(reader, b) and not choices.says_kind:
            msg = (
                f"{reader.source}: are '{b.value}' and '{b.error}' magnitudes or fluxes? Give a "
                "unit in the file, or for all columns: --unit mag, or mJy, nmgy, ..."
            )
            raise ObservationError(msg)
        return "flux" if b.layout is BARE and choices.flux_unit else b.layout.kind
    return "flux" if is_flux(unit) else "mag"


def _redshift(reader: ColumnReader, bands: list[_Band]) -> str:
    """Return the column of the redshift.

    Raises
    ------
    ObservationError
        If there is none, or it may be another quantity, or several differ.
    """
    magnitude = [b.value for b in bands]
    columns = [c for name in (*_REDSHIFT, "z") if (c := reader.find([name]))]
    certain = [c for c in dict.fromkeys(columns) if c not in magnitude]
    if certain:
        _dimensionless(reader, certain[0], "redshift")
        if not reader.chosen.keys() & {"redshift"}:
            _one_redshift(reader, certain)
        return certain[0]
    if columns:
        msg = (
            f"{reader.source}: is column '{columns[0]}' the redshift or the magnitude of band z? "
            "Name the redshift: --column redshift=NAME"
        )
        raise ObservationError(msg)
    guess = reader.find(_PHOTOMETRIC)
    msg = (
        f"{reader.source}: no column 'redshift' or 'z'; it has {_listed(reader.table)}. "
        f"A column of another name: --column redshift={guess or 'NAME'}"
    )
    if guess:
        msg += " (a photometric redshift is used as if it were exact)"
    raise ObservationError(msg)


def _dimensionless(reader: ColumnReader, column: str, name: str) -> None:
    """Raise if a redshift has a unit, or values of velocities or distances."""
    unit = _written_unit(reader, column)
    value = _optional(reader, column)[0]
    value = value[np.isfinite(value)]
    large = value.size and float(np.median(value)) > _NO_REDSHIFT
    if is_unitless(unit) and not large:
        return
    what = f"values such as {np.median(value):g}" if is_unitless(unit) else f"the unit '{unit}'"
    msg = (
        f"{reader.source}: column '{reader.written(column)}' has {what} and is no redshift: "
        f"divide velocities by 299792.458 km/s, or give another column: --column {name}=NAME"
    )
    raise ObservationError(msg)


def _one_redshift(reader: ColumnReader, columns: Sequence[str]) -> None:
    """Raise if a table has several redshifts that differ in more than a tenth of its rows."""
    first, *others = (_optional(reader, c)[0] for c in columns)
    for column, other in zip(columns[1:], others, strict=True):
        with np.errstate(invalid="ignore"):
            both = (first > 0) & (first < _NO_REDSHIFT) & (other > 0) & (other < _NO_REDSHIFT)
            differ = int((np.abs(first - other)[both] > _SAME_REDSHIFT).sum())
        if differ > 0.1 * both.sum():
            names = f"'{reader.written(columns[0])}' or '{reader.written(column)}'"
            msg = (
                f"{reader.source}: is the redshift in {names}? They differ in {differ} of "
                f"{int(both.sum())} rows: --column redshift=NAME"
            )
            raise ObservationError(msg)


def _distance(reader: ColumnReader, z: F64, notes: list[str]) -> F64:
    """Return the redshift for the distance; where it is missing, the observed one."""
    column = reader.find(_DISTANCE)
    if column is None:
        return z
    _dimensionless(reader, column, "z_dist")
    value = reader.numbers(column)
    absent = np.isnan(value) & np.isfinite(z)
    if absent.any():
        notes.append(
            f"{counted(int(absent.sum()), 'row')} without '{reader.written(column)}', whose "
            "distance is that of the redshift"
        )
    return np.where(np.isnan(value), z, value)


def _optional(reader: ColumnReader, column: str) -> tuple[F64, int]:
    """Return a column as numbers, NaN where a word stands, and how many words there are.

    Words in a column that inference does not need exclude no row.
    """
    data = reader.table[column]
    if data.dtype.kind in "fiub":
        return reader.numbers(column), 0
    cells = np.ma.filled(np.ma.asarray(data).astype(str), "").reshape(-1)
    value = np.asarray([_number(c) for c in cells], np.float64)
    marks = {"", "n/a", "nan", "null", "none", "--", "-"}
    words = [c for c, v in zip(cells, value, strict=True) if np.isnan(v)]
    return value, sum(c.strip().lower() not in marks for c in words)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _sky(reader: ColumnReader, notes: list[str]) -> dict[str, F64]:
    """Return right ascension and declination [deg], if the table has them as numbers."""
    kept = {}
    for name, names in _SKY.items():
        column = reader.find(names)
        if column is None:
            continue
        value, words = _optional(reader, column)
        if words:
            notes.append(f"'{reader.written(column)}' is not in degrees and not in the results")
        else:
            kept[name] = value
    return kept


def _identifiers(reader: ColumnReader, notes: list[str]) -> list[str]:
    """Return identifiers; objects of the Legacy Surveys are numbered within bricks."""
    ids, column = reader.ids()
    if not column:
        ids, column = reader.ids(_IDS)
    if not column:
        notes.append("no column of identifiers: rows are numbered from 0 (--column id=NAME)")
    brick = reader.find(("brickid", "brickname"))
    if brick is None or column.lower() != "objid":
        return ids
    release = reader.find(("release",))
    parts = [reader.ids([c])[0] for c in (release, brick) if c]
    notes.append(f"identifiers are {'-'.join(c for c in (release, brick, column) if c)}")
    return ["-".join(words) for words in zip(*parts, ids, strict=True)]


def _quality(reader: ColumnReader, notes: list[str]) -> Bool | None:
    """Return which rows have a good redshift of a galaxy, as far as the table tells."""
    warning, kind = (reader.find(names) for names in _SPECTRUM)
    good = np.ones(len(reader.table), bool)
    if warning:
        value, odd = _optional(reader, warning)
        good &= (value == 0) | np.isnan(value)
        if odd:
            notes.append(f"words in '{warning}' are not understood: {counted(odd, 'row')}")
        _count_flagged(notes, ~good, f"'{warning}' is not 0")
    if kind and reader.table[kind].dtype.kind in "USO":
        words = np.char.strip(np.char.upper(np.asarray(reader.table[kind]).astype(str)))
        other = np.isin(words, ["STAR", "QSO"])
        good &= ~other
        _count_flagged(notes, other, f"STAR or QSO in '{kind}'")
    return good if not good.all() else None


def _count_flagged(notes: list[str], rows: Bool, why: str) -> None:
    if rows.any():
        notes.append(f"{counted(int(rows.sum()), 'row')} flagged QUALITY: {why}")


def _described(
    reader: ColumnReader, bands: list[_Band], bandset: BandSet, choices: Choices
) -> list[str]:
    """Return notes on the columns that were chosen, and on missing bands."""
    notes = []
    chosen: dict[str, list[str]] = {}
    for b in bands:
        chosen.setdefault(b.layout.value, []).append(reader.written(b.value))
    if set(chosen) - {"flux_{}", "mag_{}"}:
        notes.append(f"photometry from {', '.join(c for part in chosen.values() for c in part)}")
    absent = [b for b in bandset.names if b not in [x.band for x in bands]]
    if absent:
        notes.append(f"bands not in the table, treated as missing: {' '.join(absent)}")
    if bandset.name.endswith(".toml"):
        pivots = ", ".join(f"{b.name} {b.pivot / 10:.0f}" for b in bandset.bands)
        notes.append(f"pivot wavelengths of the bands [nm]: {pivots}")
    notes += _of_apertures(reader, bands, choices.photometry)
    if any(b.layout.legacy for b in bands):
        notes.append("flux_b with flux_ivar_b: read as in the Legacy Surveys, nanomaggies")
    for survey, own in (("legacy", "decam"), ("sdss", "sdss")):
        mine = [b for b in bands if getattr(b.layout, survey) and b.band in "ugriz"]
        other = {b.of.curve.name for b in mine if not b.of.curve.name.startswith(own)}
        if other:
            notes.append(
                f"filters of {SURVEYS[survey]} differ from the curves of this run: "
                f"{', '.join(sorted(other))} (simulator.bands)"
            )
    others_of = {
        b.of.curve.name
        for b in bands
        if b.layout.aperture
        and not b.layout.sdss
        and not (b.layout.unit == "nJy" and b.of.curve.name.startswith("lsst"))
    }
    if others_of:
        listed = ", ".join(sorted(others_of))
        notes.append(f"check that the curves of this run are those of the survey: {listed}")
    forms = ("flux_{}", "mag_{}", "{}mag", "{}_mag", "{}_flux", "{}mpro", "{}_m", "{}_m_ext")
    known = {t for b in bandset.bands for t in b.tokens}
    beyond = [
        c for t in OTHER_BANDS if t not in known for f in forms if (c := reader.find([f.format(t)]))
    ]
    if beyond:
        notes.append(f"not used, other bands: {', '.join(beyond)}")
    return notes


def _of_apertures(
    reader: ColumnReader, bands: Sequence[_Band], wanted: Aperture | None
) -> list[str]:
    """Return notes on the apertures that are read, and on those that are not.

    Raises
    ------
    ObservationError
        If the table has no columns of the aperture that the user wants, or not for all bands of
        its survey.
    """
    notes = []
    mine = {b.layout.family for b in bands if b.layout.choice == wanted}
    other = [b for b in bands if b.layout.family in mine and b.layout.choice != wanted]
    if wanted and not mine and wanted != "elpetro":  # the default once
        msg = f"{reader.source}: simulator.photometry = {wanted}, but the table has no such columns"
        raise ObservationError(msg)
    if other and wanted:
        msg = (
            f"{reader.source}: simulator.photometry = {wanted}, but band {other[0].band} has only "
            f"'{reader.written(other[0].value)}': choose one that all bands have"
        )
        raise ObservationError(msg)
    of: dict[str, list[str]] = {}
    for b in bands:
        if b.layout.aperture and not b.layout.vega:
            of.setdefault(b.layout.aperture, []).append(b.band)
    if len(of) > 1:
        listed = "; ".join(f"{aperture} {' '.join(names)}" for aperture, names in of.items())
        notes.append(f"bands of different apertures, whose colours may be wrong: {listed}")
    read = {b.value for b in bands}
    families = {b.layout.family for b in bands if b.layout.survey}
    tokens = {b.layout.family: b.of.tokens for b in bands if b.band not in "FN"}
    unread = [
        (x.aperture, column)
        for x in LAYOUTS
        if x.family in families and x.aperture not in of
        for column in [reader.find(x.value.format(t) for t in tokens.get(x.family, ()))]
        if column and column not in read
    ]
    apertures = list(dict.fromkeys(a for a, _ in unread if a))
    columns = [reader.written(c) for a, c in unread if not a]
    if apertures and wanted is None:
        listed = " or ".join(apertures)
        notes.append(f"not used: the {listed} photometry (simulator.photometry={apertures[0]})")
    if columns:
        notes.append(f"not used: {', '.join(columns)}")
    point = [b.band for b in bands if b.layout.point]
    if point:
        notes.append(f"PSF photometry misses light of extended galaxies: {' '.join(point)}")
    return notes


# -- values -----------------------------------------------------------------------------


def _count_missing(bands: list[_Band], flux: F64, sigma: F64, notes: list[str]) -> None:
    """Mask values without an error, in place, and add a note with the number of missing values."""
    absent = ~np.isfinite(flux) | np.isnan(sigma)
    flux[absent] = np.nan
    counts = {b.band: int(absent[:, b.index].sum()) for b in bands}
    listed = ", ".join(f"{band} {c}" for band, c in counts.items() if c)
    if listed:
        notes.append(
            f"missing values (empty, N/A, -999, 99, inverse variance 0 and the like): {listed}"
        )


def _flux(reader: ColumnReader, b: _Band, default: str | None, notes: list[str]) -> tuple[F64, F64]:
    """Return flux and error [nanomaggies] of a band; NaN where missing."""
    own = reader.unit_of(b.value)
    unit = own or default or b.layout.unit
    name = reader.written(b.value)
    if not unit:
        msg = (
            f"{reader.source}: column '{name}' has no unit. Give nmgy (nanomaggies), mgy or a "
            f"flux density such as uJy in the file (FITS, ECSV and VOTable keep units, the name "
            f"'{name} [uJy]' does in CSV), or for all columns: --unit uJy, or --set "
            "simulator.flux_unit=uJy"
        )
        raise ObservationError(msg)
    pivot = b.of.pivot
    factor = nanomaggies_per(unit, reader.source, name, pivot)
    if not own and not default:
        _once(notes, f"{b.layout.value.format('b')} without a unit: {unit}, as its survey defines")
    if per_wavelength(unit):
        _once(notes, "fluxes per wavelength converted at the pivot wavelengths of the bands")
    value, error = reader.numbers(b.value), reader.numbers(b.error)
    value[np.isin(value, _BOTH_MARKED) & (value == error)] = np.nan
    error_unit = _written_unit(reader, b.error)
    if b.inverse:
        error_unit = root(error_unit)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(error == 0, np.nan, np.where(error > 0, error**-0.5, error))
    of_error = nanomaggies_per(error_unit or unit, reader.source, b.error, pivot)
    return value * factor, error * of_error


def _written_unit(reader: ColumnReader, column: str) -> str:
    given = reader.table[column].unit
    return "" if given is None else str(given).strip()


def _once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _magnitude(
    reader: ColumnReader, b: _Band, system: System | None, notes: list[str]
) -> tuple[F64, F64]:
    """Return flux and error [nanomaggies] of a band given in magnitudes; NaN where missing."""
    unit = _written_unit(reader, b.value)
    if not unit and not is_flux(reader.default_unit):
        unit = reader.default_unit
    word = re.sub(r"[\s()_.]", "", unit.lower())
    if system is None and _is_vega(reader, b.value, unit):
        system = "Vega"
    elif system is None and word not in _AB:
        expected = "AB mag" + (" or a flux unit" if b.layout.value == "{}" else "")
        hint = f"; fluxes go into 'flux_{b.band}'" if is_flux(unit) else ""
        msg = (
            f"{reader.source}: column '{reader.written(b.value)}' has unit '{unit}', expected "
            f"{expected}{hint}"
        )
        raise ObservationError(msg)
    by_definition = b.layout.vega and "ab" not in word
    if system is None or by_definition or (system == "asinh" and b.band not in SDSS_SOFTENING):
        sdss = b.layout.sdss and b.band in SDSS_SOFTENING
        by_band = system != "AB" and b.layout is not MAG and b.of.tokens[0] in VEGA_BANDS
        vega = by_definition or (by_band and "ab" not in word)
        system = "Vega" if vega else "asinh" if sdss else "AB"  # 2MASS and WISE define J ... W2
    if system == "Vega":
        if b.of.vega is None:
            msg = f"{reader.source}: column '{b.value}': no Vega zero point of band {b.band} known"
            raise ObservationError(msg)
        notes.append(f"Vega magnitudes of {b.band} converted to AB by adding {b.of.vega:+g}")
    elif system == "asinh":
        _once(notes, "SDSS magnitudes are asinh magnitudes; converted with their softening b")
    of_error = _written_unit(reader, b.error) or unit
    mag, error = (
        reader.numbers(c) * (1e-3 if u == "mmag" else 1.0)
        for c, u in ((b.value, unit), (b.error, of_error))
    )
    return flux_of_magnitude(mag, error, system, b.band, b.of.vega or 0.0)


def _is_vega(reader: ColumnReader, column: str, unit: str) -> bool:
    """Return True if the unit or description of a column or the metadata contain Vega."""
    facts = reader.table.meta.items()
    words = [unit, reader.table[column].description or ""]
    words += [str(v) for k, v in facts if re.search("sys|mag|phot", str(k).lower())]
    return any(re.search(r"(?<![a-z])(mag)?vega(mag)?(?![a-z])", str(w).lower()) for w in words)


def _shift_to_ab(bands: list[_Band], flux: F64, sigma: F64, which: str, notes: list[str]) -> None:
    """Apply the chosen offsets from SDSS to AB magnitudes, in place."""
    shifts = AB_OFFSETS[which]
    shifted = [b.band for b in bands if b.band in shifts and not b.layout.legacy]
    for b in bands:
        if b.band in shifted:
            k, factor = b.index, 10.0 ** (-0.4 * shifts[b.band])
            flux[:, k], sigma[:, k] = factor * flux[:, k], factor * sigma[:, k]
    if shifted:
        listed = ", ".join(f"{band} {shifts[band]:+g}" for band in shifted)
        notes.append(f"SDSS to AB: {listed} mag")
    elif any(b.layout.sdss for b in bands):
        notes.append(
            "SDSS magnitudes used as AB; u_AB = u - 0.04 and z_AB = z + 0.02 with --set "
            "simulator.ab_offsets=sdss"
        )


def usable(flux: F64, sigma: F64, names: Sequence[str] = BANDS) -> tuple[F64, F64, list[str]]:
    """Return fluxes and errors (n, B) with NaN where either cannot be used, and notes."""
    seen = np.isfinite(flux)
    bad = seen & ~(np.isfinite(sigma) & (sigma > 0))
    notes = []
    if bad.any():
        per = ", ".join(f"{b} {c}" for b, c in zip(names, bad.sum(0), strict=True) if c)
        notes.append(f"{counted(int(bad.sum()), 'value')} without a positive error masked ({per})")
    seen &= ~bad
    f, e = flux[seen], sigma[seen]
    if f.size and ((f > 8) & (f < 30)).mean() > 0.95 and np.median(e / f) < 0.005:
        notes.append(
            "these fluxes lie between 8 and 30 nmgy with errors below 0.5 %, as magnitudes would: "
            "if they are magnitudes, name the columns mag_b and mag_err_b"
        )
    return np.where(seen, flux, np.nan), np.where(seen, sigma, np.nan), notes
