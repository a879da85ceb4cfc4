r"""Flux-conserving rebinning of an SSP grid to the pixels of the forward model.

Pixels are uniform in :math:`\ln\lambda`; the value of a pixel is the mean over it of the spectrum,
which is piecewise linear between the wavelengths of the grid,

.. math:: \bar L_p = \frac{C(e_{p+1}) - C(e_p)}{e_{p+1} - e_p}, \qquad
          C(x) = \int_{\lambda_0}^{x} L\,\mathrm d\lambda ,

so that the energy between any two pixel edges is that of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import DataFileError
from sbi_sedflow.constants import WAVE_RANGE
from sbi_sedflow.ssp.grid import SSPGrid

__all__ = ["Library", "cumulative_at", "pixel_edges", "rebin"]

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


def pixel_edges(n: int, wave_range: tuple[float, float] = WAVE_RANGE) -> F64:
    """Return the edges of n pixels, (n + 1,) Angstrom, uniform in the logarithm."""
    return np.asarray(np.geomspace(*wave_range, n + 1))


def cumulative_at(x: F64, y: NDArray[Any], at: F64) -> F64:
    """Return the integral from ``x[0]`` to ``at`` of the function that is linear between nodes.

    Parameters
    ----------
    x : (W,)
        Nodes, increasing.
    y : (..., W)
        Values.
    at : (E,)
        Upper ends; the outermost pieces are extrapolated.

    Returns
    -------
    ndarray
        (..., E).
    """
    steps = 0.5 * (y[..., 1:] + y[..., :-1]) * np.diff(x)
    cumulative = np.concatenate([np.zeros((*y.shape[:-1], 1)), np.cumsum(steps, -1)], -1)
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    dx = at - x[k]
    slope = (y[..., k + 1] - y[..., k]) / (x[k + 1] - x[k])
    return np.asarray(cumulative[..., k] + y[..., k] * dx + 0.5 * slope * dx**2)


@dataclass(frozen=True)
class Library:
    """An SSP grid on the pixels of the forward model.

    Parameters
    ----------
    age_gyr : (A,) Gyr
        Ages of the grid.
    metallicity : (Z,)
        Absolute metallicities.
    edges : (P + 1,) Angstrom
        Pixel edges.
    lum : (A, Z, P) float32, Lsun / Angstrom per Msun formed
        Pixel means.
    living : (A, Z)
        Surviving mass per mass formed.
    meta
        That of the grid.
    """

    age_gyr: F64
    metallicity: F64
    edges: F64
    lum: F32
    living: F64
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wave(self) -> F64:
        """Middle of every pixel in the logarithm, (P,) Angstrom."""
        return np.asarray(np.sqrt(self.edges[1:] * self.edges[:-1]))

    @property
    def identity(self) -> dict[str, Any]:
        """Source hash and pixels."""
        keys = ("library", "sha256")
        top = {} if self.edges[-1] <= WAVE_RANGE[1] + 1e-6 else {"top": float(self.edges[-1])}
        known = {k: self.meta[k] for k in keys if k in self.meta}
        return known | {"pixels": len(self.edges) - 1, **top}


def rebin(grid: SSPGrid, pixels: int, wave_range: tuple[float, float] = WAVE_RANGE) -> Library:
    """Return the grid on ``pixels`` pixels.

    Raises
    ------
    DataFileError
        If the wavelengths of the grid do not cover the pixels.
    """
    edges = pixel_edges(pixels, wave_range)
    if grid.wave[0] > edges[0] or grid.wave[-1] < edges[-1]:
        msg = (
            f"{grid.meta.get('library', 'SSP grid')} covers {grid.wave[0]:.0f}-{grid.wave[-1]:.0f} "
            f"Angstrom, the model needs {edges[0]:.0f}-{edges[-1]:.0f}"
        )
        raise DataFileError(msg)
    first = max(int(np.searchsorted(grid.wave, edges[0])) - 2, 0)
    last = int(np.searchsorted(grid.wave, edges[-1])) + 2
    wave = grid.wave[first:last]
    lum = np.empty((*grid.living.shape, pixels), np.float32)
    for k in range(len(grid.metallicity)):
        part = np.asarray(grid.lum[:, k, first:last], np.float64)
        lum[:, k] = np.diff(cumulative_at(wave, part, edges), axis=-1) / np.diff(edges)
    return Library(grid.age_gyr, grid.metallicity, edges, lum, grid.living, grid.meta)
