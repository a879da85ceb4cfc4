"""The chempy simulator: six parameters to eight abundances, with the observation model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_chempy.births import MANY, StarsByBirth
from sbi_chempy.config import ChempyConfig
from sbi_chempy.constants import FACTOR_CHANNELS
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.frame import OBSERVED, Frame
from sbi_chempy.noise import (
    AGE_COLUMNS,
    add_noise,
    age_errors_like,
    check_covariance,
    covariant_noise,
    draw_errors,
    draw_mask,
    observe_ages,
    training_ages,
)
from sbi_chempy.nuisances import collapsed, drawn_tables, factors_of, tables_of, yield_nuisances
from sbi_chempy.parameters import FAILURES, observables, parameter_space
from sbi_chempy.readers import npz_table, stars_of
from sbi_chempy.yields import YieldSet, YieldsNotFoundError, load_yields
from sbi_chempy.yields.embedded import load_embedded
from sbi_core import (
    Batch,
    ConfigError,
    DataFileError,
    ObservationError,
    Observations,
    Rng,
    Simulator,
    as_generator,
    data_dirs,
    read_npz,
    torch_generator,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["EXAMPLE_TRUTH", "ChempySimulator"]

_LOG = logging.getLogger(__name__)
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
    input_help = """
        A table (ECSV, CSV, FITS, VOTable, HDF5, Parquet) or npz file, one row per star, with
        names as catalogues write them ([Mg/Fe], __Mg_Fe_, MG_FE, mgfe):
        fe_h, mg_fe, ...      [Fe/H] and [X/Fe], or mg_h, ... for [X/H], dex; one element is enough
        e_fe_h, e_mg_fe, ...  their standard deviations, dex
        t_birth or age        time of birth since the Big Bang, or age, Gyr (optional); age_myr,
                              age_yr, log_age
        e_t_birth or e_age    its standard deviation, Gyr
        id, group             identifier; stars of one group share the global parameters
    """

    def __init__(self, config: ChempyConfig | None = None) -> None:
        self.config = config or ChempyConfig()
        self.frame = Frame(self.config.elements or OBSERVED, self.config.reference)
        self.parameters = parameter_space(self.config.log10_n_ia_mean)
        self.observables = observables(self.frame)
        self.context_names = AGE_COLUMNS
        self.failures = FAILURES
        self.default_error = self.config.default_error
        self.nuisances = yield_nuisances(self.config.without_yields)
        self.population = {"t_birth": (1.2, 0.7)}  # births: the least known distribution
        self.zero_point = self.config.zero_point
        self.selected_by = tuple(n for n in self.frame.names if n == "fe_h")
        self.covariance = self._covariance()
        self.order_matters = self.covariance is not None and self.covariance.ndim == 3
        self._last_stars: tuple[Tensor, StarsByBirth] | None = None
        self.yields = _yields(self.config.yields, self.config.yield_directory)
        _check_carried(self.yields, self.frame, chosen=self.config.elements is not None)
        self.engine = self._engine(self.yields)

    def _engine(self, yields: YieldSet) -> ChempyEngine:
        return ChempyEngine(
            yields,
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
            "observed": list(self.frame.names),
        }

    @property
    def citations(self) -> tuple[str, ...]:  # type: ignore[override]
        """The model and the yields in use."""
        model = (
            "Buck, Günes, Viterbo, Oliver & Buder 2025, A&A 702, A184",
            "Philcox & Rybizki 2019, ApJ 887, 9",
            "Rybizki, Just & Rix 2017, A&A 605, A59 (Chempy)",
            "Asplund et al. 2009, ARA&A 47, 481 (solar abundances)",
        )
        y = self.yields
        return (*model, *dict.fromkeys((y.sn2.citation, y.agb.citation, y.sn1a.citation)))

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng = 0) -> Batch:
        """Return noise-free abundances (n, k) [dex] for theta (n, 6); deterministic.

        k is 8, or the number of ``elements``. Rows that fail have ``ok=False``, NaN in x and a
        reason code (see ``failures``).

        Raises
        ------
        ConfigError
            If theta does not have six columns or holds values that are not finite; with the
            option ``strict``, also if a value is outside the physical range.
        """
        return self._run(self.engine, theta)

    def simulate_nuisances(
        self, theta: ArrayLike | Tensor, nuisances: Mapping[str, NDArray[np.float64]], rng: Rng = 0
    ) -> Batch:
        """Return noise-free abundances for theta (n, 6) and other yields in each row.

        Parameters
        ----------
        theta
            As in :meth:`simulate`.
        nuisances
            Rows of the spaces in ``nuisances`` (see :mod:`sbi_chempy.nuisances`).
        rng
            Not used.
        """
        tables, factors = tables_of(nuisances), torch.as_tensor(factors_of(nuisances))
        theta = torch.as_tensor(np.asarray(theta, np.float64))
        sets, number = np.unique(tables, axis=0, return_inverse=True)
        parts, rows = [], []
        for k, chosen in enumerate(sets):
            own = torch.as_tensor(np.flatnonzero(number.reshape(-1) == k))
            parts.append(self._run(self._other_engine(chosen), theta[own], factors[own]))
            rows.append(own)
        back = torch.argsort(torch.cat(rows))
        return Batch.cat(parts).with_(split_key=None)[back]

    def _other_engine(self, chosen: NDArray[np.float64]) -> ChempyEngine:
        """Return the engine for tables and limit of collapse, (4,) of ``tables_of``."""
        known = drawn_tables(self.config.without_yields)
        tables: dict[str, Any] = {
            channel: load_embedded(channel, known[channel][int(k)])
            if k >= 0
            else getattr(self.yields, channel)
            for channel, k in zip(FACTOR_CHANNELS, chosen[:3], strict=True)
        }
        tables["sn2"] = collapsed(tables["sn2"], float(chosen[3]))
        return self._engine(YieldSet(**tables))

    def _run(
        self, engine: ChempyEngine, theta: ArrayLike | Tensor, factors: Tensor | None = None
    ) -> Batch:
        tensor = _theta(theta)
        rows = tensor.to(engine.device, engine.dtype)
        try:
            abundances, status = engine(rows, factors, strict=self.config.strict)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return Batch(
            theta=tensor.to(abundances.device),
            x=self.frame.observed(abundances),
            ok=status == 0,
            failure=status,
        )

    def observe(self, batch: Batch, rng: Rng, *, x_cov: ArrayLike | None = None) -> Batch:
        """Return the batch with noise, errors, missing elements and birth times (see noise).

        Parameters
        ----------
        batch
            Noise-free abundances.
        rng
            Where randomness comes from.
        x_cov
            Covariance of the noise [dex^2], (k, k) or one per row (n, k, k); replaces the option
            ``covariance``. Errors of the result are the roots of its diagonal.
        """
        generator = torch_generator(rng, batch.x.device)
        fixed = self.config.noise == "fixed"
        covariance = self._rows_covariance(batch, x_cov, generator)
        if covariance is not None:
            err = covariance.diagonal(dim1=-2, dim2=-1).sqrt().to(batch.x).expand_as(batch.x)
        elif fixed:
            err = torch.full_like(self._engine_like(batch), self.config.default_error)
            err = self.frame.errors(err)
        else:
            err = draw_errors(self._engine_like(batch), self.config.default_error, generator)
            err = self.frame.errors(err)
        if fixed:
            mask = torch.ones_like(batch.x, dtype=torch.bool)
            context = torch.zeros(len(batch), 3, dtype=batch.x.dtype, device=batch.x.device)
        else:
            mask = draw_mask(batch.x, generator)
            context = training_ages(self._t_birth(batch), generator)
        if covariance is not None:
            noise = covariant_noise(covariance, generator, batch.x)
        else:
            noise = self.frame.noise(err, mask, generator)
        return add_noise(batch.with_(context=context), err, mask, generator, noise)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch observed with errors, missing elements and ages as in ``like``.

        Errors and missing values are those of a random star of ``like``. If a hundred stars or more
        have birth times, it is one that may have the simulated time, and its observed time is
        taken, too (see :mod:`sbi_chempy.births`); otherwise errors of birth times are those of
        stars with similar ones (see :func:`~sbi_chempy.noise.age_errors_like`).
        With the option ``covariance``, noise has its correlations and the errors of ``like``; a
        file with one covariance per star of ``like`` gives every star its own.
        """
        gen = as_generator(rng)
        generator = torch_generator(gen, batch.x.device)
        donor = torch.as_tensor(gen.integers(len(like), size=len(batch)))
        context = torch.zeros(len(batch), 3, dtype=batch.x.dtype)
        if like.context is not None and bool((like.context[:, 2] > 0).any()):
            time, ages = self._t_birth(batch), like.context.to(context)
            fits = torch.zeros(len(batch), dtype=torch.bool)
            if int((ages[:, 2] > 0).sum()) >= MANY:
                real, fits = self._stars(like.context).draw(time, generator)
                donor = torch.where(fits, real, donor)
            noise = torch.randn(len(batch), generator=generator, dtype=time.dtype)
            error = age_errors_like(time, ages.to(time), generator)
            other = observe_ages(time, error, ages[donor, 2] > 0, noise)
            context = torch.where(fits[:, None], ages[donor], other.to(ages))
        mask = like.observed[donor]
        plain = torch.full_like(self._engine_like(batch), self.config.default_error)
        err = self.frame.errors(plain)
        if like.x_err is not None:
            err = torch.where(mask, like.x_err[donor].to(err.dtype), err)
        if self.covariance is None:
            noise = self.frame.noise(err, mask, generator)
        else:
            own = self.covariance.ndim == 3 and len(self.covariance) == len(like)
            rows = self.covariance[donor] if own else self._rows_covariance(batch, None, generator)
            assert rows is not None
            root = rows.diagonal(dim1=-2, dim2=-1).sqrt().to(batch.x)
            noise = err / root * covariant_noise(rows, generator, batch.x)
        return add_noise(batch.with_(context=context), err, mask, generator, noise)

    def _stars(self, context: Tensor) -> StarsByBirth:
        """Return the real stars by birth time; those of the last table are kept."""
        kept = self._last_stars
        if kept is None or kept[0] is not context:
            prior = self.parameters["t_birth"].prior
            self._last_stars = kept = (context, StarsByBirth.of(context.cpu(), prior))
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed again."""
        return {**self.__dict__, "_last_stars": None}

    def _engine_like(self, batch: Batch) -> Tensor:
        """Return an array of the engine's eight columns, with the precision of the batch."""
        return batch.x if self.frame.is_engine else batch.x.new_zeros(len(batch), len(OBSERVED))

    def _covariance(self) -> Tensor | None:
        spec = self.config.covariance
        if spec is None:
            return None
        try:
            given = read_npz(spec)[""] if isinstance(spec, str) else spec
            return check_covariance(given, self.frame.names)
        except ValueError as error:
            where = f"covariance file '{spec}': " if isinstance(spec, str) else "simulator: "
            raise ConfigError(f"{where}{error}") from None

    def _rows_covariance(
        self, batch: Batch, x_cov: ArrayLike | None, generator: torch.Generator
    ) -> Tensor | None:
        """Covariance of every row, (k, k) or (n, k, k), or None for independent errors."""
        if x_cov is not None:
            try:
                given = check_covariance(x_cov, self.frame.names)
            except ValueError as error:
                raise ObservationError(f"x_cov: {error}") from None
            if given.ndim == 3 and len(given) != len(batch):
                msg = f"x_cov has {len(given)} matrices for {len(batch)} rows"
                raise ObservationError(msg)
            return given.to(batch.x.device)
        if self.covariance is None or self.covariance.ndim == 2:
            return None if self.covariance is None else self.covariance.to(batch.x.device)
        shape = (len(batch),)
        star = torch.randint(
            len(self.covariance), shape, generator=generator, device=batch.x.device
        )
        return self.covariance.to(batch.x.device)[star]

    def log_likelihood(self, simulated: Batch, observed: Batch) -> NDArray[np.float64]:
        """Return log p(observed | simulated) row by row: abundances and birth times, Gaussian.

        Raises
        ------
        ConfigError
            If abundance errors are correlated (a covariance, or another reference than Fe).
        """
        if self.covariance is not None or self.config.reference != "Fe":
            msg = "the likelihood of abundances with correlated errors is not available"
            raise ConfigError(msg)
        value = super().log_likelihood(simulated, observed)
        if observed.context is None:
            return value
        t_obs, error, there = observed.context.double().unbind(1)
        time = self._t_birth(simulated).double()
        off = torch.where(there > 0, (t_obs - time) / error.clamp_min(1e-3), torch.zeros_like(time))
        return value - 0.5 * off.square().cpu().numpy()

    def _t_birth(self, batch: Batch) -> Tensor:
        assert batch.theta is not None
        return batch.theta[:, _T_BIRTH].to(batch.x.dtype)

    def observations_of(self, table: Table, source: str) -> Observations:
        """Return the stars of a table (see :mod:`sbi_chempy.readers`)."""
        return stars_of(
            table,
            source,
            self.observables,
            default_error=self.config.default_error,
            ages=self.config.ages,
            survey=self.config.survey,
            bare_columns=self.config.bare_columns,
            absolute=self.config.absolute,
        )

    def read_table(self, path: str | Path) -> Table:
        """Return the table of a file; npz in the layout of the TNG mocks is one, too."""
        return npz_table(path) if Path(path).suffix == ".npz" else super().read_table(path)

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
        error = self.frame.errors(torch.full((1, len(OBSERVED)), self.config.default_error))
        plain = Batch(x=torch.zeros_like(error), x_err=error)
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


def _yields(spec: str | dict[str, str], directory: str | None = None) -> YieldSet:
    """Load yields from the package, a directory of the user, SBI_DATA_DIR or the cache."""
    folders = [None] if directory else data_dirs()
    for k, folder in enumerate(folders):
        try:
            return load_yields(spec, folder, yield_directory=directory)
        except YieldsNotFoundError as error:
            if k == len(folders) - 1:
                raise DataFileError(str(error)) from None
        except FileNotFoundError as error:
            raise DataFileError(str(error)) from None
        except ValueError as error:
            raise ConfigError(str(error)) from None
    msg = "no data directory"
    raise DataFileError(msg)


def _check_carried(yields: YieldSet, frame: Frame, *, chosen: bool) -> None:
    """Refuse chosen elements that a table of the set lacks; warn of those in the default list."""
    for table in (yields.sn2, yields.agb):
        lost = [e for e in frame.needs if e in table.absent]
        if not lost:
            continue
        which = ", ".join(lost)
        have = ", ".join(e for e in OBSERVED if e not in table.absent)
        if chosen:
            needed = "" if set(lost) & set(frame.elements) else " (needed as the reference)"
            msg = (
                f"{table.channel} yields '{table.name}' do not carry {which}{needed}; they have "
                f"{have}: choose elements and reference among them, or other {table.channel} yields"
            )
            raise ConfigError(msg)
        _LOG.warning(
            "%s yields '%s' do not carry %s: these stars return what they contained at birth",
            table.channel, table.name, which,
        )  # fmt: skip
