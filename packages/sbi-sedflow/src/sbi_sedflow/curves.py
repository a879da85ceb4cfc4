"""Response curves of files with two columns, wavelength and response to photons.

Text of any usual form: with a header or without, blanks, commas or semicolons between the columns,
in any order of the wavelengths, which are converted to Angstrom.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError, read_text

__all__ = ["ANGSTROMS", "curve_of_file"]

F64 = NDArray[np.float64]
ANGSTROMS = {"Angstrom": 1.0, "nm": 10.0, "micron": 1e4}
_NAMED = {
    "Angstrom": re.compile(r"angstr|\u00c5|\u212b|\bAA\b", re.IGNORECASE),
    "nm": re.compile(r"\bnm\b|nanomet", re.IGNORECASE),
    "micron": re.compile(r"\bmicrons?\b|\bum\b|[\u00b5\u03bc]m\b|micromet", re.IGNORECASE),
}
_COMMENT = re.compile(r"^\s*([!%;]|//).*|#.*")
_DOUBTFUL = 3000.0  # Angstrom: numbers below this may be nanometres
_RANGE = 912.0, 1e6  # Angstrom


def curve_of_file(path: Path, unit: str | None = None) -> tuple[F64, F64]:
    """Return wavelengths (W,) [Angstrom], rising, and responses (W,).

    Parameters
    ----------
    path
        The file.
    unit
        Of the wavelengths: Angstrom, nm or micron. Default: by the header; Angstrom where it does
        not tell and the pivot wavelength is at least 3000.

    Raises
    ------
    ConfigError
        If it is no response curve, or its unit is in doubt.
    """
    header, rows = _rows(path)
    wave, response = np.asarray(rows, np.float64).reshape(-1, 2).T
    order = np.argsort(wave, kind="stable")
    wave, response = wave[order], response[order]
    problem = _problem(wave, response)
    if problem:
        msg = f"'{path}' is not a response curve: {problem}"
        raise ConfigError(msg)
    wave = wave * ANGSTROMS[_unit(path, header, wave, response, unit)]
    bright = wave[response > 0.01 * response.max()]
    if bright[-1] < _RANGE[0] or wave[-1] > _RANGE[1]:
        msg = (
            f"'{path}' covers {wave[0]:g} to {wave[-1]:g} Angstrom; the model has light from 912 "
            'to 1e6 Angstrom: is the unit (unit = "nm", "micron") of this band right?'
        )
        raise ConfigError(msg)
    return wave, response


def _rows(path: Path) -> tuple[str, list[list[float]]]:
    """Return the header, comments included, and the first two numbers of every row."""
    try:
        text = read_text(path)
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    except (OSError, ValueError) as error:
        msg = f"'{path}' cannot be read: {error}"
        raise ConfigError(msg) from None
    header, rows = [], []
    for number, line in enumerate(text.splitlines(), 1):
        plain = _COMMENT.sub("", line).strip()
        cells = [c for c in re.split(r"[\s,;|]+", plain) if c]
        try:
            values = [float(re.sub("[dD]", "e", c)) for c in cells[:2]]
        except ValueError:
            values = []
        if len(values) == 2:
            rows.append(values)
        elif not rows:
            header.append(line)
        elif cells:
            msg = (
                f"'{path}' is not a table of two columns, wavelength and response: line {number} "
                f"is '{line.strip()[:40]}'"
            )
            raise ConfigError(msg)
    if not rows:
        msg = (
            f"'{path}' is not a table of two columns, wavelength and response: no line has two "
            "numbers"
        )
        raise ConfigError(msg)
    return "\n".join(header), rows


def _problem(wave: F64, response: F64) -> str:
    """Return what prevents two columns from being a response curve, or ""."""
    if len(wave) < 3:
        return f"it needs three or more rows, and has {len(wave)}"
    if not (np.isfinite(wave).all() and np.isfinite(response).all()):
        return "it has NaN or infinite values"
    if response.min() < 0:
        at = response.argmin()
        return f"responses are not negative, and that of {wave[at]:g} is {response[at]:g}"
    if response.max() <= 0:
        return "its responses are zero"
    twice = wave[1:][np.diff(wave) <= 0]
    return f"the wavelength {twice[0]:g} has two rows" if twice.size else ""


def _unit(path: Path, header: str, wave: F64, response: F64, given: str | None) -> str:
    """Return the unit of wavelengths: as given, or by the header, or Angstrom if that is sure."""
    if given is not None:
        return given
    named = [unit for unit, word in _NAMED.items() if word.search(header)]
    pivot = float(np.sqrt(np.average(wave**2, weights=response)))
    sure = pivot >= _DOUBTFUL  # as wavelengths in Angstrom
    if (named == ["Angstrom"] and pivot >= _RANGE[0]) or (not named and sure):
        return "Angstrom"
    if len(named) == 1 and named != ["Angstrom"] and not sure:
        return named[0]
    says = f", and its header names {' and '.join(named)}" if named else ""
    msg = (
        f"'{path}' covers {wave[0]:g} to {wave[-1]:g}{says}: wavelengths must be in Angstrom, or "
        'the table of the band needs unit = "Angstrom", "nm" or "micron"'
    )
    raise ConfigError(msg)
