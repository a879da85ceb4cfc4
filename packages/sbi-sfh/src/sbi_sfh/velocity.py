r"""Velocity of a spectrum relative to the library: finds wrong redshifts and air taken for vacuum.

Spectrum x and templates t, divided by a running continuum and sampled in :math:`\ln\lambda`, are
compared at every shift,

.. math:: r(v) = \frac{\sum_i x_i\, t_{i - v}}{\sqrt{\sum x_i^2 \sum t_i^2}},

first with single populations, then with their best non-negative mixture; the velocity is that of
the maximum. Vacuum wavelengths read as air lie 83 km/s to the red.

References:
    | Tonry & Davis 1979, AJ 84, 1511
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.optimize import nnls

from sbi_sfh.constants import C_KMS
from sbi_sfh.ssp import SspLibrary

__all__ = ["Velocities"]

F64 = NDArray[np.float64]
_SAMPLES = 8192
_CONTINUUM = 0.027  # width of the running mean in ln lambda: 136 Angstrom at 5000
_TAPER = 0.03
_REACH = 3000.0  # km/s
_AGES = (0.05, 0.1, 0.3, 0.7, 1.5, 3.0, 6.0, 12.0)  # Gyr
_DISPERSIONS = (80.0, 180.0, 300.0)  # km/s
_FIT = 4  # every fourth sample enters the fit of the mixture
_ROUNDS = 4
_SETTLED = 1.0  # km/s: smaller changes end the rounds


class Velocities:
    """Templates of a library, ready to be compared with spectra.

    Parameters
    ----------
    library
        Its wavelengths are those of the spectra.
    """

    def __init__(self, library: SspLibrary) -> None:
        self._log_wave = np.log(library.wave)
        self._grid = np.linspace(self._log_wave[0], self._log_wave[-1], _SAMPLES)
        self._step = float(self._grid[1] - self._grid[0]) * C_KMS
        self._width = int(_CONTINUUM * C_KMS / self._step)
        self._reach = int(_REACH / self._step)
        self._length = fft.next_fast_len(_SAMPLES + self._reach, real=True)  # nothing comes round
        end = np.minimum(np.arange(_SAMPLES), np.arange(_SAMPLES)[::-1])
        self._taper = np.minimum(1.0, end / (_TAPER * _SAMPLES))
        cube = library.spectra()
        metals = np.unique(np.linspace(1, len(library.mh) - 2, 3).astype(int))
        ages = np.unique([np.abs(library.age_gyr - a).argmin() for a in _AGES])
        sampled = [np.interp(self._grid, self._log_wave, cube[i, j]) for i in metals for j in ages]
        everywhere = np.ones(_SAMPLES, bool)
        self._templates = np.stack([
            self._lines(gaussian_filter1d(s, d / self._step), everywhere)
            for s in sampled for d in _DISPERSIONS
        ])  # fmt: skip
        single = self._templates[1 :: len(_DISPERSIONS)]
        self._single = np.conj(fft.rfft(single.astype(np.float32), self._length))
        self._sizes = (single**2).sum(1)
        self._rotated, self._small = np.linalg.qr(self._templates[:, ::_FIT].T)

    def offset(self, flux: F64, mask: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the velocity [km/s, positive to the red] of a spectrum (L,), and r(v)."""
        at = np.interp(self._grid, self._log_wave, np.where(mask, flux, 0.0))
        seen = np.interp(self._grid, self._log_wave, mask.astype(float)) > 0.99
        x = self._lines(at, seen)
        r, velocity = self._peak(x, self._single, self._sizes)
        for _ in range(_ROUNDS):
            shift = round(velocity / self._step)
            weight, _ = nnls(self._small, np.roll(x, -shift)[::_FIT] @ self._rotated)
            if not weight.any():
                break
            model = weight @ self._templates
            x = np.where(seen, x, np.roll(model, shift))  # masked lines would bias the velocity
            before = velocity
            template = np.conj(fft.rfft(model.astype(np.float32), self._length))
            r, velocity = self._peak(x, template[None], (model**2).sum(keepdims=True))
            if abs(velocity - before) < _SETTLED:
                break
        return velocity, r

    def _lines(self, flux: F64, seen: NDArray[np.bool_]) -> F64:
        """Return the flux over its running mean minus 1, tapered; 0 where not seen."""
        weight = uniform_filter1d(seen.astype(float), self._width)
        mean = uniform_filter1d(np.where(seen, flux, 0.0), self._width) / np.maximum(weight, 1e-3)
        lines = np.where(seen, flux / np.where(mean > 0, mean, np.inf) - 1.0, 0.0)
        return np.asarray(np.clip(lines, -0.5, 0.3) * self._taper)  # cosmic rays and the like

    def _peak(self, x: F64, templates: NDArray[np.complex64], sizes: F64) -> tuple[float, float]:
        """Return height and velocity of the highest correlation of x with templates.

        Templates are conjugate Fourier transforms (n, samples + 1); ``sizes`` are the sums of their
        squares. Single precision: velocities change by less than 0.1 km/s.
        """
        scale = np.sqrt((x**2).sum() * sizes)
        if not (scale > 0).any():
            return 0.0, 0.0
        reach = self._reach
        spectrum = fft.rfft(x.astype(np.float32), self._length)
        lags = fft.irfft(spectrum * templates, self._length)
        near = np.concatenate([lags[:, -reach:], lags[:, : reach + 1]], axis=1)
        r = near / np.where(scale > 0, scale, np.inf)[:, None]
        best = r[int(r.max(1).argmax())]
        k = int(np.clip(best.argmax(), 1, 2 * reach - 1))
        before, top, after = map(float, best[k - 1 : k + 2])
        curvature = before - 2 * top + after
        shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
        return top, (k + shift - reach) * self._step
