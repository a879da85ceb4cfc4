"""Spectra in binary tables of FITS files: a galaxy per table, or per row of vector columns.

Wavelengths may stand in another extension that all rows share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sbi_core import checked_file
from sbi_sfh.formats.facts import facts_of_rows, facts_of_tables, is_table
from sbi_sfh.formats.headers import axis_of
from sbi_sfh.formats.names import column
from sbi_sfh.formats.spectrum import Spectrum, has_spectrum, spectra_of
from sbi_sfh.formats.surveys import Survey, survey_of

__all__ = ["read"]

_NO_SPECTRA = ("SPECOBJ", "SPALL", "ZALL", "SPZLINE", "ZLINE", "SPZALL")
_UTYPES = {  # of the Virtual Observatory, for columns with other names
    "spectralaxis.value": "WAVE", "fluxaxis.value": "FLUX",
    "fluxaxis.accuracy.staterror": "ERR", "fluxaxis.accuracy.qualitystatus": "QUAL",
}  # fmt: skip


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of all tables with wavelengths and flux.

    Of SDSS files only HDU COADD is read: the single exposures follow it.
    """
    with fits.open(checked_file(path)) as hdus:
        names = {h.name.upper() for h in hdus}
        tables = [(k, h) for k, h in enumerate(hdus) if is_table(h) and _may_hold(h, names)]
        spectra = [h for _, h in tables if column(h.columns.names, "flux") is not None]
        shared = facts_of_tables(hdus, several=len(spectra) > 1)
        for k, hdu in tables:
            columns = {c.name: hdu.data[c.name] for c in hdu.columns}
            columns |= _by_utype(hdu, columns)
            flux = column(columns, "flux")
            if flux is None:
                continue
            units = {c.name: c.unit for c in hdu.columns}
            if not has_spectrum(columns):
                length = np.shape(columns[flux])[-1]
                columns |= _wavelengths(hdus, hdu, length, units, path)
            if not has_spectrum(columns):
                continue
            part = f"HDU {k} ({hdu.name})" if hdu.name else f"HDU {k}"
            header = {**dict(hdus[0].header), **dict(hdu.header)}
            survey = _with_ucd(survey_of(header, names, columns), hdu, columns)
            if np.ndim(columns[flux]) > 1:
                more = facts_of_rows(hdus, len(columns[flux]))
                columns |= {n: v for n, v in more.items() if n not in columns}
            yield from spectra_of(
                columns, {**header, **shared}, f"'{path.name}', {part}", units, survey=survey
            )


def _may_hold(hdu: Any, names: set[str]) -> bool:
    """Return whether a table may be one of spectra, among the extensions of these names."""
    name = hdu.name.upper()
    return name not in _NO_SPECTRA and ("COADD" not in names or name == "COADD")


def _by_utype(hdu: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns under the names that their utypes mean, where there is no such name."""
    if has_spectrum(columns):
        return {}
    meant: dict[str, Any] = {}
    for k, name in enumerate(columns, start=1):
        utype = str(hdu.header.get(f"TUTYP{k}", "")).lower()
        kind = next((v for u, v in _UTYPES.items() if utype.endswith(u)), None)
        if kind is not None and kind not in columns:
            meant.setdefault(kind, columns[name])
    return meant


def _wavelengths(
    hdus: Any, flux: Any, length: int, units: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Return wavelengths of another extension, or of the header; units are added."""
    for hdu in hdus:
        if hdu is flux or hdu.data is None:
            continue
        if is_table(hdu):
            values = {c.name: np.asarray(hdu.data[c.name]).reshape(-1) for c in hdu.columns}
            name = column(values, "wave") or column(values, "loglam")
            if name is not None and values[name].size == length:
                units[name] = hdu.columns[name].unit
                return {name: values[name]}
        elif hdu.is_image and hdu.data.size == length and column([hdu.name], "wave"):
            units["WAVE"] = hdu.header.get("BUNIT") or hdu.header.get("CUNIT1")
            return {"WAVE": np.asarray(hdu.data).reshape(-1)}
        elif hdu.is_image and hdu.data.size == length and column([hdu.name], "loglam"):
            return {"LOGLAM": np.asarray(hdu.data).reshape(-1)}
    axis = axis_of(flux.header, length, 1, f"'{path.name}'")
    if axis is None:
        return {}
    units["WAVE"] = axis.unit
    return {"WAVE": axis.wave}


def _with_ucd(survey: Survey, hdu: Any, columns: Mapping[str, Any]) -> Survey:
    """Return the conventions with what the UCD of the wavelengths says: in air, or in vacuum."""
    wave = column(columns, "wave")
    if survey.usual is not None or wave is None:
        return survey
    place = list(columns).index(wave) + 1
    ucd = str(hdu.header.get(f"TUCD{place}", "")).lower().replace(" ", "")
    if not ucd.startswith("em.wl"):
        return survey
    return replace(survey, usual=(f"TUCD{place} = {ucd}", "obs.atmos" not in ucd))
