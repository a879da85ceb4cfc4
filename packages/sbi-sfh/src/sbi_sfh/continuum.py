r"""Dust and errors of the flux calibration: the continuum against stellar populations.

The spectrum F, in blocks of twelve pixels, is fitted by the best non-negative mixture of single
populations S behind a screen of dust,

.. math:: \min_{w \geq 0} \left\langle \left(\frac{10^{-0.4\,E\,k(\lambda)} \sum_j w_j S_j}{F}
          - 1\right)^2 \right\rangle , \qquad E = -0.3, -0.2, \ldots, 1.2 .

The lines of the populations tell dust from age. The model of the training has no dust (but for
option ``dust``) and flux calibrations good to a few per cent. Of 300 simulated galaxies none is
reported; of those reddened by :math:`A_V` = 1, 93 %, by 1.5 or more, all.

References:
    | Calzetti et al. 2000, ApJ 533, 682
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from sbi_sfh.ssp import SspLibrary

__all__ = ["CALZETTI_R_V", "Continuum", "calzetti"]

F64 = NDArray[np.float64]
_AGES = (0.05, 0.1, 0.3, 0.7, 1.5, 3.0, 6.0, 12.0)  # Gyr
_BLOCK = 12  # pixels
_EBV = np.round(np.arange(-0.3, 1.25, 0.1), 1)
_RMS = 0.035  # of the fit without dust: smaller ones are within flux calibrations
_BETTER = 1.5  # times smaller with dust
_SMALLEST = 0.15  # E(B-V): passive galaxies with the embedded library appear to need 0.1
CALZETTI_R_V = 4.05


def calzetti(wave: F64) -> F64:
    """Return k(lambda) of star-forming galaxies at wavelengths [Angstrom], 1200-22000."""
    x = wave / 1e4
    blue = 2.659 * (-2.156 + 1.509 / x - 0.198 / x**2 + 0.011 / x**3) + CALZETTI_R_V
    red = 2.659 * (-1.857 + 1.040 / x) + CALZETTI_R_V
    return np.asarray(np.where(x < 0.63, blue, red))


class Continuum:
    """Stellar populations of a library, ready to be compared with continua.

    Parameters
    ----------
    library
        Its wavelengths are those of the spectra.
    """

    def __init__(self, library: SspLibrary) -> None:
        cube = library.spectra()
        metals = np.unique(np.linspace(1, len(library.mh) - 2, 3).astype(int))
        ages = np.unique([np.abs(library.age_gyr - a).argmin() for a in _AGES])
        spectra = np.array([_blocks(cube[i, j]).mean(1) for i in metals for j in ages])
        spectra /= np.median(spectra, axis=1, keepdims=True)
        dust = 10.0 ** (-0.4 * _EBV[:, None] * calzetti(_blocks(library.wave).mean(1)))
        self._screened = [(spectra * d / np.median(d)).T for d in dust]
        self._clear = int(np.abs(_EBV).argmin())

    def reddening(self, flux: F64, mask: NDArray[np.bool_]) -> float | None:
        """Return the A_V that a spectrum (L,) needs; None where the model reproduces it."""
        seen = _blocks(mask.astype(float)).sum(1)
        total = _blocks(np.where(mask, flux, 0.0)).sum(1)
        mean = total / np.maximum(seen, 1.0)
        use = (seen > 0.5 * _BLOCK) & (mean > 0.02)
        if use.sum() < 50:
            return None
        rms = np.array([
            nnls(s[use] / mean[use, None], np.ones(int(use.sum())))[1] for s in self._screened
        ]) / np.sqrt(use.sum())  # fmt: skip
        best = int(rms.argmin())
        small = abs(_EBV[best]) < _SMALLEST
        if small or rms[self._clear] < max(_RMS, _BETTER * rms[best]):
            return None
        return float(_EBV[best] * CALZETTI_R_V)


def _blocks(values: F64) -> F64:
    """Return an array (L,) as rows of twelve pixels; a rest at the end is dropped."""
    return values[: len(values) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
