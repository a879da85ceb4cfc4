"""Units of fluxes, as surveys and users write them."""

from __future__ import annotations

import re
from warnings import catch_warnings, simplefilter

from astropy import units

from sbi_core import ObservationError
from sbi_sedflow.constants import AB_ZERO_POINT, C_ANGSTROM

__all__ = ["is_flux", "is_unitless", "nanomaggies_per", "per_wavelength", "quiet_unit", "root"]

_MAGGIES = {
    "nmgy": 1.0, "nmaggy": 1.0, "nmaggies": 1.0, "nanomaggy": 1.0, "nanomaggie": 1.0,
    "nanomaggies": 1.0, "nanomaggys": 1.0,
    "mgy": 1e9, "maggy": 1e9, "maggie": 1e9, "maggies": 1e9,
}  # fmt: skip
_JANSKYS = {"jy": "Jy", "mjy": "mJy", "ujy": "uJy", "njy": "nJy", "microjy": "uJy", "mujy": "uJy"}
_SCALED = re.compile(  # 1e-12 mgy: counts of zero point 30
    r"(?:(?P<number>\d+\.?\d*(?:e[+-]?\d+)?)|10\s*(?:\^|\*\*)\s*\(?(?P<power>[+-]?\d+)\)?)"
    r"\s*\*?\s*(?P<word>[a-z]+)"
)
_SPELLINGS = (
    (re.compile(r"\bergs\b"), "erg"),
    (re.compile(r"\b(Ang|ang|angstroms|Angstroms|AA|A)\b(?!\s*\()"), "Angstrom"),
    (re.compile(r"\b(sec|secs|second|seconds)\b"), "s"),
)
_INVERSE_SQUARE = re.compile(
    r"1\s*/\s*\(?(?P<over>[^()]+?)\)?\s*(?:\^|\*\*)?\s*2|(?P<power>.+?)\s*(?:\^|\*\*)?\s*\(?-2\)?"
)


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
    word = " ".join(unit.lower().split())
    if (scaled := _SCALED.fullmatch(word)) and scaled["word"] in _MAGGIES:
        scale = float(scaled["number"] or f"1e{scaled['power']}")
        return scale * _MAGGIES[scaled["word"]]
    if word in _MAGGIES:
        return _MAGGIES[word]
    try:
        given = _parsed(unit)
        if pivot is not None and given.is_equivalent("erg / (s cm2 Angstrom)"):
            density = given.to("erg / (s cm2 Angstrom)") * pivot**2 / C_ANGSTROM
            return float(density / AB_ZERO_POINT * 1e9)
        return float(given.to(3631e-9 * units.Jy))
    except (units.UnitsError, ValueError, TypeError):
        hint = "; magnitudes go into columns mag_b" if re.search("mag(?!g)", unit.lower()) else ""
        msg = (
            f"{source}: column '{column}' has unit '{unit}', expected nmgy, mgy or a flux density "
            f"such as uJy{hint}"
        )
        raise ObservationError(msg) from None


def _parsed(unit: str) -> units.UnitBase:
    """Return astropy's unit of a word.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    text = unit if unit.strip() == "MJy" else _JANSKYS.get(unit.strip().lower(), unit)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    with catch_warnings():
        simplefilter("ignore", units.UnitsWarning)  # of several slashes
        return units.Unit(text)


def quiet_unit(unit: str) -> units.UnitBase:
    """Return astropy's unit of a word, an unrecognised one where it cannot be read."""
    with catch_warnings():
        simplefilter("ignore", units.UnitsWarning)
        return units.Unit(unit, parse_strict="silent")


def is_flux(unit: str) -> bool:
    """Return whether a word is a unit of flux."""
    try:
        nanomaggies_per(unit, "", "", 5000.0)
    except ObservationError:
        return False
    return True


def per_wavelength(unit: str) -> bool:
    """Return whether a word is a unit of flux density per wavelength."""
    try:
        return bool(_parsed(unit).is_equivalent("erg / (s cm2 Angstrom)"))
    except (ValueError, TypeError):
        return False


def is_unitless(unit: str) -> bool:
    """Return whether a word is no unit of a physical quantity."""
    given = quiet_unit(unit)
    unknown = isinstance(given, units.UnrecognizedUnit)
    return unknown or bool(given.is_equivalent(units.dimensionless_unscaled))


def root(unit: str) -> str:
    """Return the unit of an error from that of its inverse variance."""
    match = _INVERSE_SQUARE.fullmatch(unit)
    return (match["over"] or match["power"]) if match else unit
