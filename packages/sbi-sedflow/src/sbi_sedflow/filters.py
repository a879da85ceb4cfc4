r"""Filters and the projection of spectra onto them.

The AB flux of a rest-frame spectrum at redshift z, :math:`F_\lambda` per observed wavelength, is

.. math:: f = \frac{\int \lambda F_\lambda R\,\mathrm d\lambda}
          {3631\,\mathrm{Jy}\; c \int R\,\mathrm d\lambda/\lambda} \quad\text{[maggies]}.

With :math:`F_\lambda` constant over a pixel the integral is a sum over pixels of

.. math:: T_p(z) = \int_{e_p(1+z)}^{e_{p+1}(1+z)} \lambda R\,\mathrm d\lambda

which is exact for the piecewise-linear curve R; T is tabulated over z and interpolated linearly.

References:
    | Oke & Gunn 1983, ApJ 266, 713 (AB system)
    | speclite (BSD-3), astro-sedpy (MIT): filter curves
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import speclite.filters
from numpy.typing import NDArray

from sbi_core import ConfigError
from sbi_sedflow.constants import AB_ZERO_POINT, C_ANGSTROM, Z_MAX
from sbi_sedflow.ssp.rebin import cumulative_at

__all__ = ["Filter", "FilterSet", "load_filters", "projection"]

F64 = NDArray[np.float64]
FilterSet = Literal["speclite", "sedpy"]
_SPECLITE = ("galex-fuv", "galex-nuv", *(f"sdss2010-{b}" for b in "ugriz"))
_SEDPY = ("galex_FUV", "galex_NUV", *(f"sdss_{b}0" for b in "ugriz"))
_STEP = 0.001  # in redshift, between nodes of the projection


@dataclass(frozen=True)
class Filter:
    """One response curve.

    Parameters
    ----------
    name
        Its name in the package of the curves.
    wave : (W,) Angstrom
        Wavelengths.
    response : (W,)
        Photon response, any scale; linear between wavelengths.
    """

    name: str
    wave: F64
    response: F64

    @property
    def pivot(self) -> float:
        """Pivot wavelength [Angstrom]: sqrt(int R lambda / int R / lambda)."""
        wave = np.linspace(self.wave[0], self.wave[-1], 20001)
        r = np.interp(wave, self.wave, self.response)
        return float(np.sqrt(np.trapezoid(r * wave, wave) / np.trapezoid(r / wave, wave)))


@lru_cache(maxsize=2)
def load_filters(which: FilterSet = "speclite") -> tuple[Filter, ...]:
    """Return the seven curves in the order F N u g r i z.

    Raises
    ------
    ConfigError
        If the package with the curves is not installed.
    """
    curves = []
    if which == "speclite":
        for name in _SPECLITE:
            curve = speclite.filters.load_filter(name)
            wave = np.asarray(curve.wavelength, np.float64)
            curves.append(Filter(name, wave, np.asarray(curve.response, np.float64)))
        return tuple(curves)
    return tuple(sedpy_curve(name) for name in _SEDPY)


def sedpy_curve(name: str) -> Filter:
    """Return a curve of sedpy.

    Raises
    ------
    ConfigError
        If sedpy is not installed, or has no such curve.
    """
    try:
        from sedpy import observate
    except ImportError as error:
        msg = f"curves of sedpy need astro-sedpy: pip install 'sbi-sedflow[sedpy]' ({error})"
        raise ConfigError(msg) from None
    try:
        curve = observate.Filter(name)
    except (OSError, ValueError):
        msg = f"sedpy has no filter '{name}'"
        raise ConfigError(msg) from None
    wave = np.asarray(curve.wavelength, np.float64)
    return Filter(curve.name, wave, np.asarray(curve.transmission, np.float64))


def _normalisation(curve: Filter) -> float:
    """Return 3631 Jy c int R / lambda, by a rule that is exact for piecewise-linear R."""
    w, r = curve.wave, curve.response
    slope = np.diff(r) / np.diff(w)
    pieces = slope * np.diff(w) + (r[:-1] - slope * w[:-1]) * np.log(w[1:] / w[:-1])
    return float(AB_ZERO_POINT * C_ANGSTROM * pieces.sum())


def _weights(curve: Filter, edges: F64) -> F64:
    """Return int lambda R over every pixel, for edges (..., P + 1), exact for linear R."""
    w, r = curve.wave, curve.response
    fine = np.unique(np.concatenate([w, np.linspace(w[0], w[-1], 4001)]))
    # lambda R is a parabola between nodes: on the fine grid the trapezoid rule is good to 1e-7
    flat = np.clip(edges, fine[0], fine[-1]).reshape(-1)
    integral = cumulative_at(fine, fine * np.interp(fine, w, r), flat).reshape(edges.shape)
    return np.asarray(np.diff(integral, axis=-1))


def projection(filters: tuple[Filter, ...], edges: F64, z_max: float = Z_MAX) -> tuple[F64, F64]:
    """Return redshift nodes (K,) and weights (K, B, P) of pixels in maggies per unit F_lambda.

    Parameters
    ----------
    filters
        In the order of the fluxes.
    edges : (P + 1,) Angstrom
        Rest-frame pixel edges.
    z_max
        Highest redshift.

    Raises
    ------
    ConfigError
        If the pixels do not cover a filter at every redshift.
    """
    nodes = np.arange(0.0, z_max + 1.5 * _STEP, _STEP)
    table = np.empty((len(nodes), len(filters), len(edges) - 1))
    for b, curve in enumerate(filters):
        seen = curve.response > 0.001 * curve.response.max()
        low, high = curve.wave[seen][0] / (1 + nodes[-1]), curve.wave[seen][-1]
        if low < edges[0] or high > edges[-1]:
            msg = (
                f"filter '{curve.name}' is not covered by the spectra of the model, which begin at "
                f"{edges[0]:.0f} Angstrom at rest: lower simulator.z_max or leave the band out"
            )
            raise ConfigError(msg)
        shifted = edges * (1 + nodes[:, None])
        table[:, b] = _weights(curve, shifted) / _normalisation(curve)
    return nodes, table
