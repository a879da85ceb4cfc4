r"""Libraries of single stellar populations (SSPs) and how they are interpolated.

A library holds the flux of one solar mass of stars on a grid of [alpha/Fe], [M/H] and age, as a
linear combination of few vectors,

.. math:: S_{azl}(\lambda) = \sum_k c_{azlk}\,B_k(\lambda), \qquad
          F(\lambda) = \sum_{azl} \alpha_a\,\zeta_z\,w_l\,S_{azl}(\lambda)

so that spectra are one small product. Flux is linear along every axis: :math:`\alpha` and
:math:`\zeta` are the two weights of linear interpolation, w the masses of stars by age.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_core import ConfigError

__all__ = ["SspLibrary", "age_weights", "compress", "linear_weights"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class SspLibrary:
    """SSP spectra on a grid.

    Parameters
    ----------
    wave
        Air wavelength, rest frame, Angstrom, (L,), equally spaced.
    mh, age_gyr, afe
        The axes of the grid, increasing: [M/H] (Z,), age in Gyr (A,), [alpha/Fe] (P,).
    basis
        Vectors, (K, L).
    coeff
        Flux per solar mass of initial stars, L_sun/Angstrom, in terms of the vectors: (P, Z, A, K).
    fwhm
        Resolution, Angstrom.
    name
        Name of the library.
    meta
        Provenance.
    """

    wave: F64
    mh: F64
    age_gyr: F64
    afe: F64
    basis: F64
    coeff: F64
    fwhm: float
    name: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the grid and its spectra."""
        h = hashlib.sha256(json.dumps([self.fwhm]).encode())
        for part in (self.wave, self.mh, self.age_gyr, self.afe, self.basis, self.coeff):
            h.update(np.ascontiguousarray(part, "<f8").tobytes())
        return h.hexdigest()

    @property
    def synthetic(self) -> bool:
        """True for a library made up for tests."""
        return bool(self.meta.get("synthetic", False))

    def spectra(self, afe: int = 0) -> F64:
        """Return the flux of one plane of [alpha/Fe], (Z, A, L)."""
        return np.asarray(self.coeff[afe] @ self.basis)

    def crop(self, low: float, high: float) -> SspLibrary:
        """Return the library between two wavelengths [Angstrom].

        Raises
        ------
        ConfigError
            If the library does not reach that far.
        """
        step = self.wave[1] - self.wave[0]
        if low < self.wave[0] - step / 2 or high > self.wave[-1] + step / 2:
            msg = (
                f"wave_range is {low:g}-{high:g} Angstrom, library '{self.name}' covers "
                f"{self.wave[0]:g}-{self.wave[-1]:g}"
            )
            raise ConfigError(msg)
        keep = (self.wave >= low - step / 2) & (self.wave <= high + step / 2)
        return SspLibrary(
            self.wave[keep], self.mh, self.age_gyr, self.afe, self.basis[:, keep], self.coeff,
            self.fwhm, self.name, self.meta,
        )  # fmt: skip

    def coefficients(self, weights: ArrayLike, mh: ArrayLike, afe: ArrayLike | None = None) -> F64:
        """Return coefficients (n, K) of the spectra of n populations.

        Parameters
        ----------
        weights : (n, A)
            Solar masses formed, by age.
        mh : (n,)
            [M/H]; clamped to the grid.
        afe : (n,), optional
            [alpha/Fe]; clamped to the grid.

        Raises
        ------
        ConfigError
            If [alpha/Fe] is given and the library has a single plane.
        """
        w = np.asarray(weights, float)
        if afe is not None and len(self.afe) < 2:
            msg = (
                f"library '{self.name}' has a single [alpha/Fe] plane ({self.afe[0]:g}); "
                "needs >= 2 [alpha/Fe] planes"
            )
            raise ConfigError(msg)
        planes = self.coeff.transpose(2, 0, 1, 3)  # (A, P, Z, K)
        mixed = (w @ planes.reshape(len(self.age_gyr), -1)).reshape(len(w), *planes.shape[1:])
        zeta = linear_weights(mh, self.mh)
        alpha = linear_weights(np.full(len(w), self.afe[0]) if afe is None else afe, self.afe)
        return np.asarray(np.einsum("npzk,np,nz->nk", mixed, alpha, zeta, optimize=True))


def linear_weights(values: ArrayLike, grid: F64) -> F64:
    """Return weights (n, G) of linear interpolation on an increasing grid, clamped at its ends."""
    v = np.asarray(values, float)
    out = np.zeros((len(v), len(grid)))
    if len(grid) == 1:
        out[:, 0] = 1.0
        return out
    v = np.clip(v, grid[0], grid[-1])
    right = np.clip(np.searchsorted(grid, v, side="right"), 1, len(grid) - 1)
    part = (v - grid[right - 1]) / (grid[right] - grid[right - 1])
    rows = np.arange(len(v))
    out[rows, right - 1] = 1.0 - part
    out[rows, right] = part
    return out


def age_weights(
    age: ArrayLike, grid: F64, interp: Literal["linear", "log"] = "linear"
) -> tuple[F64, NDArray[np.bool_]]:
    """Return weights (m, A) of ages [Gyr] on the grid of ages, and which ages were clamped, (m,).

    ``linear`` interpolates flux in age, ``log`` in log age, which is better below 1 Gyr.
    """
    a = np.asarray(age, float)
    clamped = (a < grid[0]) | (a > grid[-1])
    inside = np.clip(a, grid[0], grid[-1])
    if interp == "log":
        return linear_weights(np.log(inside), np.log(grid)), clamped
    return linear_weights(inside, grid), clamped


def compress(cube: F64, components: int) -> tuple[F64, F64]:
    """Return a basis (K, L) and coefficients (P, Z, A, K) of a cube of spectra (P, Z, A, L).

    Spectra are divided by their medians; the basis is their mean and the leading principal
    components, K = components + 1.
    """
    shape = cube.shape[:-1]
    flux = cube.reshape(-1, cube.shape[-1])
    median = np.median(flux, axis=1)
    relative = flux / median[:, None]
    mean = relative.mean(0)
    components = min(components, len(flux) - 1, flux.shape[1])
    # eigenvectors of the small matrix: there are fewer spectra than pixels
    centred = relative - mean
    if len(flux) < flux.shape[1]:
        _, vectors = np.linalg.eigh(centred @ centred.T)
        rows = vectors[:, ::-1][:, :components].T @ centred
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    else:
        rows = np.linalg.svd(centred, full_matrices=False)[2][:components]
    rows, _ = np.linalg.qr(rows.T)  # orthonormal to rounding
    basis = np.concatenate([mean[None], rows.T])
    coeff = np.concatenate([np.ones((len(flux), 1)), centred @ rows], axis=1) * median[:, None]
    return basis, coeff.reshape(*shape, -1)
