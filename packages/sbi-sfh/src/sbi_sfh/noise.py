r"""From noise-free coefficients to observed spectra.

.. math:: F = C\,B(\sigma), \qquad
          x = \frac{P(\lambda)\,F(\lambda\,(1 - v/c)) + \sigma_i\,\epsilon}
                   {\mathrm{median}}, \qquad P = 1 + \sum_{k=1}^{6} p_k\,L_k, \quad
          p_k \sim N(0, 0.05/k)

With option ``dust``, P has a factor :math:`10^{-0.4\,k(\lambda)\,E(B-V)}` (Calzetti et al. 2000).
Mode ``mock`` has F and the noise; mode ``observed`` all factors and masks. Everything is redrawn at
every call, so that a network cannot memorise the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_core import Batch, ConfigError, DataFileError, Rng, SbiError, read_text, torch_generator
from sbi_sfh.broadening import NODE_STEP, broaden, edge_pixels, nodes
from sbi_sfh.config import SfhConfig
from sbi_sfh.constants import C_KMS
from sbi_sfh.continuum import calzetti
from sbi_sfh.formats import read_raw
from sbi_sfh.formats.spectrum import UnusableSpectrumError
from sbi_sfh.masks import emission_mask
from sbi_sfh.prepare import prepare
from sbi_sfh.ssp import SspLibrary

__all__ = ["CONTEXT", "Nuisances", "Telescope"]

F64 = NDArray[np.float64]
CONTEXT = ("log10_snr", "sigma_100kms")
_UNKNOWN_SIGMA = 0.5  # share of training spectra without a known velocity dispersion
_SKY_SHARE = 0.8  # share of training spectra with a gap where the 5577 line was
_BAD_PIXELS = 0.01


@dataclass(frozen=True, slots=True)
class Nuisances:
    """Nuisance parameters of observed spectra, n rows each.

    Parameters
    ----------
    snr
        Signal to noise per pixel, (n,).
    sigma
        Velocity dispersion beyond the library's resolution, km/s, (n,).
    velocity
        Error of the rest frame, km/s, (n,).
    polynomial
        Coefficients of Legendre orders 1.., (n, k).
    mask
        True where a pixel is used, (n, L).
    ebv
        E(B-V) of the dust in the galaxy, (n,); None without dust.
    """

    snr: Tensor
    sigma: Tensor
    velocity: Tensor
    polynomial: Tensor
    mask: Tensor
    ebv: Tensor | None = None


class Telescope:
    """Makes spectra of coefficients.

    Parameters
    ----------
    library
        Its basis, already cropped.
    config
        Options.
    """

    def __init__(self, library: SspLibrary, config: SfhConfig) -> None:
        self.config = config
        self.wave = library.wave
        self.basis = torch.tensor(library.basis, dtype=torch.float32)
        self.observed_mode = config.mode == "observed"
        self.shape = _shape(config, library)
        x = np.linspace(-1.0, 1.0, len(self.wave))
        legendre = [
            np.polynomial.legendre.Legendre.basis(k)(x)
            for k in range(1, config.polynomial_order + 1)
        ]
        self.legendre = torch.as_tensor(np.array(legendre).reshape(-1, len(x)), dtype=torch.float32)
        self.extinction = torch.as_tensor(calzetti(self.wave), dtype=torch.float32)
        self._lines = torch.as_tensor(~emission_mask(self.wave))
        self._edges = torch.as_tensor(~edge_pixels(self.wave, config.sigma_range[1]))
        self._broadened: Tensor | None = None
        self._library = library

    @property
    def broadened(self) -> Tensor:
        """The basis at every node of velocity dispersion, (S, K, L)."""
        if self._broadened is None:
            grid = nodes(self.config.sigma_range[1])
            made = broaden(self.wave, self._library.basis, grid)
            self._broadened = torch.tensor(made, dtype=torch.float32)
        return self._broadened

    def noise_free(self, coefficients: Tensor) -> Tensor:
        """Return spectra (n, L) of coefficients (n, K) at the resolution of the library."""
        return coefficients.to(torch.float32) @ self.basis.to(coefficients.device)

    def at_dispersion(self, coefficients: Tensor, sigma: Tensor) -> Tensor:
        """Return spectra (n, L) broadened by sigma (n,) km/s."""
        c = coefficients.to(torch.float32)
        place = (sigma / NODE_STEP).clamp(0, len(self.broadened) - 1.001)
        node = place.floor().long()
        part = (place - node).to(c.dtype)[:, None]
        out = torch.empty(len(c), len(self.wave), dtype=c.dtype, device=c.device)
        for k in node.unique().tolist():
            rows = torch.nonzero(node == k)[:, 0]
            low, high = (self.broadened[j].to(c.device) for j in (k, k + 1))
            mixed = torch.cat([c[rows] * (1 - part[rows]), c[rows] * part[rows]], dim=1)
            out[rows] = mixed @ torch.cat([low, high])
        return out

    def shifted(self, flux: Tensor, velocity: Tensor) -> Tensor:
        """Return spectra (n, L) shifted by velocity (n,) km/s: three-point interpolation."""
        step = float(self.wave[1] - self.wave[0])
        pixels = torch.as_tensor(self.wave / step / C_KMS, dtype=flux.dtype, device=flux.device)
        s = -velocity[:, None].to(flux.dtype) * pixels
        before = torch.cat([flux[:, :1], flux[:, :-1]], 1)
        after = torch.cat([flux[:, 1:], flux[:, -1:]], 1)
        return flux + s * (0.5 * (after - before) + 0.5 * s * (after - 2 * flux + before))

    def draw(self, n: int, generator: torch.Generator) -> Nuisances:
        """Return nuisances of n observed spectra from their training distributions."""
        c, device = self.config, generator.device

        def uniform(low: float, high: float) -> Tensor:
            u = torch.rand(n, generator=generator, device=device, dtype=torch.float32)
            return low + (high - low) * u

        low, high = (float(np.log10(v)) for v in c.snr_range)
        orders = torch.arange(1, c.polynomial_order + 1, device=device)
        draws = torch.randn(
            n, c.polynomial_order, generator=generator, device=device, dtype=torch.float32
        )
        return Nuisances(
            snr=10.0 ** uniform(low, high),
            sigma=uniform(*c.sigma_range),
            velocity=c.velocity_sd
            * torch.randn(n, generator=generator, device=device, dtype=torch.float32),
            polynomial=c.polynomial_sd / orders * draws,
            mask=self._mask(n, generator),
            ebv=None if c.dust is None else uniform(0.0, c.dust),
        )

    def _mask(self, n: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        wave = torch.as_tensor(self.wave, dtype=torch.float32, device=device)
        fixed = (self._lines & self._edges).to(device)
        gap = torch.rand(n, 2, generator=generator, device=device, dtype=torch.float32)
        redshift = 0.15 * gap[:, :1]
        sky = (wave * (1 + redshift) - 5577.34).abs() < 12.0
        sky &= gap[:, 1:] < _SKY_SHARE
        shape = (n, len(wave))
        bad = (
            torch.rand(shape, generator=generator, device=device, dtype=torch.float32) < _BAD_PIXELS
        )
        return fixed & ~sky & ~bad

    def errors(self, flux: Tensor, snr: Tensor | float) -> Tensor:
        """Return one standard deviation of every pixel, (n, L), for a S/N per pixel."""
        level = snr[:, None] if isinstance(snr, Tensor) else torch.full_like(flux[:, :1], snr)
        if self.shape is not None:
            return (self.shape.to(flux) / level).expand_as(flux)
        if self.config.noise == "flat":
            return (torch.ones_like(flux[:, :1]) / level).expand_as(flux)
        return flux.abs() / level

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return spectra with noise, errors and masks; ``x`` of the batch holds coefficients."""
        generator = torch_generator(rng, batch.x.device)
        if self.observed_mode:
            drawn = self.draw(len(batch), generator)
            return self.observe_as(batch, drawn, generator, tell_sigma=None)
        flux, err = self.pixel_noise(batch)
        if err is None:
            return batch.with_(x=flux)
        noise = torch.randn(
            flux.shape, generator=generator, device=flux.device, dtype=torch.float32
        )
        return batch.with_(x=torch.addcmul(flux, err, noise), x_err=err)

    def pixel_noise(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return noise-free spectra (n, L) and their errors (n, L), or None without (mode mock)."""
        flux = self.noise_free(batch.x)
        return flux, None if self.config.noise == "none" else self.errors(flux, self.config.snr)

    def observe_as(
        self,
        batch: Batch,
        with_: Nuisances,
        rng: Rng,
        *,
        tell_sigma: bool | None = True,
        relative_errors: Tensor | None = None,
    ) -> Batch:
        """Return spectra observed with given nuisances (mode ``observed``).

        Parameters
        ----------
        batch
            Coefficients in ``x``.
        with_
            Signal to noise, velocity dispersion and the rest, one row each.
        rng
            Noise.
        tell_sigma
            Pass the velocity dispersion on as context; None: for half of the rows.
        relative_errors
            Errors over the flux, (n, L), up to a factor per row, which the signal to noise sets.
            Default: those of training.
        """
        generator = torch_generator(rng, batch.x.device)
        flux = self.shifted(self.at_dispersion(batch.x, with_.sigma), with_.velocity)
        flux = flux * (1.0 + with_.polynomial.to(flux) @ self.legendre.to(flux))
        if with_.ebv is not None:
            flux = flux * 10.0 ** (-0.4 * with_.ebv.to(flux)[:, None] * self.extinction.to(flux))
        if relative_errors is None:
            err = self.errors(flux, with_.snr.to(flux))
        else:
            seen = torch.where(with_.mask, relative_errors, torch.nan)
            level = with_.snr[:, None] * seen.nanmedian(1, keepdim=True).values
            err = flux.abs() * (relative_errors / level).to(flux)
        noise = torch.randn(
            flux.shape, generator=generator, device=flux.device, dtype=torch.float32
        )
        flux = torch.addcmul(flux, err, noise)
        scale = torch.where(with_.mask, flux, torch.nan).nanmedian(1, keepdim=True).values
        told = torch.full((len(batch),), bool(tell_sigma), device=flux.device)
        if tell_sigma is None:
            u = torch.rand(len(batch), generator=generator, device=flux.device, dtype=torch.float32)
            told = u > _UNKNOWN_SIGMA
        sigma = torch.where(told, with_.sigma / 100.0, torch.nan)
        context = torch.stack([with_.snr.log10(), sigma], 1).to(flux.dtype)
        return batch.with_(
            x=flux / scale, x_err=(err / scale).abs(), mask=with_.mask, context=context
        )


def _shape(config: SfhConfig, library: SspLibrary) -> Tensor | None:
    """Return the shape of the errors, median one, on the wavelengths."""
    path, wave = config.noise_shape, library.wave
    if path is None:
        return None
    table = _two_columns(path)
    if table is None:
        values = _errors_of_spectra(path, config, library)
    else:
        if (np.diff(table[:, 0]) <= 0).any() or (table[:, 1] <= 0).any():
            msg = f"noise_shape '{path}' needs increasing wavelengths and positive errors"
            raise ConfigError(msg)
        if table[0, 0] > wave[0] or table[-1, 0] < wave[-1]:
            msg = (
                f"noise_shape '{path}' covers {table[0, 0]:g}-{table[-1, 0]:g} Angstrom, the model "
                f"needs {wave[0]:g}-{wave[-1]:g}"
            )
            raise ConfigError(msg)
        values = np.interp(wave, table[:, 0], table[:, 1])
    return torch.as_tensor(values / np.median(values), dtype=torch.float32)


def _two_columns(path: str) -> F64 | None:
    """Return a table of wavelengths and errors; None for a file of another kind."""
    try:
        table = np.loadtxt(read_text(path).splitlines(), ndmin=2)
    except (ValueError, DataFileError):
        return None
    except OSError as error:
        msg = f"noise_shape '{path}' cannot be read: {error}"
        raise ConfigError(msg) from None
    return table if table.shape[1] == 2 else None


def _errors_of_spectra(path: str, config: SfhConfig, library: SspLibrary) -> F64:
    """Return the median error (L,) of the spectra of a file, each divided by its own median."""
    shapes = []
    try:
        for raw in read_raw(path):
            if isinstance(raw, UnusableSpectrumError):
                continue
            err = prepare(raw, library.wave, config, fwhm=library.fwhm).err
            shapes.append(err / np.nanmedian(err))
    except SbiError as error:
        msg = f"noise_shape '{path}' is no table of wavelengths and errors, nor of spectra: {error}"
        raise ConfigError(msg) from None
    if not shapes:
        msg = f"noise_shape '{path}' holds no spectrum with errors"
        raise ConfigError(msg)
    stacked = np.array(shapes)
    seen = np.isfinite(stacked).any(0)
    shape = np.nanmedian(stacked[:, seen], axis=0)
    return np.interp(library.wave, library.wave[seen], shape)
