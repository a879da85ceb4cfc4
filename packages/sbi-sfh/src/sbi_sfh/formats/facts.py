"""Redshifts, identifiers and the like that FITS files keep in tables beside the spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_sfh.formats.names import column

__all__ = ["facts_of_rows", "facts_of_tables", "is_table"]

_OF_ONE = ("Z", "REDSHIFT", "VDISP", "VDISP_ERR", "ZWARNING", "CLASS")
_OF_ROWS = {
    "TARGETID": "TARGETID", "FIBERID": "ID", "ID": "ID", "Z": "REDSHIFT", "REDSHIFT": "REDSHIFT",
    "ZWARN": "ZWARN", "ZWARNING": "ZWARNING", "SPECTYPE": "CLASS", "VDISP": "VDISP",
}  # fmt: skip
_SKY = {"OBJTYPE": "SKY", "TARGUSE": "S"}  # DESI and SDSS; WEAVE


def is_table(hdu: Any) -> bool:
    """Return whether an extension is a table with rows."""
    tables = isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))
    return tables and not hdu.is_image and hdu.data is not None and len(hdu.data) > 0


def facts_of_tables(hdus: Any, *, several: bool = False) -> dict[str, Any]:
    """Return the facts of tables of one row without a spectrum: SPECOBJ and SPALL of SDSS.

    The first table that has a fact counts: SPALL stands before the fits of single redshifts. For
    several spectra only those facts count that are the same in all tables.
    """
    facts: dict[str, Any] = {}
    other: set[str] = set()
    for hdu in hdus:
        if not is_table(hdu) or len(hdu.data) != 1 or column(hdu.columns.names, "flux"):
            continue
        names = {str(n).upper(): n for n in hdu.columns.names}
        for kind in _OF_ONE:
            if kind in names:
                value = np.asarray(hdu.data[names[kind]]).reshape(-1)[0]
                if facts.setdefault(kind.lower(), value) != value and several:
                    other.add(kind.lower())
    return {{"z": "redshift"}.get(k, k): v for k, v in facts.items() if k not in other}


def facts_of_rows(hdus: Any, n: int) -> dict[str, NDArray[Any]]:
    """Return the facts of n spectra from tables: row by row, or by TARGETID."""
    facts: dict[str, NDArray[Any]] = {}
    sky = np.zeros(n, bool)
    # the targets of DESI are those of FIBERMAP; other tables may have another order
    for hdu in sorted(hdus, key=lambda h: h.name.upper() != "FIBERMAP"):
        if not is_table(hdu) or n < 2 or column(hdu.columns.names, "flux"):
            continue
        names = {str(c).upper(): c for c in hdu.columns.names}
        order = _order(facts, hdu, names, n)
        if order is None:
            continue
        for name, fact in _OF_ROWS.items():
            if name in names and fact not in facts:
                facts[fact] = np.asarray(hdu.data[names[name]])[order]
        for name, mark in _SKY.items():  # targets of any kind, but also the sky
            if name in names:
                words = np.char.strip(np.asarray(hdu.data[names[name]]).astype(str))
                sky |= words[order] == mark
    if sky.any():
        facts["CLASS"] = np.where(sky, "SKY", facts.get("CLASS", ""))
    return facts


def _order(facts: dict[str, NDArray[Any]], hdu: Any, names: dict[str, Any], n: int) -> Any:
    """Return the rows of a table that belong to the n spectra; None if they do not."""
    if "TARGETID" in facts and "TARGETID" in names:
        rows = {int(t): k for k, t in reversed(list(enumerate(hdu.data[names["TARGETID"]])))}
        found = [rows.get(int(t)) for t in facts["TARGETID"]]
        return None if None in found else np.array(found)
    return np.arange(n) if len(hdu.data) == n else None
