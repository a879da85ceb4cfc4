r"""The error law of combined posteriors: a bias of f sigma per object becomes f sqrt(N).

A systematic error of :math:`f\sigma_1` that all single-object posteriors share does not average
out, while the combined error bar shrinks as :math:`\sigma_1/\sqrt{N}`. Averaged over truths,

.. math:: z_\mathrm{rms}^2(N) = 1 + f^2 N ,

so that f, too small to measure at N = 1, follows from simulated groups of growing N.

References:
    | docs/calibration.md
"""

from dataclasses import dataclass

import numpy as np

from sbi_core.diagnostics._ranks import FloatArray, IntArray

__all__ = ["ErrorLaw", "fit_error_law"]


@dataclass(frozen=True, slots=True)
class ErrorLaw:
    """Shared systematic error of the single-object posteriors.

    Attributes
    ----------
    f : float
        In units of the single-object sigma; 0 where z-rms does not grow with N.
    f_squared, f_squared_error : float
        The fitted slope (may scatter below 0) and its standard error.
    """

    f: float
    f_squared: float
    f_squared_error: float

    def z_rms(self, n: FloatArray | IntArray | float) -> FloatArray:
        """Return the z-rms expected for groups of ``n`` objects."""
        return np.asarray(np.sqrt(1.0 + self.f**2 * np.asarray(n)))


def fit_error_law(n: FloatArray | IntArray, z_rms: FloatArray, repeats: FloatArray) -> ErrorLaw:
    r"""Fit :math:`z^2(N) = 1 + f^2 N` by weighted least squares.

    Parameters
    ----------
    n : (K,)
        Group sizes.
    z_rms : (K,)
        Root mean square z at each.
    repeats : (K,)
        Number of squared z values behind each: repeats, times parameters if pooled.

    Notes
    -----
    A mean square of M values scatters by :math:`z^2\sqrt{2/M}`; the expected :math:`z^2` depends on
    f, so weights and fit are iterated.
    """
    size = np.asarray(n, dtype=np.float64)
    excess = np.asarray(z_rms, dtype=np.float64) ** 2 - 1.0
    count = np.broadcast_to(np.asarray(repeats, dtype=np.float64), size.shape)
    slope, precision = 0.0, 1.0
    for _ in range(20):
        weight = count / (2.0 * (1.0 + max(slope, 0.0) * size) ** 2)
        precision = float((weight * size**2).sum())
        slope = float((weight * size * excess).sum()) / precision
    return ErrorLaw(
        f=float(np.sqrt(max(slope, 0.0))),
        f_squared=slope,
        f_squared_error=float(precision**-0.5),
    )
