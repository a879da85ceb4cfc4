r"""Fluxes and redshifts of any table of galaxies, found by the names that surveys give columns.

Band b is one of F N u g r i z; FUV and NUV stand for F and N; upper and lower case do not matter.
The first row that a band fits is read.

========================= ============================== ================================
value                     error                          tables that use it
========================= ============================== ================================
``flux_b``                ``flux_err_b, flux_ivar_b``    ours; Legacy Surveys
``mag_b``                 ``mag_err_b``                  ours
``dered_b``               ``err_b, modelMagErr_b``       SDSS, corrected for extinction
``modelFlux_b`` ...       ``modelFluxIvar_b`` ...        SDSS; also cModel, petro, psf
``modelMag_b`` ...        ``modelMagErr_b`` ...          SDSS; also cModel, petro, psf
``elpetro_flux_b``        ``elpetro_flux_ivar_b``        NSA columns of MaNGA
``b_flux``                ``b_fluxerr``                  GALEX (uJy)
``b_cModelFlux`` ...      ``b_cModelFluxErr`` ...        LSST (nJy); also psf, kron
``b_cmodel_mag`` ...      ``b_cmodel_magerr`` ...        HSC; also psf, kron
``mag_auto_b``            ``magerr_auto_b``              DES
``flux_bt``               ``flux_err_bt``                GAMA (Jy)
``bMeanKronMag``          ``bMeanKronMagErr``            Pan-STARRS; also PSF
``b_m, b_m_ext``          ``b_msigcom, b_msig_ext``      2MASS (Vega)
``bmpro``                 ``bsigmpro``                   AllWISE (Vega)
``b_mag, bmag``           ``b_magerr, e_bmag``           GALEX, VizieR
``b``                     ``err_b, e_b``                 SDSS
========================= ============================== ================================

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
from sbi_sedflow.fluxunits import is_flux, nanomaggies_per, per_wavelength, quiet_unit, root
from sbi_sedflow.magnitudes import AB_OFFSETS, SDSS_SOFTENING, System, flux_of_magnitude
from sbi_sedflow.photometry import Photometry

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Aperture", "Choices", "photometry_of_table", "usable"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Aperture = Literal["elpetro", "sersic", "model", "cmodel", "petro", "psf", "kron", "auto"]


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


@dataclass(frozen=True, slots=True)
class _Layout:
    """How columns are named; ``{}`` stands for the band."""

    value: str
    error: tuple[str, ...]
    kind: Literal["flux", "mag"]
    ivar: tuple[str, ...] = ()
    corrected: bool | Literal["maybe"] = False  # for Galactic extinction, by definition
    sdss: bool = False
    legacy: bool = False
    unit: str = ""  # by definition of the survey
    aperture: str = ""
    vega: bool = False  # by definition of the survey


def _sdss(aperture: str) -> tuple[_Layout, _Layout]:
    a = aperture
    ivar = (f"{a}fluxivar_{{}}", f"{a}flux_ivar_{{}}")
    error = (f"{a}magerr_{{}}", f"{a}mag_{{}}_err", f"{a}mag_err_{{}}", f"{a}mag_{{}}err")
    return (
        _Layout(
            f"{a}flux_{{}}", (f"{a}fluxerr_{{}}",), "flux", ivar, sdss=True, unit="nmgy", aperture=a
        ),
        _Layout(f"{a}mag_{{}}", error, "mag", sdss=True, aperture=a),
    )


def _rubin(aperture: str) -> tuple[_Layout, ...]:
    """LSST and HSC (which has the same software), and Pan-STARRS: the band stands first."""
    a = aperture
    names = [f"{{}}_{a}", f"{{}}_free_{a}"]
    flux = [_Layout(f"{n}flux", (f"{n}fluxerr",), "flux", unit="nJy", aperture=a) for n in names]
    return (
        *flux,
        _Layout(f"{{}}_{a}_mag",
                (f"{{}}_{a}_magerr", f"{{}}_{a}_magsigma", f"{{}}_{a}_mag_err"), "mag", aperture=a),
        _Layout(f"{{}}_{a}mag", (f"{{}}_{a}magerr",), "mag", aperture=a),
        _Layout(f"{{}}mean{a}mag", (f"{{}}mean{a}magerr",), "mag", aperture=a),
        _Layout(f"{{}}{a}mag", (f"{{}}{a}magerr", f"e_{{}}{a}mag"), "mag", aperture=a),
    )  # fmt: skip


_BARE = _Layout("{}", ("err_{}", "e_{}", "{}_err", "{}err"), "mag", ("{}_ivar", "ivar_{}"))
_FLUX = _Layout(
    "flux_{}",
    ("flux_err_{}", "fluxerr_{}", "flux_{}_err", "e_flux_{}"),
    "flux",
    ("flux_ivar_{}", "ivar_flux_{}", "flux_{}_ivar"),
    corrected="maybe",
)
_MAG = _Layout(
    "mag_{}", ("mag_err_{}", "magerr_{}", "mag_{}_err", "e_mag_{}"), "mag", corrected="maybe"
)
_LAYOUTS = (
    _FLUX,
    _MAG,
    _Layout("dered_{}", ("err_{}", "modelmagerr_{}", "e_dered_{}", "dered_err_{}", "dered_{}_err"),
            "mag", corrected=True, sdss=True, aperture="model"),
    *(layout for a in ("model", "cmodel", "petro", "psf") for layout in _sdss(a)),
    *(
        _Layout(f"{a}_flux_{{}}", (), "flux", (f"{a}_flux_ivar_{{}}",), sdss=True, unit="nmgy",
                aperture=a)
        for a in ("elpetro", "sersic")
    ),
    *(layout for a in ("cmodel", "kron", "psf") for layout in _rubin(a)),
    _Layout("mag_auto_{}", ("magerr_auto_{}", "mag_auto_err_{}"), "mag", aperture="auto"),
    _Layout("flux_{}t", ("flux_err_{}t",), "flux", unit="Jy"),
    _Layout("flux_auto_{}", ("fluxerr_auto_{}", "flux_auto_err_{}"), "flux", aperture="auto"),
    _Layout("{}_m_ext", ("{}_msig_ext",), "mag", vega=True),
    _Layout("{}_m", ("{}_msigcom", "{}_cmsig"), "mag", vega=True),
    _Layout("{}gmag", ("{}gerr",), "mag", vega=True),
    _Layout("{}mpro", ("{}sigmpro",), "mag", vega=True),
    _Layout("{}_flux", ("{}_fluxerr", "{}_flux_err", "e_{}_flux"), "flux", ("{}_flux_ivar",)),
    _Layout("{}_mag", ("{}_magerr", "{}_mag_err", "e_{}_mag"), "mag"),
    _Layout("{}mag", ("e_{}mag", "{}magerr", "{}mag_err"), "mag"),
    _BARE,
)  # fmt: skip
_SURVEYS = {"legacy": "the Legacy Surveys", "sdss": "SDSS"}
_VEGA_BANDS = ("j", "h", "ks", "w1", "w2", "w3", "w4")
_OTHER_BANDS = ("fuv", "nuv", "u", "w1", "w2", "w3", "w4", "y", "j", "h", "k", "ks")
_VECTORS = {  # columns with a value per band: name of the parts, bands
    **{
        f"{a}flux{end}": (f"{a}flux{end.replace('_', '')}_{{}}", "ugriz")
        for a in ("model", "cmodel", "petro", "psf")
        for end in ("", "_ivar")
    },
    **{
        f"{prefix}{a}_flux{end}": (f"{a}_flux{end}_{{}}", "".join(BANDS))
        for a in ("elpetro", "sersic")
        for end in ("", "_ivar")
        for prefix in ("", "nsa_")
    },
    "decam_flux": ("flux_{}", "ugrizY"),
    "decam_flux_ivar": ("flux_ivar_{}", "ugrizY"),
    "decam_mw_transmission": ("mw_transmission_{}", "ugrizY"),
    "extinction": ("extinction_{}", "ugriz"),
    "nsa_extinction": ("extinction_{}", "".join(BANDS)),
}
_IDS = ("photoobjid", "bestobjid", "ls_id", "objectid", "coadd_object_id", "nsa_nsaid",
        "galex_objid", "mangaid", "cataid", "uberid", "galaxy_id", "galaxyid", "gal_id",
        "iauname", "iau_name", "designation", "galaxy_name",
        "object_name", "objname")  # fmt: skip
_REDSHIFT = ("redshift", "z_spec", "zspec", "specz", "spec_z", "zsp", "z_sp", "z_helio", "zhelio",
             "z_hel", "z_best", "nsa_z")  # fmt: skip
_PHOTOMETRIC = ("zphot", "z_phot", "photoz", "photo_z", "phot_z", "z_phot_median", "z_phot_mean",
                "z_photo", "zp", "z_best_phot", "zpdf", "z_peak", "photoz_best")  # fmt: skip
_DISTANCE = ("z_dist", "zdist", "nsa_zdist")
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
    layout: _Layout
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
    distance = reader.find(_DISTANCE)
    kept = {c: reader.numbers(name) for c, names in _SKY.items() if (name := reader.find(names))}
    z_dist = z if distance is None else reader.numbers(distance)
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
    known = {c: _VECTORS[c.lower()] for c in table.colnames if c.lower() in _VECTORS}
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


def _bands(reader: ColumnReader, bandset: BandSet, aperture: Aperture | None) -> Iterator[_Band]:
    """Yield the columns of every band that the table has, by the first layout that it fits."""
    bare = [
        b.name
        for b in bandset.bands
        if b.name not in ("F", "N", "z")
        and _named(reader, ("{}",), b)
        and _named(reader, _BARE.error, b)
    ]
    first = [x for x in _LAYOUTS if x.aperture and x.aperture == aperture]
    ordered = (*first, *(x for x in _LAYOUTS if x not in first))
    for index, band in enumerate(bandset.bands):
        lonely = None
        chosen = bool(reader.chosen.keys() & set(band.tokens))
        # one letter may mean anything, unless the user says so
        layouts: Sequence[_Layout] = ordered if len(bare) > 1 else ordered[:-1]
        tried = (_BARE,) if chosen else layouts
        for layout, token in ((x, token) for x in tried for token in band.tokens):
            value = reader.find([layout.value.format(token)])
            if value is None:
                continue
            mine = layout is _BARE and chosen
            names = [form.format(token) for form in layout.error]
            error = reader.find_error(band.tokens) if mine else reader.find(names)
            ivar = reader.find(form.format(token) for form in layout.ivar)
            if error or ivar:
                _only(reader, band, layout)
                yield _Band(band, index, layout, value, str(error or ivar), error is None)
                break
            if layout is not _BARE or chosen:
                forms = (*layout.error[:1], *(() if chosen else layout.ivar[:1]))
                wanted = [form.format(band.tokens[0]) for form in forms]
                lonely = lonely or (reader.written(value), wanted)
        else:
            if lonely:
                choice = " or ".join(f"'{name}'" for name in lonely[1])
                msg = f"{reader.source}: column '{lonely[0]}' has no errors; add {choice}"
                msg += f" (--column {lonely[1][0]}=NAME)" if chosen else ""
                raise ObservationError(f"{msg}; without the column {band.name} counts as missing")


def _named(reader: ColumnReader, forms: tuple[str, ...], band: Band) -> str | None:
    return reader.find(form.format(token) for form in forms for token in band.tokens)


def _only(reader: ColumnReader, band: Band, layout: _Layout) -> None:
    """Raise if a band has both flux_b and mag_b, with errors."""
    if layout is _FLUX and _named(reader, _MAG.error, band):
        flux, mag = (_named(reader, (x.value,), band) for x in (_FLUX, _MAG))
        if mag:
            msg = f"{reader.source}: band {band.name} has both '{flux}' and '{mag}'; keep one"
            raise ObservationError(msg)


def _of_surveys(reader: ColumnReader, bands: list[_Band]) -> list[_Band]:
    """Return the bands with what the names of all of them, together, tell about their survey."""
    fluxes = [b for b in bands if b.layout is _FLUX]
    legacy = all(b.inverse and b.band not in "FN" for b in fluxes)
    out = []
    for b in bands:
        layout = b.layout
        if layout is _FLUX and legacy:
            layout = replace(layout, legacy=True, corrected=False, unit="nmgy")
        elif layout.value == "{}_flux" and b.band in "FN":
            layout = replace(layout, unit="uJy")
        elif layout is _BARE and b.error.lower().startswith("err_") and not _is_chosen(reader, b):
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
        if b.layout is _BARE and not _is_chosen(reader, b) and not choices.says_kind:
            msg = (
                f"{reader.source}: are '{b.value}' and '{b.error}' magnitudes or fluxes? Give a "
                "unit in the file, or for all columns: --unit mag, or mJy, nmgy, ..."
            )
            raise ObservationError(msg)
        return "flux" if b.layout is _BARE and choices.flux_unit else b.layout.kind
    return "flux" if is_flux(unit) else "mag"


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
        guess = reader.find(_PHOTOMETRIC)
        msg = (
            f"{reader.source}: no column 'redshift' or 'z'; it has {_listed(reader.table)}. "
            f"A column of another name: --column redshift={guess or 'NAME'}"
        )
        if guess:
            msg += " (a photometric redshift is used as if it were exact)"
        raise ObservationError(msg)
    return column


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
        value = reader.numbers(warning)
        good &= (value == 0) | np.isnan(value)
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
    apertures = sorted({b.layout.aperture for b in bands} - {""})
    others = [
        x.aperture for x in _LAYOUTS
        if x.aperture not in ("", *apertures) and reader.find([x.value.format("r")])
    ]  # fmt: skip
    wanted = choices.photometry
    if others and wanted is None:
        listed = " or ".join(dict.fromkeys(others))
        notes.append(f"not used: the {listed} photometry (simulator.photometry={others[0]})")
    named = {"model", "cmodel", "petro", "psf", "kron", "auto"}  # elpetro was the default once
    if wanted in named and named & {*apertures} and wanted not in apertures:
        msg = f"{reader.source}: simulator.photometry = {wanted}, but the table has no such columns"
        raise ObservationError(msg)
    if "psf" in apertures:
        notes.append("PSF photometry misses light of extended galaxies")
    if any(b.layout.legacy for b in bands):
        notes.append("flux_b with flux_ivar_b: read as in the Legacy Surveys, nanomaggies")
    for survey, own in (("legacy", "decam"), ("sdss", "sdss")):
        mine = [b for b in bands if getattr(b.layout, survey) and b.band in "ugriz"]
        other = {b.of.curve.name for b in mine if not b.of.curve.name.startswith(own)}
        if other:
            notes.append(
                f"filters of {_SURVEYS[survey]} differ from the curves of this run: "
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
        c
        for t in _OTHER_BANDS
        if t not in known
        for f in forms
        if (c := reader.find([f.format(t)]))
    ]
    if beyond:
        notes.append(f"not used, other bands: {', '.join(beyond)}")
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
    if system is None:
        system = "asinh" if b.layout.sdss and b.band in SDSS_SOFTENING else "AB"
        by_band = b.layout is not _MAG and b.of.tokens[0] in _VEGA_BANDS
        if "ab" not in word and (by_band or b.layout.vega):
            system = "Vega"  # as 2MASS and WISE define J H Ks W1 W2
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
