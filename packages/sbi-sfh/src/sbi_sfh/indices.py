r"""Line strengths: equivalent widths of Lick-type indices, and the 4000-Angstrom break.

.. math:: \mathrm{EW} = \int \left(1 - \frac{F}{C}\right) d\lambda, \qquad
          D_n4000 = \frac{\langle F_\nu \rangle_{4000-4100}}{\langle F_\nu \rangle_{3850-3950}}

with C the straight line through the means of the two side bands, at their middles. Band edges that
fall inside a pixel count the part inside.

References:
    | Worthey & Ottaviani 1997, ApJS 111, 377; Trager et al. 1998, ApJS 116, 1
    | Thomas, Maraston & Bender 2003, MNRAS 339, 897 ([MgFe]')
    | Balogh et al. 1999, ApJ 527, 54 (narrow definition of the break)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BANDS", "INDICES", "Index", "band_flux", "break_4000", "equivalent_width", "measure"]

F64 = NDArray[np.float64]
Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Index:
    """Bands of an index, Angstrom (air)."""

    feature: Band
    blue: Band
    red: Band


INDICES: Mapping[str, Index] = {
    "HdA": Index((4083.5, 4122.25), (4041.6, 4081.5), (4128.5, 4161.0)),
    "Ca4227": Index((4222.25, 4234.75), (4211.0, 4219.75), (4241.0, 4251.0)),
    "Fe4383": Index((4369.125, 4420.375), (4359.125, 4370.375), (4442.875, 4455.375)),
    "Hb": Index((4847.875, 4876.625), (4827.875, 4847.875), (4876.625, 4891.625)),
    "Mgb": Index((5160.125, 5192.625), (5117.7, 5142.7), (5191.375, 5206.375)),
    "Fe5270": Index((5245.65, 5285.65), (5233.15, 5248.15), (5285.65, 5318.15)),
    "Fe5335": Index((5312.125, 5352.125), (5304.625, 5317.25), (5353.375, 5363.375)),
    "NaD": Index((5876.875, 5909.375), (5860.625, 5875.675), (5922.125, 5948.125)),
}
BANDS: Mapping[str, Band] = {"Ha": (6553.0, 6573.0), "Hb flux": (4851.0, 4871.0)}
_BREAK: tuple[Band, Band] = ((3850.0, 3950.0), (4000.0, 4100.0))


def _coverage(wave: F64, band: Band) -> F64:
    """Return the part of every pixel inside a band, (L,)."""
    step = wave[1] - wave[0]
    low, high = wave - step / 2, wave + step / 2
    return np.asarray(
        np.clip(np.minimum(high, band[1]) - np.maximum(low, band[0]), 0.0, step) / step
    )


def covers(wave: F64, band: Band) -> bool:
    """Return whether a band lies inside the wavelengths."""
    return bool(wave[0] <= band[0] and band[1] <= wave[-1])


def _mean(wave: F64, flux: F64, band: Band) -> F64:
    part = _coverage(wave, band)
    return np.asarray(flux @ part / part.sum())


def equivalent_width(wave: ArrayLike, flux: ArrayLike, index: Index) -> F64:
    """Return the equivalent width [Angstrom] of spectra (..., L) on equally spaced wavelengths."""
    w, f = np.asarray(wave, float), np.asarray(flux, float)
    middle = [(b[0] + b[1]) / 2 for b in (index.blue, index.red)]
    blue, red = _mean(w, f, index.blue), _mean(w, f, index.red)
    part = _coverage(w, index.feature)
    near = part > 0
    slope = (red - blue) / (middle[1] - middle[0])
    level = blue[..., None] + slope[..., None] * (w[near] - middle[0])
    return np.asarray(((1.0 - f[..., near] / level) * part[near]).sum(-1) * (w[1] - w[0]))


def break_4000(wave: ArrayLike, flux: ArrayLike) -> F64:
    """Return the narrow 4000-Angstrom break of spectra (..., L), F_lambda in."""
    w, f = np.asarray(wave, float), np.asarray(flux, float)
    nu = f * w**2
    return np.asarray(_mean(w, nu, _BREAK[1]) / _mean(w, nu, _BREAK[0]))


def band_flux(wave: ArrayLike, flux: ArrayLike, band: Band) -> F64:
    """Return the mean flux of spectra (..., L) in a band."""
    return _mean(np.asarray(wave, float), np.asarray(flux, float), band)


def measure(wave: ArrayLike, flux: ArrayLike) -> dict[str, F64]:
    """Return every index, band and the break that the wavelengths cover, by name."""
    w, f = np.asarray(wave, float), np.asarray(flux, float)
    strengths = {
        name: equivalent_width(w, f, index)
        for name, index in INDICES.items()
        if covers(w, index.blue) and covers(w, index.red)
    }
    strengths |= {name: band_flux(w, f, band) for name, band in BANDS.items() if covers(w, band)}
    if all(covers(w, b) for b in _BREAK):
        strengths["Dn4000"] = break_4000(w, f)
    return strengths
