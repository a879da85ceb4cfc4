"""Spectra in binary tables of FITS files: a galaxy per table, or per row of vector columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sbi_core import checked_file
from sbi_sfh.formats.spectrum import Spectrum, has_spectrum, spectra_of

__all__ = ["read"]

_SDSS_FACTS = ("SPECOBJ", "SPALL")  # HDUs with the redshift and velocity dispersion of the pipeline


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of all tables with wavelengths and flux.

    Of SDSS files only HDU COADD is read: the single exposures follow it.
    """
    with fits.open(checked_file(path)) as hdus:
        names = {h.name.upper() for h in hdus}
        shared = _sdss(hdus, names)
        for k, hdu in enumerate(hdus):
            if not isinstance(hdu, fits.BinTableHDU) or hdu.data is None:
                continue
            if "COADD" in names and hdu.name.upper() != "COADD":
                continue
            columns = {c.name: hdu.data[c.name] for c in hdu.columns}
            if not has_spectrum(columns):
                continue
            part = f"HDU {k} ({hdu.name})" if hdu.name else f"HDU {k}"
            facts = {**dict(hdus[0].header), **dict(hdu.header), **shared}
            units = {c.name: c.unit for c in hdu.columns}
            yield from spectra_of(columns, facts, f"'{path.name}', {part}", units)


def _sdss(hdus: Any, names: set[str]) -> dict[str, Any]:
    """Return redshift and velocity dispersion that an SDSS file has in a table of one row."""
    facts: dict[str, Any] = {}
    for name in names.intersection(_SDSS_FACTS):
        table = hdus[name].data
        facts |= {n: np.asarray(table[n])[0] for n in ("Z", "VDISP") if n in table.names}
    return {"redshift": facts["Z"], **facts} if "Z" in facts else facts
