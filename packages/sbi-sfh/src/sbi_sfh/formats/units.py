"""Units of flux in the spellings of files."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from astropy import units as astropy_units
from numpy.typing import NDArray

__all__ = ["WAVELENGTHS", "Kind", "error_in", "km_per_s", "kind_of", "unit_by_size", "variance_in"]

F64 = NDArray[np.float64]
Kind = Literal["wavelength", "frequency", "photons", "magnitudes", "logarithms", "other", ""]
WAVELENGTHS = {"Angstrom": 1.0, "nm": 10.0, "micron": 1e4, "m": 1e10}
_FREQUENCY = re.compile(r"hz|jy|jansky|maggie|mgy")
_PHOTONS = re.compile(r"photon|\bph\b")
_COUNTS = re.compile(r"\b(adus?|counts?|cts?|dn|electrons?|e-)\b")
_LOGARITHMS = re.compile(r"\b(dex|log(10)?)\b")
_WAVELENGTH = re.compile(r"ang|\baa\b|\ba\b|a-1|a\^-1|a\*\*-1|\bnm|micron|\bum|\u00e5|\u212b")
_ENERGY = re.compile(r"erg|\bw\b|sun|joule")


def kind_of(unit: str | None) -> Kind:
    """Return what a unit of flux counts; "" where it does not say (no unit, arbitrary units).

    Files spell units in too many ways for a parser: words decide.
    """
    word = (unit or "").strip().lower()
    if _LOGARITHMS.search(word):
        return "logarithms"
    if _FREQUENCY.search(word):
        return "frequency"
    if "mag" in word:
        return "magnitudes"
    if _PHOTONS.search(word):
        return "photons"
    if _COUNTS.search(word):
        return "other"
    if _WAVELENGTH.search(word):
        return "wavelength"
    return "other" if _ENERGY.search(word) else ""


def unit_by_size(typical: float) -> str | None:
    """Return the unit in which wavelengths are those of the model: ranges do not overlap."""
    fits = (n for n, factor in WAVELENGTHS.items() if 3000 <= typical * factor < 30000)
    return next(fits, None)


def error_in(err: F64, unit: str | None, flux: F64, flux_unit: str | None) -> F64 | None:
    """Return errors (L,) in the unit of the flux; None if they are of another kind.

    Without one of the units, the errors are taken to be in that of the flux.
    """
    if unit is None or not unit.strip():
        return err
    if unit.strip().lower() in ("%", "percent", "pct"):
        return np.asarray(np.abs(flux) * err / 100.0)
    if flux_unit is None or not flux_unit.strip():
        return err
    try:
        factor = astropy_units.Unit(unit).to(astropy_units.Unit(flux_unit))
    except astropy_units.UnitConversionError:
        return None
    except (ValueError, TypeError):
        kinds = {kind_of(unit), kind_of(flux_unit)} - {""}
        return None if len(kinds) > 1 else err
    return np.asarray(err * factor)


def variance_in(values: F64, unit: str | None, flux_unit: str | None, power: int) -> F64:
    """Return variances (power 2) or inverse variances (-2), (L,), in the unit of the flux.

    Units that cannot be compared, and those copied from the flux, are taken as that of the flux.
    """
    try:
        factor = astropy_units.Unit(unit).to(astropy_units.Unit(flux_unit) ** power)
    except (ValueError, TypeError, astropy_units.UnitConversionError):
        return values
    return np.asarray(values * factor)


def km_per_s(unit: str) -> float | None:
    """Return the factor from a unit of velocity to km/s; None if it is another unit.

    Units of kilometres that no parser knows are taken to be km/s: ``km/sec``, ``kms-1``.
    """
    for spelling in (unit, unit.lower()):
        try:
            return float(astropy_units.Unit(spelling).to(astropy_units.km / astropy_units.s))
        except astropy_units.UnitConversionError:
            return None
        except (ValueError, TypeError):
            continue
    return 1.0 if unit.strip().lower().startswith("km") else None
