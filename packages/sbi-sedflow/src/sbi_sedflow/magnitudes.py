r"""Magnitudes and fluxes: AB, asinh magnitudes of SDSS, Vega; and the zero points of SDSS.

AB magnitudes are :math:`f = 10^{0.4 (22.5 - m)}` nanomaggies, :math:`\sigma = f \sigma_m / 1.0857`.
All magnitudes of SDSS catalogues are asinh magnitudes,

.. math:: f = 2 b\,\sinh\left(\frac{22.5 - m}{1.0857} - \ln b\right), \qquad
          \sigma = \frac{\sigma_m}{1.0857} \sqrt{f^2 + 4 b^2} ,

b in nanomaggies. They differ from AB magnitudes by 1 % where f = 10 b; fluxes may be negative.

References:
    | Lupton, Gunn & Szalay 1999, AJ 118, 1406; Stoughton et al. 2002, AJ 123, 485, table 21 (b)
    | Blanton & Roweis 2007, AJ 133, 734, table 1 (Vega; SDSS offsets of kcorrect)
    | Bianchi 2011, Ap&SS 335, 51 (Vega, GALEX)
    | sdss.org, Photometric flux calibration: u_AB = u - 0.04, z_AB = z + 0.02
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sbi_sedflow.constants import POGSON

__all__ = ["AB_OFFSETS", "SDSS_SOFTENING", "System", "flux_of_magnitude"]

F64 = NDArray[np.float64]
System = Literal["AB", "asinh", "Vega"]
SDSS_SOFTENING = {"u": 0.14, "g": 0.09, "r": 0.12, "i": 0.18, "z": 0.74}  # nanomaggies
AB_OFFSETS: dict[str, dict[str, float]] = {  # of SDSS magnitudes, m_AB - m
    "none": {},
    "sdss": {"u": -0.04, "z": 0.02},
    "kcorrect": {"u": -0.036, "g": 0.012, "r": 0.010, "i": 0.028, "z": 0.040},
}
_FAINTEST = 90.0  # 99, 99.99, -99, -999, -9999 mark missing magnitudes
_WORST = 9.0  # mag: 9.99 and 99 mark missing errors


def flux_of_magnitude(
    mag: F64, error: F64, system: System, band: str, vega: float = 0.0
) -> tuple[F64, F64]:
    """Return flux and error [nanomaggies], NaN where the magnitude or its error is missing.

    Parameters
    ----------
    mag, error : (n,)
        Magnitudes and their errors; 99, -99, -9999 and the like mark missing ones.
    system
        Of the magnitudes; bands that SDSS does not have are never asinh.
    band
        Its name.
    vega
        m_AB - m_Vega, for Vega magnitudes.
    """
    seen = (np.abs(mag) < _FAINTEST) & (error < _WORST) & (error > -_FAINTEST)
    mag = np.where(seen, mag, 22.5)
    if system == "Vega":
        mag = mag + vega
    if system == "asinh" and band in SDSS_SOFTENING:
        b = SDSS_SOFTENING[band]
        flux = 2 * b * np.sinh((22.5 - mag) / POGSON - np.log(b))
        scale = np.sqrt(flux**2 + 4 * b**2)
    else:
        scale = flux = 10.0 ** (0.4 * (22.5 - mag))
    return np.where(seen, flux, np.nan), scale * error / POGSON
