r"""Wavelengths from the cards of a FITS header.

For a spectrum along FITS axis a, with pixels p = 1, 2, ...,

.. math:: v = \mathrm{CRVAL}_a + (p - \mathrm{CRPIX}_a)\,\Delta, \qquad
          \lambda = v,\quad 10^v,\quad e^v,\quad
          \mathrm{CRVAL}_a \exp\frac{v - \mathrm{CRVAL}_a}{\mathrm{CRVAL}_a}

for a linear axis, for ``DC-FLAG = 1`` (IRAF) and COEFF0 (SDSS), for natural logarithms, and for a
``CTYPE`` that ends in ``-LOG``. IRAF's format multispec has one dispersion per aperture in the
cards ``WAT2_nnn``: linear, logarithmic, or a function of the pixel.

References:
    | Greisen et al. 2006, A&A 446, 747
    | Valdes 1993, The IRAF/NOAO spectral world coordinate systems, ASP Conf. 52, 467
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import ObservationError
from sbi_sfh.formats.names import Medium

__all__ = ["Axis", "axis_of", "multispec", "multispec_unit", "spectral_axis"]

F64 = NDArray[np.float64]
_SPECTRAL = ("WAVE", "AWAV", "WAVELENGTH", "LAMBDA", "LINEAR", "MULTISPE", "LOG", "LAM")
_NOT_WAVES = ("FREQ", "ENER", "WAVN", "VRAD", "VOPT", "ZOPT", "VELO", "BETA")
_CARD = 68  # characters of a card of IRAF; FITS drops blanks at its end
_CUBIC = 4  # coefficients that a piece of a cubic spline uses


@dataclass(frozen=True)
class Axis:
    """Wavelengths of the pixels of an axis.

    Parameters
    ----------
    wave
        Wavelengths, (L,).
    unit
        Their unit; None if the header has none.
    stated
        Air or vacuum, where CTYPE states air.
    usual
        Air or vacuum, where CTYPE is what many write without a thought.
    """

    wave: F64
    unit: str | None
    stated: Medium | None = None
    usual: Medium | None = None


def spectral_axis(header: Mapping[str, Any], ndim: int) -> int:
    """Return the FITS axis (1, 2, ...) of the wavelengths of an image."""
    for a in range(1, ndim + 1):
        kind = str(header.get(f"CTYPE{a}", "")).strip().upper()
        if kind.startswith((*_SPECTRAL, *_NOT_WAVES)):
            return a
    return 3 if ndim == 3 and "CRVAL3" in header and "BANDID1" not in header else 1


def axis_of(header: Mapping[str, Any], n: int, axis: int, where: str) -> Axis | None:
    """Return the wavelengths of n pixels; None if the header has none.

    Raises
    ------
    ObservationError
        If the axis is not one of wavelengths.
    """
    kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    if kind.startswith(_NOT_WAVES):
        msg = f"{where}: CTYPE{axis} = {kind} is not an axis of wavelengths; convert the spectrum"
        raise ObservationError(msg)
    pixel = np.arange(1, n + 1, dtype=np.float64)
    if axis == 1 and "COEFF0" in header and "COEFF1" in header:
        wave = 10.0 ** (header["COEFF0"] + header["COEFF1"] * (pixel - 1))
        return Axis(wave, "Angstrom", usual=("SDSS (COEFF0)", True))
    start, step = header.get(f"CRVAL{axis}"), _step(header, axis)
    if start is None or not step:
        return None
    value = start + (pixel - float(header.get(f"CRPIX{axis}", 1.0))) * step
    unit = str(header.get(f"CUNIT{axis}", "")).strip() or _wat(header, axis).get("units")
    wave, unit = _linear(value, float(start), step, kind, unit, header)
    card = f"CTYPE{axis} = {kind}"
    return Axis(
        wave,
        unit,
        stated=(card, False) if kind.startswith("AWAV") else None,
        usual=(card, True) if kind in ("WAVE", "WAVE-LOG") else None,
    )


def _step(header: Mapping[str, Any], axis: int) -> float:
    step = header.get(f"CD{axis}_{axis}")
    if step is None:
        step = header.get(f"CDELT{axis}")
        step = None if step is None else step * header.get(f"PC{axis}_{axis}", 1.0)
    return float(step or 0.0)


def _linear(
    value: F64, start: float, step: float, kind: str, unit: str | None, header: Mapping[str, Any]
) -> tuple[F64, str | None]:
    """Return wavelengths of the values of an axis, and their unit."""
    if kind.endswith("-LOG"):
        return start * np.exp((value - start) / start), unit
    logarithmic = int(header.get("DC-FLAG", header.get("DC_FLAG", 0)) or 0) == 1
    logarithmic |= "LOG" in kind or "log" in str(unit or "").lower()
    small = abs(step) < 2e-3
    angstrom = unit is None or unit.lower().startswith("ang")
    if logarithmic or (small and angstrom and 3.2 < start < 4.4):
        natural = start > 5.5
        return (np.exp(value) if natural else 10.0**value), "Angstrom"
    if small and unit is None and 7.5 < start < 10.0:
        return np.exp(value), "Angstrom"
    return value, unit


def _joined(header: Mapping[str, Any], axis: int) -> str:
    """Return the text of the cards WATa_001, WATa_002, ..."""
    names = sorted(k for k in header if re.fullmatch(rf"WAT{axis}_\d+", k))
    return "".join(str(header[k]).ljust(_CARD) for k in names)


def _wat(header: Mapping[str, Any], axis: int) -> dict[str, str]:
    """Return the words name=value of IRAF's description of an axis."""
    return dict(re.findall(r"(\w+)\s*=\s*([^\s\"]+)", _joined(header, axis)))


def multispec(header: Mapping[str, Any], n: int, where: str) -> list[F64] | None:
    """Return the wavelengths (n,) of every aperture of IRAF's format multispec; None if it is not.

    Raises
    ------
    ObservationError
        If a dispersion is of an unknown kind.
    """
    text = _joined(header, 2)
    specs = re.findall(r"spec(\d+)\s*=\s*\"([^\"]*)\"", text)
    if "multispec" not in text or not specs:
        return None
    return [_dispersion(words.split(), n, where) for _, words in sorted(specs, key=_aperture)]


def multispec_unit(header: Mapping[str, Any]) -> str:
    """Return the unit of wavelengths of IRAF's format multispec: Angstrom unless stated."""
    return _wat(header, 1).get("units", "Angstrom")


def _aperture(spec: tuple[str, str]) -> int:
    return int(spec[0])


def _dispersion(words: list[str], n: int, where: str) -> F64:
    """Return the wavelengths of an aperture: ap beam type w1 dw n z aplow aphigh [functions]."""
    kind, first, step = int(words[2]), float(words[3]), float(words[4])
    z = float(words[6])
    pixel = np.arange(1, n + 1, dtype=np.float64)
    if kind in (0, 1):
        wave = first + (pixel - 1) * step
        wave = 10.0**wave if kind == 1 else wave
    elif kind == 2:
        wave = _functions([float(w) for w in words[9:]], pixel, where)
    else:
        msg = f"{where}: the spectrum has no dispersion (multispec type {kind})"
        raise ObservationError(msg)
    return np.asarray(wave / (1.0 + z))


def _functions(numbers: list[float], pixel: F64, where: str) -> F64:
    """Return the weighted sum of the dispersion functions of an aperture."""
    total, at = np.zeros(len(pixel)), 0
    while at + 3 <= len(numbers):
        weight, shift, kind = numbers[at], numbers[at + 1], int(numbers[at + 2])
        rest = numbers[at + 3 :]
        if kind in (1, 2, 3, 4):
            order, low, high = int(rest[0]), rest[1], rest[2]
            count = order if kind <= 2 else order + _CUBIC - 1 if kind == 3 else order + 1
            values = _curve(kind, order, np.array(rest[3 : 3 + count]), low, high, pixel)
            used = 3 + count
        elif kind == 5:
            count = int(rest[0])
            values = np.interp(pixel, np.arange(1, count + 1), rest[1 : 1 + count])
            used = 1 + count
        else:
            msg = f"{where}: dispersion function {kind} of IRAF's multispec is not known"
            raise ObservationError(msg)
        total += weight * (shift + values)
        at += 3 + used
    return total


def _curve(kind: int, order: int, c: F64, low: float, high: float, pixel: F64) -> F64:
    """Return a polynomial (1 Chebyshev, 2 Legendre) or spline (3 cubic, 4 linear) at pixels."""
    if kind <= 2:
        x = (pixel - 0.5 * (high + low)) / (0.5 * (high - low))
        family = np.polynomial.chebyshev.chebval if kind == 1 else np.polynomial.legendre.legval
        return np.asarray(family(x, c))
    s = np.clip((pixel - low) / (high - low) * order, 0, order)
    j = np.minimum(s.astype(int), order - 1)
    a, b = j + 1 - s, s - j
    if kind == 4:
        return np.asarray(c[j] * a + c[j + 1] * b)
    weights = (a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3)
    return np.asarray(sum(w * c[j + k] for k, w in enumerate(weights)))
