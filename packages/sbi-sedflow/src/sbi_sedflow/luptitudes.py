r"""Asinh magnitudes: logarithmic for bright sources, linear where noise dominates.

.. math:: \mu = 22.5 - 1.0857 \left[\mathrm{asinh}\frac{f}{2b} + \ln b\right], \qquad
          \sigma_\mu = \frac{1.0857\,\sigma}{\sqrt{f^2 + 4 b^2}}

for fluxes f in nanomaggies, which may be negative.

References:
    | Lupton, Gunn & Szalay 1999, AJ 118, 1406, eqs. 3 and 10
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sbi_sedflow.constants import POGSON

__all__ = ["SOFTENING", "flux_error_of", "flux_of", "luptitude", "luptitude_error"]

SOFTENING = (1.0, 0.5, 1.0, 0.7, 1.0, 1.2, 3.0)  # nanomaggies: about one sigma at the faint end


def _b(like: Tensor, softening: Sequence[float]) -> Tensor:
    return torch.tensor(softening, dtype=like.dtype, device=like.device)


def luptitude(flux: Tensor, softening: Sequence[float] = SOFTENING) -> Tensor:
    """Return asinh magnitudes (n, B) of fluxes [nanomaggies]."""
    b = _b(flux, softening)
    return 22.5 - POGSON * (torch.asinh(flux / (2 * b)) + torch.log(b))


def luptitude_error(flux: Tensor, sigma: Tensor, softening: Sequence[float] = SOFTENING) -> Tensor:
    """Return errors of asinh magnitudes (n, B) of fluxes and their errors [nanomaggies]."""
    return POGSON * sigma / torch.sqrt(flux**2 + 4 * _b(flux, softening) ** 2)


def flux_of(mu: Tensor, softening: Sequence[float] = SOFTENING) -> Tensor:
    """Return fluxes [nanomaggies] of asinh magnitudes (n, B)."""
    b = _b(mu, softening)
    return 2 * b * torch.sinh((22.5 - mu) / POGSON - torch.log(b))


def flux_error_of(mu: Tensor, sigma_mu: Tensor, softening: Sequence[float] = SOFTENING) -> Tensor:
    """Return flux errors [nanomaggies] of asinh magnitudes and their errors (n, B)."""
    flux = flux_of(mu, softening)
    return sigma_mu * torch.sqrt(flux**2 + 4 * _b(mu, softening) ** 2) / POGSON
