"""Spectra in images of FITS files: one spectrum, a galaxy per row, or a galaxy per spaxel.

Wavelengths are an image WAVE or follow from the header (:mod:`.headers`). Errors are an image IVAR,
ERR, STAT, ... beside the flux, or a row of it: spSpec of SDSS, early LAMOST, bands of IRAF, rows
that the header names (ROW1, ARRAY1). Names may carry the prefix of an arm (``BRZ_FLUX``); several
arms, as those of DESI, are joined. Redshifts and identifiers of the rows may stand in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from sbi_core import ObservationError, checked_file
from sbi_sfh.constants import FWHM_PER_SIGMA
from sbi_sfh.formats.facts import facts_of_rows, facts_of_tables
from sbi_sfh.formats.headers import Axis, axis_of, multispec, multispec_unit, spectral_axis
from sbi_sfh.formats.spectrum import Spectrum, spectra_of
from sbi_sfh.formats.surveys import Survey, survey_of

__all__ = ["frame_of", "read"]

F64 = NDArray[np.float64]
_FLUX = ("FLUX", "DATA", "SCI", "SPECTRUM", "SPEC")
_WAVES = ("WAVE", "WAVELENGTH", "LAMBDA", "LAM", "LOGLAM")
_BESIDE = {
    name: name for name in (
        "IVAR", "ERR", "ERROR", "ERRORS", "NOISE", "STD", "STDDEV", "UNCERT", "UNC", "VAR",
        "VARIANCE", "STAT", "MASK", "ANDMASK", "AND_MASK", "BADPIX", "DQ", "QUALITY", "QUAL",
        "GPM", "SRES", "SPECRES", "WAVEDISP",
    )
} | {"SIGMA": "ERR", "RMS": "ERR", "DISP": "WAVEDISP"}  # fmt: skip
_SPPLATE = {1: "IVAR", 2: "ANDMASK", 3: "ORMASK", 4: "WAVEDISP", 6: "SKY"}  # HDUs without names
_ROLES = (  # words of a description of a row, the first that fits
    (("wavelength", "lambda"), "WAVE"), (("inverse variance", "ivar"), "IVAR"),
    (("variance",), "VAR"), (("sigma", "error", "noise", "stddev"), "ERR"), (("mask",), "MASK"),
    (("sky", "raw", "background", "continuum", "template", "model"), ""),
    (("spectrum", "flux"), "FLUX"),
)  # fmt: skip
_IRAF_BANDS = {0: "FLUX", 3: "ERR"}  # spectrum, unweighted spectrum, background, sigma


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of the images of a file; none where it has no image of a flux."""
    where = f"'{path.name}'"
    with fits.open(checked_file(path)) as hdus:
        versions = _versions(hdus)
        for version, part in versions.items():
            named = where + (f", version {version}" if version else "")
            yield from _read(part, named, several=len(versions) > 1)


def _versions(hdus: Any) -> dict[int, list[Any]]:
    """Return the extensions of every spectrum, where names repeat: SCI, VAR, DQ, SCI, VAR, DQ.

    They belong together by EXTVER, or by their order where all have the same.
    """
    images = [h for h in hdus[1:] if h.is_image and h.name and h.data is not None]
    fluxes = [h for h in images if h.name.upper() in _FLUX]
    if len(fluxes) < 2 or len({h.name.upper() for h in fluxes}) > 1:
        return {0: list(hdus)}
    versions: dict[int, list[Any]] = {}
    by_card = len({h.ver for h in fluxes}) == len(fluxes)
    tables = [h for h in hdus[1:] if not h.is_image]
    for hdu in images:
        place = len(versions) + (hdu.name.upper() == fluxes[0].name.upper())
        version = hdu.ver if by_card else max(place, 1)
        versions.setdefault(version, [hdus[0], *tables]).append(hdu)
    return {v: part for v, part in versions.items() if any(h in fluxes for h in part)}


def _read(hdus: Any, where: str, *, several: bool) -> Iterator[Spectrum]:
    """Yield the spectra of some extensions of a file, which has ``several`` such; primary first."""
    images = _images(hdus)
    flux, prefix = _flux(images)
    if flux is None:
        return
    header = {**dict(hdus[0].header), **dict(flux.header)}
    survey = survey_of(header, [*images, *(h.name for h in hdus)], ())
    shared = facts_of_tables(hdus, several=several)
    arms = _arms(images)
    if prefix and len(arms) > 1:
        columns = _joined(images, arms)
        columns |= facts_of_rows(hdus, len(columns["FLUX"]))
        units = {"WAVE": _unit(images, arms[0]), "FLUX": flux.header.get("BUNIT")}
        yield from spectra_of(columns, shared, where, units, survey=survey)
        return
    columns, axis, rows = _columns(flux, header, images, prefix, survey, where)
    survey = _with_medium(survey, axis)
    n = len(np.atleast_2d(columns["FLUX"]))
    columns |= facts_of_rows(hdus, n)
    if (z := images.get("Z")) is not None and z.data.size == n:
        columns["REDSHIFT"] = np.asarray(z.data).reshape(-1)
    facts = {**header, **shared}
    if (wave := _named(images, prefix, _WAVES)) is not None:
        facts |= {k: v for k, v in wave.header.items() if k not in facts and k != "BUNIT"}
    unit = header.get("BUNIT")
    if not unit and prefix + "SENSFUNC" in images:
        unit = f"counts (not multiplied by {prefix}SENSFUNC)"
    units = {"WAVE": axis.unit, "FLUX": unit} | {
        kind: images[prefix + name].header.get("BUNIT")
        for name, kind in _BESIDE.items() if prefix + name in images
    }  # fmt: skip
    yield from spectra_of(columns, facts, where, units, survey=survey, rows=rows)


def frame_of(path: Path) -> tuple[tuple[int, int], fits.Header]:
    """Return rows and columns of a cube, and the cards of its sky coordinates.

    Raises
    ------
    ObservationError
        If the file holds no cube, or several.
    """
    with fits.open(checked_file(path)) as hdus:
        if (several := len(_versions(hdus))) > 1:
            msg = f"'{path.name}' holds {several} versions of its extensions; give one cube a file"
            raise ObservationError(msg)
        images = _images(hdus)
        flux, prefix = _flux(images)
        if flux is None or flux.data.ndim != 3:
            msg = f"'{path.name}' holds no cube of spectra (three axes: x, y and wavelength)"
            raise ObservationError(msg)
        header = {**dict(hdus[0].header), **dict(flux.header)}
        along = _along(flux.data, header, _named(images, prefix, _WAVES))
        rows, columns = np.moveaxis(flux.data, along, -1).shape[:2]
        with catch_warnings():
            simplefilter("ignore")  # cards that are slightly off the standard
            sky = WCS(flux.header).celestial
            return (rows, columns), sky.to_header() if sky.naxis == 2 else fits.Header()


def _images(hdus: Any) -> dict[str, Any]:
    """Return the images of a file by name; those of early SDSS files by their place."""
    images: dict[str, Any] = {}
    unnamed = _SPPLATE if "COEFF0" in hdus[0].header else {}
    for k, hdu in enumerate(hdus):
        if hdu.is_image and hdu.data is not None and hdu.data.size > 1:
            images.setdefault(hdu.name.upper() or unnamed.get(k, f"HDU{k}"), hdu)
    return images


def _flux(images: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the image of the flux and the prefix of its name."""
    known = [(name, kind) for kind in _FLUX for name in images
             if name == kind or name.endswith("_" + kind)]  # fmt: skip
    if known:
        name, kind = min(known, key=lambda pair: (not pair[0].startswith("BRZ"), len(pair[0])))
        return images[name], name.removesuffix(kind)
    first = images.get("PRIMARY")
    if first is None or first.data.ndim > 3:
        return None, ""
    header = first.header
    spectral = {"CRVAL1", "CRVAL3", "COEFF0", "WAT2_001"} & set(header)
    celestial = first.data.ndim == 2 and str(header.get("CTYPE1", "")).startswith("RA")
    return (first, "") if (spectral or _named(images, "", _WAVES)) and not celestial else (None, "")


def _named(images: Mapping[str, Any], prefix: str, kinds: tuple[str, ...]) -> Any:
    return next((images[prefix + kind] for kind in kinds if prefix + kind in images), None)


def _unit(images: Mapping[str, Any], prefix: str) -> str | None:
    """Return the unit of the wavelengths in an image; None without."""
    header = _named(images, prefix, _WAVES).header
    words = (str(header.get(card, "")).strip() for card in ("BUNIT", "CUNIT1", "UNIT"))
    return next((w for w in words if w), None)


def _with_medium(survey: Survey, axis: Axis) -> Survey:
    """Return the conventions with what the axis states about air and vacuum."""
    usual = survey.usual or axis.usual
    return Survey(survey.name, axis.stated, usual, survey.unit, survey.pixel_bits,
                  survey.mask_true_is_good, survey.rest)  # fmt: skip


def _columns(
    flux: Any,
    header: Mapping[str, Any],
    images: Mapping[str, Any],
    prefix: str,
    survey: Survey,
    where: str,
) -> tuple[dict[str, NDArray[Any]], Axis, NDArray[np.int64] | None]:
    """Return flux, errors, ... with a galaxy per row, their wavelengths, and places in a cube."""
    data = np.asarray(flux.data)
    wave = _named(images, prefix, _WAVES)
    along = _along(data, header, wave)
    columns = _parts(data, header, images, survey, along)
    rows = None
    if not columns:
        same = {k: images[prefix + k] for k in _BESIDE if prefix + k in images}
        columns = {"FLUX": _rows(data, along)}
        for kind, hdu in same.items():
            if hdu.data.shape == data.shape:
                columns.setdefault(_BESIDE[kind], _rows(np.asarray(hdu.data), along))
            elif hdu.data.shape == (data.shape[along],):
                columns.setdefault(_BESIDE[kind], np.asarray(hdu.data))
        if data.ndim == 3:
            y, x = np.indices(np.moveaxis(data, along, -1).shape[:2])
            rows = np.stack([x.ravel(), y.ravel()], 1)
    n = columns["FLUX"].shape[-1]
    if wave is not None:
        values = np.asarray(wave.data)
        name = "LOGLAM" if wave.name.upper().endswith("LOGLAM") else "WAVE"
        columns[name] = _rows(values, along) if values.shape == data.shape else values.reshape(-1)
        return columns, Axis(columns[name], _unit(images, prefix)), rows
    if "WAVE" in columns:
        return columns, Axis(columns["WAVE"], None), rows
    if (waves := multispec(header, n, where)) is not None:
        stacked = np.stack(waves)
        columns["WAVE"] = stacked if columns["FLUX"].ndim == 2 else stacked[0]
        return columns, Axis(columns["WAVE"], multispec_unit(header)), rows
    axis = axis_of(header, n, data.ndim - along, where)
    if axis is None:
        msg = f"{where}: no image WAVE and no wavelengths in the header (CRVAL, CDELT)"
        raise ObservationError(msg)
    columns["WAVE"] = axis.wave
    return columns, axis, rows


def _along(data: NDArray[Any], header: Mapping[str, Any], wave: Any) -> int:
    """Return the array axis along which wavelengths run."""
    if wave is not None and wave.data.ndim == 1:
        order = (0, 2, 1) if data.ndim == 3 else range(data.ndim - 1, -1, -1)
        fitting = [a for a in order if data.shape[a] == wave.data.size]
        if fitting:
            return fitting[0]
    return data.ndim - spectral_axis(header, data.ndim)


def _parts(
    data: NDArray[Any],
    header: Mapping[str, Any],
    images: Mapping[str, Any],
    survey: Survey,
    along: int,
) -> dict[str, NDArray[Any]]:
    """Return flux, errors, ... that are rows or bands of one image; nothing if they are not."""
    if data.ndim == 3 and along == 2 and not _on_the_sky(header):  # IRAF: bands, apertures, pixels
        bands = _described(header, "BANDID", len(data)) or {
            kind: k for k, kind in _IRAF_BANDS.items() if k < len(data)
        }
        return {kind: data[k, 0] if data.shape[1] == 1 else data[k] for kind, k in bands.items()}
    if data.ndim != 2 or along != 1 or {"IVAR", "ERR", "STAT"} & set(images):
        return {}
    if survey.name == "LAMOST" and len(data) == 5:
        return dict(zip(("FLUX", "IVAR", "WAVE", "ANDMASK"), data[:4], strict=True))
    if survey.name == "SDSS" and 4 <= len(data) <= 6:  # spSpec: flux, -, error, mask, (model)
        return dict(zip(("FLUX", "ERR", "MASK"), data[[0, 2, 3]], strict=True))
    for card in ("ROW", "ARRAY", "BANDID"):
        if rows := _described(header, card, len(data)):
            return {kind: data[k] for kind, k in rows.items()}
    return {}


def _on_the_sky(header: Mapping[str, Any]) -> bool:
    """Return whether the header names an axis of sky coordinates: those of a cube."""
    kinds = (str(header.get(f"CTYPE{a}", "")).strip().upper() for a in (1, 2, 3))
    return any(kind.startswith(("RA-", "DEC-", "GLON", "GLAT")) for kind in kinds)


def _described(header: Mapping[str, Any], card: str, n: int) -> dict[str, int]:
    """Return the rows of an image by what the header writes about them (ROW1, ROW2, ...)."""
    rows: dict[str, int] = {}
    for k in range(n):
        text = str(header.get(f"{card}{k + 1}", "")).lower()
        kind = next((role for words, role in _ROLES if any(w in text for w in words)), "")
        if kind:
            rows.setdefault(kind, k)
    return rows if "FLUX" in rows else {}


def _rows(values: NDArray[Any], along: int) -> NDArray[Any]:
    """Return an image with wavelengths along one axis as rows (n, L); a single one as (L,)."""
    if values.ndim == 1:
        return values
    moved = np.moveaxis(values, along, -1)
    return moved.reshape(-1, moved.shape[-1])


def _arms(images: Mapping[str, Any]) -> list[str]:
    """Return the prefixes of arms with wavelengths; only the joined one if there is one."""
    known = [name.removesuffix("FLUX") for name in images if name.endswith("_FLUX")]
    arms = [p for p in known if _named(images, p, _WAVES) is not None and p + "IVAR" in images]
    return [p for p in arms if p == "BRZ_"] or arms


def _joined(images: Mapping[str, Any], arms: list[str]) -> dict[str, NDArray[Any]]:
    """Return arms on one axis; where two overlap, their mean by inverse variance."""
    wavelengths, fluxes, weights, resolutions = [], [], [], []
    for arm in arms:
        wave = np.asarray(_named(images, arm, _WAVES).data, np.float64)
        flux = np.atleast_2d(np.asarray(images[arm + "FLUX"].data, np.float64))
        ivar = np.atleast_2d(np.asarray(images[arm + "IVAR"].data, np.float64))
        if (mask := images.get(arm + "MASK")) is not None:
            ivar = np.where(np.atleast_2d(np.asarray(mask.data)) != 0, 0.0, ivar)
        wavelengths.append(wave)
        fluxes.append(np.where(ivar > 0, flux, 0.0))
        weights.append(ivar)
        resolutions.append(_resolution(images.get(arm + "RESOLUTION"), wave, flux.shape))
    wave, place = np.unique(np.round(np.concatenate(wavelengths), 3), return_inverse=True)
    flux, ivar, power = (np.concatenate(v, -1) for v in (fluxes, weights, resolutions))
    total, sums = (np.zeros((len(flux), len(wave))) for _ in range(2))
    lowest = np.full(total.shape, np.inf)
    for k, at in enumerate(place):
        total[:, at] += ivar[:, k]
        sums[:, at] += ivar[:, k] * flux[:, k]
        lowest[:, at] = np.fmin(lowest[:, at], power[:, k])
    joined = {"WAVE": wave, "FLUX": sums / np.where(total > 0, total, 1.0), "IVAR": total}
    return joined | ({"SRES": lowest} if np.isfinite(lowest).all() else {})


def _resolution(hdu: Any, wave: F64, shape: tuple[int, ...]) -> F64:
    """Return the resolving power (n, L) of DESI's resolution matrices (n, diagonals, L)."""
    if hdu is None or hdu.data.ndim != 3:
        return np.full(shape, np.nan)
    weight = np.clip(np.asarray(hdu.data, np.float64), 0.0, None)
    offset = np.arange(weight.shape[1])[None, :, None] - weight.shape[1] // 2
    norm = weight.sum(1)
    safe = np.where(norm > 0, norm, 1.0)
    mean = (offset * weight).sum(1) / safe
    sigma = np.sqrt(np.maximum((offset**2 * weight).sum(1) / safe - mean**2, 1e-4))
    fwhm = FWHM_PER_SIGMA * sigma * np.gradient(wave)
    sharp = wave / fwhm
    typical = np.nanmedian(np.where(norm > 0, sharp, np.nan))
    return np.asarray(np.where(norm > 0, sharp, typical))
