r"""Photometric errors as a covariate: drawn given the fluxes, then used for the noise.

For a true flux f [nanomaggies] the median error of band b is

.. math:: \tilde\sigma_b^2(f) = (c_b f)^2 + 10^{E_b(L)}, \quad L = \log_{10}\max(f, 1), \quad
          c_b = 0.921 \times (0.04, 0.04, 0.05, 0.02, 0.02, 0.02, 0.03)

with E_b fitted to the errors of 1823 NASA-Sloan Atlas galaxies (shallow and deep GALEX exposures,
SDSS), and an object's error

.. math:: \log_{10}\sigma_b = \log_{10} w + \log_{10}\tilde\sigma_b(f\,10^{j}) + s_b\,\epsilon_b .

j ~ N(0, 0.3) is common to all bands: without it, an error computed at the *true* flux would reveal
that flux. The depth of the two GALEX bands is common; w = 1 except for 10 % of the objects, where
it is log-uniform on [1, 5], so that the training set covers noisy objects. Then

.. math:: f_\mathrm{obs} \sim N\big(f,\; \sigma^2 + (0.921\,\phi f)^2\big)

with :math:`\phi` the model floor in magnitudes (systematic errors of stellar populations).

References:
    | Blanton et al. 2011, AJ 142, 31 (NASA-Sloan Atlas)
    | Hahn & Melchior 2022, ApJ 938, 11, section 3 (errors as a covariate)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_core import ConfigError
from sbi_sedflow.constants import N_BANDS, POGSON

__all__ = ["HotDeck", "NoiseModel", "floor_error", "log_prob_flux", "log_prob_sigma"]

F64 = NDArray[np.float64]
_C = tuple(v / POGSON for v in (0.04, 0.04, 0.05, 0.02, 0.02, 0.02, 0.03))
_JITTER = 0.3  # dex, of the flux at which errors are computed
_WIDE_SHARE, _WIDE_TOP = 0.1, 5.0
_DEEP_F, _DEEP_N = 0.35, 0.42  # shares of deep exposures; a galaxy deep in F is deep in N
_INTERCEPT = (-1.09, -2.47, -2.59, -1.35, -0.74)  # u g r i z
_SLOPE = (0.97, 1.08, 1.16, 0.78, 0.84)
_SD_E = (0.38, 0.36, 0.35, 0.26, 0.26, 0.36, 0.34)
_SCATTER = tuple(max(s / 2, 0.1) for s in _SD_E)  # dex in sigma


def _log_power(level: tuple[float, float], other: tuple[float, float], x: Tensor) -> Tensor:
    """Return log10 of the sum of two power laws 10^(a + b L)."""
    a, b = level
    c, d = other
    return torch.log10(10 ** (a + b * x) + 10 ** (c + d * x))


def _exponent(log_flux: Tensor, deep: Tensor) -> Tensor:
    """Return E (n, 7) at L (n, 7) for the depth class (n,): 0 shallow, 1 deep N, 2 deep both."""
    x = log_flux.clamp_min(0.0)
    f, n = x[:, 0], x[:, 1]
    shallow_f = _log_power((1.15, 0.0), (-0.05, 0.95), f)
    shallow_n = _log_power((0.0, 0.0), (-0.75, 1.0), n)
    deep_n = _log_power((-1.6, 0.0), (-1.75, 0.92), n)
    uv = torch.stack(
        [
            torch.where(deep == 2, -1.35 + 0.95 * f, shallow_f),
            torch.where(deep >= 1, deep_n, shallow_n),
        ],
        1,
    )
    optical = x.new_tensor(_INTERCEPT) + x.new_tensor(_SLOPE) * x[:, 2:]
    return torch.cat([uv, optical], 1)


def _median(flux: Tensor, jitter: Tensor, deep: Tensor) -> Tensor:
    """Return log10 of the median error (n, 7) at flux (n, 7) 10^jitter (n,)."""
    at = flux.clamp_min(0.0) * 10 ** jitter[:, None]
    level = _exponent(torch.log10(at.clamp_min(1.0)), deep)
    return 0.5 * torch.log10((flux.new_tensor(_C) * at) ** 2 + 10**level)


def floor_error(flux: Tensor, floor: float) -> Tensor:
    """Return the systematic error (n, 7) of a floor in magnitudes; 0 for negative fluxes."""
    return flux.clamp_min(0.0) * (floor / POGSON)


@dataclass(frozen=True)
class NoiseModel:
    """The noise model of the package.

    Parameters
    ----------
    floor
        Model floor [mag].
    """

    floor: float = 0.03

    def sigma(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        """Return catalogue errors (n, 7) for true fluxes (n, 7), both in nanomaggies."""
        n = len(flux)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=flux.dtype)

        u, wide = (torch.rand(n, generator=generator, dtype=flux.dtype) for _ in range(2))
        deep = (u < _DEEP_N).long() + (u < _DEEP_F).long()
        log_w = torch.rand(n, generator=generator, dtype=flux.dtype) * math.log10(_WIDE_TOP)
        log_w = torch.where(wide < _WIDE_SHARE, log_w, torch.zeros_like(log_w))
        median = _median(flux, _JITTER * normal(n), deep)
        scatter = flux.new_tensor(_SCATTER) * normal(n, N_BANDS)
        return 10 ** (median + scatter + log_w[:, None])


def log_prob_sigma(sigma: Tensor, flux: Tensor, mask: Tensor) -> Tensor:
    """Return log p(log10 sigma | f) of the embedded model, (n,), float64.

    The jitter and the widening are integrated over by quadrature, the depth class is summed over.

    Parameters
    ----------
    sigma, flux, mask : (n, 7)
        Errors and *true* fluxes [nanomaggies]; only bands with mask True are used.
    """
    x, w = np.polynomial.hermite_e.hermegauss(15)
    steps = np.linspace(0, math.log10(_WIDE_TOP), 9)
    wide = [(0.0, 1 - _WIDE_SHARE), *((float(s), _WIDE_SHARE / 9) for s in steps)]
    shares = (1 - _DEEP_N, _DEEP_N - _DEEP_F, _DEEP_F)
    flux, log_sigma = flux.double(), torch.log10(torch.where(mask, sigma.double(), 1.0))
    scatter = flux.new_tensor(_SCATTER)
    parts = []
    for j, wj in zip(x, w / w.sum(), strict=True):
        for k, share in enumerate(shares):
            deep = torch.full((len(flux),), k)
            median = _median(flux, flux.new_full((len(flux),), _JITTER * float(j)), deep)
            for log_w, ww in wide:
                off = torch.where(mask, (log_sigma - median - log_w) / scatter, 0.0)
                each = -0.5 * off**2 - torch.where(mask, scatter.log(), 0.0)
                parts.append(each.sum(1) + math.log(float(wj) * share * ww))
    total: Tensor = torch.logsumexp(torch.stack(parts), 0)
    return total - 0.5 * math.log(2 * math.pi) * mask.sum(1)


def log_prob_flux(
    observed: Tensor, sigma: Tensor, flux: Tensor, mask: Tensor, floor: float
) -> Tensor:
    """Return log p(f_obs | f, sigma), (n,) or (S, n), normalised.

    Parameters
    ----------
    observed, sigma, mask : (n, 7)
        Data; masked values, NaN included, are ignored.
    flux : (n, 7) or (S, n, 7)
        Noise-free model fluxes.
    floor
        Model floor [mag].
    """
    safe = torch.where(mask, sigma, 1.0)
    variance = safe**2 + floor_error(flux, floor) ** 2
    off = torch.where(mask, observed, 0.0) - flux
    each = off**2 / variance + torch.log(2 * math.pi * variance)
    return -0.5 * torch.where(mask, each, torch.zeros_like(each)).sum(-1)


class HotDeck:
    """Errors of real galaxies with an r flux similar to that of the simulated one.

    Donors are drawn among the 80 nearest in the rank of r flux, looked up at a flux with the
    jitter of the embedded model. For sources brighter than the brightest donor, errors grow in
    proportion to the flux. Bands the donor lacks get the errors of the embedded model.

    Parameters
    ----------
    flux, sigma : (N, 7)
        Catalogue [nanomaggies]; NaN where a band is missing.
    floor
        Model floor [mag].

    Raises
    ------
    ConfigError
        If fewer than 200 galaxies have an r flux.
    """

    _R = 4
    _NEAR = 40

    def __init__(self, flux: F64, sigma: F64, floor: float = 0.03) -> None:
        good = np.isfinite(flux[:, self._R]) & (flux[:, self._R] > 0)
        good &= np.isfinite(sigma[:, self._R])
        if good.sum() < 200:
            msg = (
                f"noise = 'hotdeck' needs at least 200 galaxies with a positive r flux, the "
                f"catalogue has {int(good.sum())}"
            )
            raise ConfigError(msg)
        order = np.argsort(flux[good, self._R])
        self._key = torch.as_tensor(flux[good, self._R][order])
        self._sigma = torch.as_tensor(sigma[good][order])
        self._plain = NoiseModel(floor)
        self.floor = floor

    def sigma(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        """Return errors (n, 7) for true fluxes (n, 7), both in nanomaggies."""
        n, size = len(flux), len(self._key)
        jitter = 10 ** (_JITTER * torch.randn(n, generator=generator, dtype=flux.dtype))
        at = flux[:, self._R].clamp_min(0.0) * jitter
        near = torch.randint(-self._NEAR, self._NEAR + 1, (n,), generator=generator)
        row = (torch.searchsorted(self._key, at.double()) + near).clamp(0, size - 1)
        donated = self._sigma[row].to(flux.dtype)
        brighter = (at / float(self._key[-1])).clamp_min(1.0)
        donated = donated * brighter[:, None]
        plain = self._plain.sigma(flux, generator)
        return torch.where(torch.isfinite(donated) & (donated > 0), donated, plain)
