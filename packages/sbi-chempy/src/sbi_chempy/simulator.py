"""The chempy simulator: six parameters to eight abundances, with the observation model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sbi_chempy.config import ChempyConfig
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.noise import (
    AGE_COLUMNS,
    add_noise,
    draw_errors,
    draw_mask,
    observe_ages,
    training_ages,
)
from sbi_chempy.parameters import FAILURES, observables, parameter_space
from sbi_chempy.readers import read_stars
from sbi_chempy.yields import YieldSet, YieldsNotFoundError, load_yields
from sbi_core import (
    Batch,
    ConfigError,
    DataFileError,
    Observations,
    Rng,
    Simulator,
    as_generator,
    data_dirs,
    torch_generator,
)

__all__ = ["EXAMPLE_TRUTH", "ChempySimulator"]

EXAMPLE_TRUTH = {"alpha_imf": -2.1, "log10_n_ia": -3.0}  # away from the prior mean on purpose
_T_BIRTH = 5


class ChempySimulator(Simulator):
    """One-zone chemical evolution of a galaxy.

    Parameters
    ----------
    config
        Options; default: embedded yields.

    Raises
    ------
    DataFileError
        If the yields are not there; the message gives the fetch command.
    ConfigError
        If the name of a yield set is unknown.

    References
    ----------
    Rybizki, Just & Rix 2017, A&A 605, A59; Philcox & Rybizki 2019, ApJ 887, 9;
    Buck et al. 2025, A&A 702, A184.
    """

    name = "chempy"
    version = "1"

    def __init__(self, config: ChempyConfig | None = None) -> None:
        self.config = config or ChempyConfig()
        self.parameters = parameter_space(self.config.log10_n_ia_mean)
        self.observables = observables()
        self.context_names = AGE_COLUMNS
        self.failures = FAILURES
        self.default_error = self.config.default_error
        self.yields = _yields(self.config.yields)
        self.engine = ChempyEngine(
            self.yields,
            cosmic_accretion=self.config.cosmic_accretion,
            clamp_low_z=self.config.clamp_low_z,
            smooth=self.config.smooth,
            dtype=getattr(torch, self.config.dtype),
            device=self.config.device,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, options that change the data, and the hash of the yields."""
        c = self.config
        return {
            "name": self.name,
            "version": self.version,
            "yields": self.yields.hash,
            "cosmic_accretion": c.cosmic_accretion,
            "clamp_low_z": c.clamp_low_z,
            "smooth": c.smooth,
            "dtype": c.dtype,
        }

    @property
    def citations(self) -> tuple[str, ...]:  # type: ignore[override]
        """The model and the yields in use."""
        model = (
            "Buck, Guenes, Viterbo, Oliver & Buder 2025, A&A 702, A184",
            "Philcox & Rybizki 2019, ApJ 887, 9",
            "Rybizki, Just & Rix 2017, A&A 605, A59 (Chempy)",
            "Asplund et al. 2009, ARA&A 47, 481 (solar abundances)",
        )
        y = self.yields
        return (*model, *dict.fromkeys((y.sn2.citation, y.agb.citation, y.sn1a.citation)))

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng = 0) -> Batch:
        """Return noise-free abundances (n, 8) [dex] for theta (n, 6); deterministic.

        Rows that fail have ``ok=False``, NaN in x and a reason code (see ``failures``).

        Raises
        ------
        ConfigError
            If theta does not have six columns or holds values that are not finite.
        """
        tensor = _theta(theta)
        abundances, status = self.engine(tensor.to(self.engine.device, self.engine.dtype))
        return Batch(
            theta=tensor.to(abundances.device),
            x=abundances,
            ok=status == 0,
            failure=status,
        )

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with noise, errors, missing elements and birth times (see noise)."""
        generator = torch_generator(rng, batch.x.device)
        if self.config.noise == "fixed":
            err = torch.full_like(batch.x, self.config.default_error)
            mask = torch.ones_like(batch.x, dtype=torch.bool)
            context = torch.zeros(len(batch), 3, dtype=batch.x.dtype, device=batch.x.device)
        else:
            err = draw_errors(batch.x, self.config.default_error, generator)
            mask = draw_mask(batch.x, generator)
            context = training_ages(self._t_birth(batch), generator)
        return add_noise(batch.with_(context=context), err, mask, generator)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch observed with errors, missing elements and ages as in ``like``."""
        gen = as_generator(rng)
        generator = torch_generator(gen, batch.x.device)
        donor = torch.as_tensor(gen.integers(len(like), size=len(batch)))
        mask = like.observed[donor]
        err = torch.full_like(batch.x, self.config.default_error)
        if like.x_err is not None:
            err = torch.where(mask, like.x_err[donor].to(err.dtype), err)
        context = torch.zeros(len(batch), 3, dtype=batch.x.dtype)
        if like.context is not None:
            there = like.context[donor].to(context.dtype)
            relative = there[:, 1] / there[:, 0].clamp_min(1e-3)  # errors grow with the time
            time = self._t_birth(batch)
            noise = torch.randn(len(batch), generator=generator, dtype=time.dtype)
            context = observe_ages(time, relative * time, there[:, 2] > 0, noise)
        return add_noise(batch.with_(context=context), err, mask, generator)

    def _t_birth(self, batch: Batch) -> Tensor:
        assert batch.theta is not None
        return batch.theta[:, _T_BIRTH].to(batch.x.dtype)

    def read_observations(self, path: str | Path) -> Observations:
        """Read stars from a table or npz file (see :mod:`sbi_chempy.readers`)."""
        return read_stars(
            path,
            self.observables,
            default_error=self.config.default_error,
            ages=self.config.ages,
        )

    def example_observations(self, rng: Rng, n: int = 1000) -> Observations:
        """Return n mock stars of a galaxy whose IMF and SN Ia rate differ from the prior mean.

        Truth: alpha_imf = -2.1, log10_n_ia = -3.0; local parameters from the prior; errors
        of ``default_error`` for all elements; no ages.
        """
        gen = as_generator(rng)
        theta = self.parameters.sample(int(np.ceil(1.1 * n)) + 10, gen)
        for name, value in EXAMPLE_TRUTH.items():
            theta[:, self.parameters.index([name])] = value
        stars = self.simulate(theta, gen).succeeded[:n]
        plain = Batch(x=torch.zeros(1, 8), x_err=torch.full((1, 8), self.config.default_error))
        return Observations.from_batch(
            self.observe_like(stars, plain, gen),
            id=[f"star-{k:04d}" for k in range(len(stars))],
            observables=self.observables,
            context_names=self.context_names,
            truth_names=self.parameters.names,
            source=f"{len(stars)} mock stars of chempy {self.version} (truth known)",
        )


def _theta(theta: ArrayLike | Tensor) -> Tensor:
    tensor = theta if isinstance(theta, Tensor) else torch.as_tensor(np.asarray(theta, float))
    if tensor.ndim != 2 or tensor.shape[1] != 6:
        msg = f"theta must have shape (n, 6), got {tuple(tensor.shape)}"
        raise ConfigError(msg)
    bad = torch.nonzero(~torch.isfinite(tensor))
    if len(bad):
        row, column = (int(v) for v in bad[0])
        name = parameter_space().names[column]
        msg = f"theta is not finite in row {row}, column '{name}'"
        raise ConfigError(msg)
    return tensor


def _yields(spec: str | dict[str, str]) -> YieldSet:
    """Load yields from the package, SBI_DATA_DIR or the cache."""
    directories = data_dirs()
    for k, directory in enumerate(directories):
        try:
            return load_yields(spec, directory)
        except YieldsNotFoundError as error:
            if k == len(directories) - 1:
                raise DataFileError(str(error)) from None
        except ValueError as error:
            raise ConfigError(str(error)) from None
    msg = "no data directory"
    raise DataFileError(msg)
