"""Conventions of surveys and instruments that their files do not state.

=========  ==========  ==========================================================================
file       medium      recognised by; masks
=========  ==========  ==========================================================================
SDSS       vacuum      COADD with loglam, COEFF0, TELESCOP; and_mask: bits 16 and above mark pixels
MaNGA      vacuum      MNGTARG1; PLATEIFU with images FLUX and IVAR
DESI       vacuum      images BRZ_FLUX, or those of an arm with FIBERMAP
LAMOST     vacuum      TELESCOP, ORIGIN; columns ANDMASK and ORMASK
PypeIt     vacuum      DMODCLS; masks are True where a pixel is good
ESO        by UCD      TUCD of the wavelengths: em.wl;obs.atmos is air, em.wl vacuum
MUSE       air         INSTRUME (CTYPE3 = AWAV states it as well)
CALIFA     air         MED_VEL, CALIFAID; images ERRWEIGHT
SAMI       air         INSTRUME
GIST       by option   BIN_SPECTRA; wavelengths in the rest frame, natural logarithms
=========  ==========  ==========================================================================

References:
    | Greisen et al. 2006, A&A 446, 747: CTYPE of wavelengths, AWAV in air and WAVE in vacuum
    | Blanton et al. 2017, AJ 154, 28; data models of SDSS, DESI, LAMOST and ESO phase 3
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sbi_sfh.formats.names import Medium, plain

__all__ = ["Survey", "survey_of"]

_SPPIXMASK = ~0xFFFF & 0x7FFFFFFF  # bits 0-15 describe the fibre, the others the pixel


@dataclass(frozen=True, slots=True)
class Survey:
    """What is usual in files of a survey.

    Parameters
    ----------
    name
        Name for messages.
    stated
        What the file states about air or vacuum beside its cards, e.g. ``CTYPE3 = AWAV``.
    usual
        What the survey uses, where the file does not state it.
    unit
        Unit of the wavelengths where the file has none.
    pixel_bits
        Bits of the mask that mark bad pixels; 0: any value but zero.
    mask_true_is_good
        Masks are True for good pixels.
    rest
        Wavelengths are in the rest frame.
    """

    name: str = ""
    stated: Medium | None = None
    usual: Medium | None = None
    unit: str | None = None
    pixel_bits: int = 0
    mask_true_is_good: bool = False
    rest: bool = False

    def without_names(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return facts without cards that name a plate or a field, not the galaxy."""
        if self.name not in ("SDSS", "LAMOST"):
            return facts
        return {k: v for k, v in facts.items() if plain(k) not in ("name", "object", "objid")}


def _vacuum(name: str, **more: Any) -> Survey:
    return Survey(name, usual=(name, True), unit="Angstrom", **more)


def _air(name: str) -> Survey:
    return Survey(name, usual=(name, False), unit="Angstrom")


def survey_of(header: Mapping[str, Any], names: Iterable[str], columns: Iterable[str]) -> Survey:
    """Return the conventions of a FITS file.

    Parameters
    ----------
    header
        Cards of the primary header and of the spectrum's.
    names
        Names of the extensions.
    columns
        Names of the columns of the spectrum's table.
    """
    hdus = {n.upper() for n in names}
    lower = {plain(c) for c in columns}

    def word(card: str) -> str:
        return str(header.get(card, "")).strip().upper()

    if "BIN_SPECTRA" in hdus:
        return Survey("GIST", unit="Angstrom", rest=True)
    if word("DMODCLS") in ("ONESPEC", "SPECOBJ") or "PYP_SPEC" in header:
        return _vacuum("PypeIt", mask_true_is_good=True)
    if "LAMOST" in word("TELESCOP") + word("ORIGIN") or {"andmask", "ormask"} <= lower:
        return _vacuum("LAMOST")
    if "MNGTARG1" in header or ("PLATEIFU" in header and {"FLUX", "IVAR"} <= hdus):
        return _vacuum("MaNGA")
    arms = {"B_FLUX", "R_FLUX", "Z_FLUX"} & hdus
    if "BRZ_FLUX" in hdus or (arms and "FIBERMAP" in hdus):
        return _vacuum("DESI")
    coadd = "loglam" in lower and ("COADD" in hdus or "and_mask" in lower)
    if "SDSS" in word("TELESCOP") or "COEFF0" in header or coadd:
        return _vacuum("SDSS", pixel_bits=_SPPIXMASK)
    if "SAMI" in word("INSTRUME"):
        return _air("SAMI")
    if "MUSE" in word("INSTRUME"):
        return _air("MUSE")
    if {"MED_VEL", "CALIFAID"} & set(header) or "ERRWEIGHT" in hdus:
        return _air("CALIFA")
    return Survey()
