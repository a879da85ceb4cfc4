"""The simulator ``sfh``: galaxy spectra from star formation histories and metallicities."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core import (
    Batch,
    ConfigError,
    Observable,
    Observations,
    Parameter,
    ParameterSpace,
    Prior,
    Rng,
    Simulator,
    as_generator,
    torch_generator,
)
from sbi_sfh.alpha import check_alpha
from sbi_sfh.config import SfhConfig
from sbi_sfh.continuum import Continuum
from sbi_sfh.formats import read_raw
from sbi_sfh.formats.spectrum import Spectrum
from sbi_sfh.formats.tables import spectra_of_table
from sbi_sfh.histories import fractions_of, history_spec
from sbi_sfh.libraries import load_library
from sbi_sfh.noise import CONTEXT, Nuisances, Telescope
from sbi_sfh.percentiles import names_of
from sbi_sfh.populations import Synthesis, mh_bins
from sbi_sfh.readers import observations_of_spectra, only_complete
from sbi_sfh.recover import Recovery
from sbi_sfh.summaries import block_summaries, relative_errors
from sbi_sfh.velocity import Velocities

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["SfhSimulator", "parameter_space"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
FAILURES = {0: "ok", 1: "no star formation history (no mass, not finite, or begins too late)"}
_CITATIONS = (
    "Iglesias-Navarro, Huertas-Company, Martin-Navarro, Knapen & Pernet 2024, A&A 689, A58",
    "Iyer et al. 2019, ApJ 879, 116",
)
_SUMMARY_PIXELS = 25  # pixels per block of the summaries


def parameter_space(
    config: SfhConfig, mh: tuple[float, float], afe: tuple[float, float]
) -> ParameterSpace:
    """Return percentiles, [M/H] and, with option ``afe``, [alpha/Fe] with their priors.

    Parameters
    ----------
    config
        Options.
    mh, afe
        Ends of the library's grid.
    """
    fractions = fractions_of(config)
    spec = history_spec(config)
    times = [
        Parameter(
            name,
            Prior("implicit", {"sampler": "sfh", "spec": spec, "low": 0.0, "high": config.t_end}),
            label=f"t_{{{100 * q:g}}}",
            unit="Gyr",
            description=f"cosmic time by which {100 * q:g} % of the stars had formed",
        )
        for name, q in zip(names_of(fractions), fractions, strict=True)
    ]
    rest = [_range("mh", mh, config, "[M/H]", "metallicity", mh_bins(config))]
    if config.afe:
        bins = np.array([0.0, 0.2, 0.4])
        rest.append(_range("afe", afe, config, r"[\alpha/\mathrm{Fe}]", "alpha enhancement", bins))
    return ParameterSpace((*times, *rest))


def _range(
    name: str, ends: tuple[float, float], config: SfhConfig, label: str, what: str, bins: F64
) -> Parameter:
    values: dict[str, Any] = {"low": float(ends[0]), "high": float(ends[1])}
    if config.grid == "readme":
        kept = [float(v) for v in np.clip(bins, *ends)]
        prior = Prior("implicit", {"sampler": "sfh", "spec": {"bins": kept}, **values})
    else:
        prior = Prior("uniform", values)
    return Parameter(name, prior, label=label, unit="", description=what)


_FEW = 2000  # histories of a bank that only starts a fit


class SfhSimulator(Simulator):
    """Galaxy spectra from star formation histories.

    ``draw`` stores coefficients of noise-free spectra (a hundredth of their size); ``observe``
    turns them into spectra with fresh noise.

    Parameters
    ----------
    config
        Options; default: embedded SSPs, a mixture of histories, S/N 100 per pixel.

    Raises
    ------
    LibraryError
        If the SSP library cannot be used.
    ConfigError
        If it does not cover the wavelength range.
    """

    name = "sfh"
    version = "1"
    input_help = """
        One file per spectrum, a folder of them, one galaxy per row, or a cube (text, FITS, tables,
        npz, HDF5; names and conventions of surveys are known):
        WAVE or LOGLAM       wavelength, with its unit; in air or vacuum (VACUUM)
        FLUX, IVAR or ERR    flux density and its inverse variance or standard deviation
        MASK, SRES           bad pixels, resolution (optional)
        REDSHIFT             of the galaxy, or --set simulator.default_redshift=Z
        other names, units   --column wave=LAMBDA, --unit wave=nm
    """
    failures = FAILURES
    rows_are_objects = False  # a table may be one spectrum
    columns_by_itself = True

    def __init__(self, config: SfhConfig | None = None) -> None:
        self.config = config or SfhConfig()
        self.library = load_library(self.config)
        self.synthesis = Synthesis(self.library, self.config)
        self.telescope = Telescope(self.library, self.config)
        mh, afe = self.library.mh, self.library.afe
        self.parameters = parameter_space(self.config, (mh[0], mh[-1]), (afe[0], afe[-1]))
        self.observables: tuple[Observable, ...] = ()
        self.context_names = CONTEXT if self.telescope.observed_mode else ()
        self._warn()

    def _warn(self) -> None:
        if self.library.synthetic:
            _LOG.warning(
                "library '%s' is synthetic (made up for tests): results mean nothing for galaxies",
                self.library.name,
            )
        if len(self.library.afe) > 1:
            for problem in check_alpha(self.library).problems:
                _LOG.warning("library '%s': %s", self.library.name, problem)
        if self.config.grid == "readme":
            bins = mh_bins(self.config)
            out = bins[(bins < self.library.mh[0]) | (bins > self.library.mh[-1])]
            if len(out):
                _LOG.warning(
                    "[M/H] bins %s lie outside of the library and are clamped to %.2f-%.2f",
                    np.round(out, 3).tolist(), self.library.mh[0], self.library.mh[-1],
                )  # fmt: skip

    @property
    def wave(self) -> F64:
        """Wavelengths of the pixels, air, rest frame, Angstrom, (L,)."""
        return self.library.wave

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, library and all options that change simulations or noise."""
        c = self.config.of_training
        for key in ("library", "time"):
            c.pop(key, None)
        return {"name": self.name, "version": self.version, "library": self.library.hash, **c}

    @property
    def citations(self) -> tuple[str, ...]:  # type: ignore[override]
        """The method, the histories and the library in use."""
        return (*_CITATIONS, *map(str, self.library.meta.get("citations", ())))

    # -- simulations ---------------------------------------------------------------------------

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n rows of theta (n, d) with coefficients of their spectra in ``x`` (n, K)."""
        gen = as_generator(rng)
        drawn = self.synthesis.draw(n, gen)
        theta = [drawn.histories.percentiles[drawn.history], drawn.mh[:, None]]
        if self.config.afe:
            theta.append(drawn.afe[:, None])
        keys = gen.integers(0, 2**62, size=len(drawn.histories.ok))[drawn.history]
        x = np.where(drawn.ok[:, None], drawn.coefficients, np.nan)
        return Batch.of_arrays(
            theta=np.concatenate(theta, axis=1).astype(np.float32),
            x=x.astype(np.float32),
            ok=drawn.ok,
            failure=np.where(drawn.ok, 0, 1),
            split_key=keys,
        )

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng = 0) -> Batch:
        """Return coefficients (n, K) for theta (n, d): of the nearest history of a prior bank.

        Percentiles do not fix a history; see :mod:`sbi_sfh.recover`. No randomness.

        Raises
        ------
        ConfigError
            If theta does not have a column per parameter, or is not finite.
        """
        values = theta.detach().cpu().numpy() if isinstance(theta, Tensor) else np.asarray(theta)
        values = values.astype(np.float64)
        if values.ndim != 2 or values.shape[1] != self.parameters.dim:
            msg = f"theta must have shape (n, {self.parameters.dim}), got {values.shape}"
            raise ConfigError(msg)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            msg = f"theta is not finite in row {row}, column '{self.parameters.names[column]}'"
            raise ConfigError(msg)
        coefficients = self.recovery.coefficients(values)
        return Batch.of_arrays(theta=values, x=coefficients.astype(np.float32))

    @cached_property
    def recovery(self) -> Recovery:
        """Spectra of percentiles, by the nearest history of a bank."""
        return Recovery(self.synthesis)

    @cached_property
    def first_guess(self) -> Recovery:
        """The same with a small bank, where a spectrum decides on the history afterwards."""
        return Recovery(self.synthesis, size=_FEW)

    # -- noise ---------------------------------------------------------------------------------

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return median-normalised spectra (n, L) with fresh noise; see :mod:`sbi_sfh.noise`."""
        return self.telescope.observe(batch, rng)

    def pixel_noise(self, batch: Batch) -> tuple[Tensor, Tensor | None] | None:
        """Return noise-free spectra and their errors, (n, L) each, if observing only adds noise.

        Errors are None without noise. None in mode ``observed``, which varies more than noise.
        """
        return None if self.telescope.observed_mode else self.telescope.pixel_noise(batch)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return spectra with the errors, masks and context of random rows of ``like``."""
        gen = as_generator(rng)
        donor = torch.as_tensor(gen.integers(len(like), size=len(batch)))
        generator = torch_generator(gen, batch.x.device)
        if not self.telescope.observed_mode:
            flux = self.telescope.noise_free(batch.x)
            if like.x_err is None:
                return batch.with_(x=flux)
            err = torch.where(like.observed, like.x_err, 1.0)[donor].to(flux)
            noise = torch.randn(
                flux.shape, generator=generator, device=flux.device, dtype=torch.float32
            )
            mask = None if like.mask is None else like.mask[donor]
            return batch.with_(x=flux + err * noise, x_err=err, mask=mask)
        drawn = self.telescope.draw(len(batch), generator)
        snr, sigma = drawn.snr, drawn.sigma
        told = False
        if like.context is not None:
            context = like.context[donor].to(snr)
            snr = 10.0 ** context[:, 0]
            known = torch.isfinite(context[:, 1])
            sigma = torch.where(known, 100.0 * context[:, 1], sigma)
            told = bool(known.all())
        mask = drawn.mask if like.mask is None else like.mask[donor]
        rows = Nuisances(snr, sigma, drawn.velocity, drawn.polynomial, mask, drawn.ebv)
        errors = (
            None if like.x_err is None else relative_errors(like, _SUMMARY_PIXELS)[donor].to(snr)
        )
        return self.telescope.observe_as(
            batch, rows, generator, tell_sigma=told, relative_errors=errors
        )

    def log_likelihood(self, simulated: Batch, observed: Batch) -> F64:
        """Return log p(observed | simulated) row by row, (n,): mode ``mock`` only.

        Raises
        ------
        ConfigError
            In mode ``observed``, whose nuisances have no closed form.
        """
        if self.telescope.observed_mode:
            msg = (
                "mode 'observed' has no likelihood in closed form: velocity dispersion, "
                "calibration and masks vary"
            )
            raise ConfigError(msg)
        return super().log_likelihood(
            simulated.with_(x=self.telescope.noise_free(simulated.x)), observed
        )

    def summaries(self, batch: Batch) -> Batch:
        """Return means of 25 pixels each over a running continuum, (n, L/25), with errors.

        The support score uses them in place of spectra, and compares them with simulations of
        similar errors. Blocks without a used pixel are 1, the value of the continuum.
        """
        return block_summaries(batch, _SUMMARY_PIXELS)

    # -- observations --------------------------------------------------------------------------

    @cached_property
    def velocities(self) -> Velocities:
        """Templates for the velocity of observed spectra."""
        return Velocities(self.library)

    @cached_property
    def continuum(self) -> Continuum:
        """Populations for the continuum of observed spectra."""
        return Continuum(self.library)

    def read_observations(self, path: str | Path) -> Observations:
        """Return the galaxies of a file or folder (see :mod:`sbi_sfh.formats`)."""
        return self.prepared(read_raw(path), str(path))

    def observations_of(self, table: Table, source: str) -> Observations:
        """Return the galaxies of a table: one, or one per row where cells hold arrays."""
        return self.prepared(spectra_of_table(table, source), source)

    def prepared(self, spectra: Iterable[Spectrum], source: str) -> Observations:
        """Return spectra as files have them, on the pixels of the model."""
        observations = observations_of_spectra(
            spectra, source, self.wave, self.config, fwhm=self.library.fwhm,
            velocities=self.velocities, continuum=self.continuum,
        )  # fmt: skip
        return observations if self.telescope.observed_mode else only_complete(observations)

    def example_observations(self, rng: Rng, n: int = 20) -> Observations:
        """Return n mock galaxies with known truth, observed as in training."""
        gen = as_generator(rng)
        batch = self.draw(n + 10, gen).succeeded[slice(0, n)]
        observed = self.observe(batch, gen)
        synthetic = " on a synthetic library" if self.library.synthetic else ""
        return Observations.from_batch(
            observed.with_(split_key=None),
            id=[f"mock-{k:03d}" for k in range(n)],
            context_names=self.context_names,
            truth_names=self.parameters.names,
            source=f"{n} mock galaxies of sfh {self.version}{synthetic} (truth known)",
        )
