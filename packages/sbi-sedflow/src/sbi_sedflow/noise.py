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
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from sbi_core import ConfigError
from sbi_sedflow.bandsets import BandSet, load_bands, softening_of
from sbi_sedflow.constants import POGSON

__all__ = ["HotDeck", "NoiseModel", "fitted", "floor_error", "log_prob_flux", "log_prob_sigma"]

F64 = NDArray[np.float64]
_JITTER = 0.3  # dex, of the flux at which errors are computed
_WIDE_SHARE, _WIDE_TOP = 0.1, 5.0
_FEWEST = 100  # errors to fit
_DEEP_F, _DEEP_N = 0.35, 0.42  # shares of deep exposures; a galaxy deep in F is deep in N


def _log_power(level: tuple[float, float], other: tuple[float, float], x: Tensor) -> Tensor:
    """Return log10 of the sum of two power laws 10^(a + b L)."""
    a, b = level
    c, d = other
    return torch.log10(10 ** (a + b * x) + 10 ** (c + d * x))


def _exponent(log_flux: Tensor, deep: Tensor, bands: BandSet) -> Tensor:
    """Return E (n, B) at L (n, B) for the depth class (n,): 0 shallow, 1 deep N, 2 deep both."""
    x = log_flux.clamp_min(0.0)
    a, b = (x.new_tensor([e[k] for e in _errors(bands)]) for k in (1, 2))
    level = a + b * x
    for k, band in enumerate(bands.bands):
        if band.galex == "F":
            shallow = _log_power((1.15, 0.0), (-0.05, 0.95), x[:, k])
            level[:, k] = torch.where(deep == 2, -1.35 + 0.95 * x[:, k], shallow)
        if band.galex == "N":
            shallow = _log_power((0.0, 0.0), (-0.75, 1.0), x[:, k])
            better = _log_power((-1.6, 0.0), (-1.75, 0.92), x[:, k])
            level[:, k] = torch.where(deep >= 1, better, shallow)
    return level


def _errors(bands: BandSet) -> list[tuple[float, float, float]]:
    """Return c [mag], a, b of all bands.

    Raises
    ------
    ConfigError
        If a band has none.
    """
    errors = [b.error for b in bands.bands if b.error is not None]
    if len(errors) < len(bands):
        name = next(b.name for b in bands.bands if b.error is None)
        msg = (
            f"band {name} of simulator.bands has no error = [c, a, b]: give it, or fit the errors "
            "of a catalogue: --set simulator.noise=fitted --set simulator.noise_catalogue=FILE"
        )
        raise ConfigError(msg)
    return errors


def _median(flux: Tensor, jitter: Tensor, deep: Tensor, bands: BandSet) -> Tensor:
    """Return log10 of the median error (n, B) at flux (n, B) 10^jitter (n,)."""
    at = flux.clamp_min(0.0) * 10 ** jitter[:, None]
    level = _exponent(torch.log10(at.clamp_min(1.0)), deep, bands)
    c = flux.new_tensor([e[0] / POGSON for e in _errors(bands)])
    return 0.5 * torch.log10((c * at) ** 2 + 10**level)


def floor_error(flux: Tensor, floor: float | Tensor) -> Tensor:
    """Return the systematic error (n, B) of a floor in magnitudes; 0 for negative fluxes."""
    if isinstance(floor, Tensor):
        floor = floor.to(flux)
    return flux.clamp_min(0.0) * (floor / POGSON)


@dataclass(frozen=True)
class NoiseModel:
    """The noise model of the package.

    Parameters
    ----------
    bands
        The bands; default F N u g r i z.
    """

    bands: BandSet = field(default_factory=load_bands)

    def sigma(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        """Return catalogue errors (n, B) for true fluxes (n, B), both in nanomaggies."""
        n = len(flux)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=flux.dtype)

        u, wide = (torch.rand(n, generator=generator, dtype=flux.dtype) for _ in range(2))
        deep = (u < _DEEP_N).long() + (u < _DEEP_F).long()
        log_w = torch.rand(n, generator=generator, dtype=flux.dtype) * math.log10(_WIDE_TOP)
        log_w = torch.where(wide < _WIDE_SHARE, log_w, torch.zeros_like(log_w))
        median = _median(flux, _JITTER * normal(n), deep, self.bands)
        scatter = flux.new_tensor([b.scatter for b in self.bands.bands])
        scatter = scatter * normal(n, len(self.bands))
        return 10 ** (median + scatter + log_w[:, None])


def log_prob_sigma(
    sigma: Tensor, flux: Tensor, mask: Tensor, bands: BandSet | None = None
) -> Tensor:
    """Return log p(log10 sigma | f) of the embedded model, (n,), float64.

    The jitter and the widening are integrated over by quadrature, the depth class is summed over.

    Parameters
    ----------
    sigma, flux, mask : (n, B)
        Errors and *true* fluxes [nanomaggies]; only bands with mask True are used.
    bands
        The bands; default F N u g r i z.
    """
    x, w = np.polynomial.hermite_e.hermegauss(15)
    steps = np.linspace(0, math.log10(_WIDE_TOP), 9)
    wide = [(0.0, 1 - _WIDE_SHARE), *((float(s), _WIDE_SHARE / 9) for s in steps)]
    shares = (1 - _DEEP_N, _DEEP_N - _DEEP_F, _DEEP_F)
    flux, log_sigma = flux.double(), torch.log10(torch.where(mask, sigma.double(), 1.0))
    bands = bands or load_bands()
    scatter = flux.new_tensor([b.scatter for b in bands.bands])
    parts = []
    for j, wj in zip(x, w / w.sum(), strict=True):
        for k, share in enumerate(shares):
            deep = torch.full((len(flux),), k)
            median = _median(flux, flux.new_full((len(flux),), _JITTER * float(j)), deep, bands)
            for log_w, ww in wide:
                off = torch.where(mask, (log_sigma - median - log_w) / scatter, 0.0)
                each = -0.5 * off**2 - torch.where(mask, scatter.log(), 0.0)
                parts.append(each.sum(1) + math.log(float(wj) * share * ww))
    total: Tensor = torch.logsumexp(torch.stack(parts), 0)
    return total - 0.5 * math.log(2 * math.pi) * mask.sum(1)


def log_prob_flux(
    observed: Tensor, sigma: Tensor, flux: Tensor, mask: Tensor, floor: float | Tensor
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
    bands
        The bands; default F N u g r i z.

    Raises
    ------
    ConfigError
        If fewer than 200 galaxies have an r flux.
    """

    _NEAR = 40

    def __init__(self, flux: F64, sigma: F64, bands: BandSet | None = None) -> None:
        bands = bands or load_bands()
        self._r = bands.reference
        good = np.isfinite(flux[:, self._r]) & (flux[:, self._r] > 0)
        good &= np.isfinite(sigma[:, self._r])
        if good.sum() < 200:
            msg = (
                f"noise = 'hotdeck' needs at least 200 galaxies with a positive flux in "
                f"{bands.names[self._r]}, the catalogue has {int(good.sum())}"
            )
            raise ConfigError(msg)
        order = np.argsort(flux[good, self._r])
        self._key = torch.as_tensor(flux[good, self._r][order])
        self._sigma = torch.as_tensor(sigma[good][order])
        lacking = any(b.error is None for b in bands.bands)
        self._plain = NoiseModel(fitted(bands, flux, sigma) if lacking else bands)

    def sigma(self, flux: Tensor, generator: torch.Generator) -> Tensor:
        """Return errors (n, B) for true fluxes (n, B), both in nanomaggies."""
        n, size = len(flux), len(self._key)
        jitter = 10 ** (_JITTER * torch.randn(n, generator=generator, dtype=flux.dtype))
        at = flux[:, self._r].clamp_min(0.0) * jitter
        near = torch.randint(-self._NEAR, self._NEAR + 1, (n,), generator=generator)
        row = (torch.searchsorted(self._key, at.double()) + near).clamp(0, size - 1)
        donated = self._sigma[row].to(flux.dtype)
        brighter = (at / float(self._key[-1])).clamp_min(1.0)
        donated = donated * brighter[:, None]
        plain = self._plain.sigma(flux, generator)
        return torch.where(torch.isfinite(donated) & (donated > 0), donated, plain)


def fitted(bands: BandSet, flux: F64, sigma: F64) -> BandSet:
    """Return the bands with errors fitted to those of a catalogue.

    Least squares in log10 of the error over c, a and b, with bounded influence of outliers; the
    scatter is that of the residuals (68 %).

    Parameters
    ----------
    bands
        The bands.
    flux, sigma : (N, B)
        Catalogue [nanomaggies]; NaN where a band is missing.

    Raises
    ------
    ConfigError
        If a band has fewer than 100 errors.
    """
    done = []
    for k, band in enumerate(bands.bands):
        good = np.isfinite(flux[:, k]) & np.isfinite(sigma[:, k]) & (sigma[:, k] > 0)
        if good.sum() < _FEWEST:
            msg = (
                f"noise = 'fitted' needs at least {_FEWEST} errors in every band, the catalogue "
                f"has {int(good.sum())} in {band.name}"
            )
            raise ConfigError(msg)
        f, y = np.maximum(flux[good, k], 0.0), np.log10(sigma[good, k])
        level = np.log10(np.maximum(f, 1.0))

        def model(p: F64, f: F64 = f, level: F64 = level) -> F64:
            variance = (10.0 ** p[0] / POGSON * f) ** 2 + 10.0 ** (p[1] + p[2] * level)
            return np.asarray(0.5 * np.log10(variance))

        start = np.array([-2.0, 2 * np.percentile(y, 10), 0.7])
        bounds = [-4.0, -12.0, 0.0], [-0.3, 12.0, 2.0]
        start = np.clip(start, np.add(bounds[0], 0.01), np.subtract(bounds[1], 0.01))
        fit = optimize.least_squares(
            lambda p, y=y, model=model: model(p) - y, start, bounds=bounds, loss="soft_l1",
            f_scale=0.1,
        )  # fmt: skip
        scatter = 0.5 * np.ptp(np.percentile(model(fit.x) - y, [16, 84]))
        c, a, b = (float(v) for v in fit.x)
        softening = softening_of(a) if band.error is None else band.softening
        done.append(
            replace(band, error=(10.0**c, a, b), scatter=max(float(scatter), 0.02),
                    softening=softening, galex="")
        )  # fmt: skip
    return replace(bands, bands=tuple(done))
