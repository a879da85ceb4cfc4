"""Flux per wavelength from the units that files have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sbi_sfh.formats.spectrum import RawSpectrum, UnusableSpectrumError
from sbi_sfh.formats.units import kind_of

__all__ = ["per_wavelength"]

F64 = NDArray[np.float64]


def per_wavelength(
    raw: RawSpectrum, angstrom: F64, notes: list[str], flags: list[str]
) -> RawSpectrum:
    r"""Return a spectrum with flux per wavelength.

    .. math:: F_\lambda \propto F_\nu / \lambda^2, \qquad F_\lambda \propto N_\lambda / \lambda

    Raises
    ------
    UnusableSpectrumError
        If the spectrum is in magnitudes or logarithms.
    """
    unit = raw.flux_unit
    kind = kind_of(unit)
    if kind in ("magnitudes", "logarithms"):
        msg = f"{raw.where}: the flux is in {kind} ({unit}); convert it to flux"
        raise UnusableSpectrumError("facts_missing", msg)
    if kind == "other":
        notes.append(f"flux in '{unit}', not per wavelength or frequency: taken as it is")
        flags.append("flux_not_calibrated")
    power = {"frequency": 2, "photons": 1}.get(kind, 0)
    if power == 0:
        return raw
    what = "frequency" if power == 2 else "photon"
    notes.append(f"flux per {what} converted to flux per wavelength")
    factor = (angstrom / np.median(angstrom)) ** -power
    ivar = None if raw.ivar is None else raw.ivar / factor**2
    return replace(raw, flux=raw.flux * factor, ivar=ivar)
