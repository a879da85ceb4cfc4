r"""Analytic stellar populations for tests, **not for science**.

A black body whose temperature falls and whose luminosity fades with age,

.. math:: L_\lambda = \frac{L(t)}{\int B_\lambda} B_\lambda(T), \quad
          T = 30000\,\mathrm K\,(t / 1\,\mathrm{Myr})^{-0.2}\,(Z/0.02)^{-0.05}, \quad
          L = 1000\,(t / 1\,\mathrm{Myr})^{-0.9}\,L_\odot .
"""

from __future__ import annotations

import numpy as np

from sbi_sedflow.ssp.grid import SSPGrid

__all__ = ["toy_grid"]


def toy_grid() -> SSPGrid:
    """Return 60 ages, 4 metallicities and 800 wavelengths of the analytic population."""
    age = np.asarray(np.geomspace(1e-4, 20.0, 60))  # Gyr
    metallicity = np.array([0.0002, 0.002, 0.02, 0.05])
    wave = np.asarray(np.geomspace(200.0, 40000.0, 800))
    myr = (age * 1e3).reshape(-1, 1)
    kelvin = 30000.0 * myr**-0.2 * (metallicity / 0.02) ** -0.05
    x = 1.4387769e8 / (wave * kelvin.reshape(*kelvin.shape, 1))  # hc / lambda k T, Angstrom K
    planck = wave**-5.0 / np.expm1(np.minimum(x, 600.0))
    total = np.asarray(np.trapezoid(planck, wave, axis=-1))
    lum = 1e3 * myr.reshape(-1, 1, 1) ** -0.9 * planck / total[..., None]
    living = np.broadcast_to(1 - 0.08 * np.log10(1 + myr), lum.shape[:2]).copy()
    return SSPGrid(age, metallicity, wave, lum, living, {"library": "toy", "sha256": "toy-1"})
