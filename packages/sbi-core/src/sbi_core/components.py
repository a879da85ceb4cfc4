r"""The four contracts: simulator, embedding, estimator, combiner.

A simulator is :math:`x \sim p(x\,|\,\theta)` in two steps: ``simulate`` (expensive,
noise-free, stored) and ``observe`` (cheap, noise and masks, drawn afresh every epoch). An
estimator is :math:`q(\theta\,|\,x)`. A combiner turns N single-object posteriors into

.. math:: p(\Lambda\,|\,x_1 .. x_N) \propto p(\Lambda)^{1-N} \prod_i p(\Lambda\,|\,x_i).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import read_table
from sbi_core.data.observations import Observable, Observations, holds_arrays
from sbi_core.data.tables import ColumnReader, checked, observations_from_columns
from sbi_core.errors import (
    ConfigError,
    DensityUnavailableError,
    ObservationError,
    PluginError,
    SimulationError,
)
from sbi_core.priors.space import ParameterSpace
from sbi_core.progress import Progress
from sbi_core.rng import as_generator, torch_generator

if TYPE_CHECKING:
    from astropy.table import Table

    from sbi_core.posterior import CombinedPosterior, Posterior
    from sbi_core.registry import Registry

__all__ = [
    "Callback",
    "Combiner",
    "Embedding",
    "Estimator",
    "InputShape",
    "Rng",
    "RowSource",
    "Simulator",
    "Training",
    "TrainingRecord",
    "simulate_handler",
]

Rng = np.random.Generator | torch.Generator | int
# what runs call in place of ``simulate``, to find the rows that fail: handler(method, self, theta,
# rng), where method is the one that was written
simulate_handler: ContextVar[Callable[..., Batch] | None] = ContextVar(
    "simulate_handler", default=None
)


def _handled(method: Callable[..., Batch]) -> Callable[..., Batch]:
    """Return the method ``simulate``, which goes through the handler where there is one."""

    @wraps(method)
    def simulate(self: Simulator, theta: ArrayLike | Tensor, *args: Any, **options: Any) -> Batch:
        handler = simulate_handler.get()
        if not args and options.keys() == {"rng"}:
            args, options = (options["rng"],), {}
        if handler is None or options or len(args) != 1:
            return method(self, theta, *args, **options)
        return handler(method, self, theta, *args)

    return simulate


def _named(method: Callable[..., Batch]) -> Callable[..., Batch]:
    """Return a method whose SimulationErrors, of a Batch say, name the simulator and the method."""

    @wraps(method)
    def named(self: Simulator, *args: Any, **options: Any) -> Batch:
        try:
            return method(self, *args, **options)
        except SimulationError as error:
            if str(error).startswith("simulator '"):
                raise
            msg = f"simulator '{self.name}': {method.__name__}: {error}"
            raise SimulationError(msg) from error

    return named


class Simulator(ABC):
    """A forward model; subclasses write ``simulate``, the rest is optional.

    Attributes
    ----------
    name, version
        Recorded with every simulation.
    parameters
        The :class:`~sbi_core.ParameterSpace` (names, units, scopes, priors).
    observables
        Names and units of the columns of ``x``; empty for images and spectra.
    context_names
        Names of the columns of ``context`` after ``observe``.
    failures
        Reason codes of failed rows with their meaning.
    citations
        References to cite.
    nuisances
        Families of parameters of scope ``nuisance`` by name: what the model assumes and may be
        wrong, the same for all objects of a group; drawn once per group and marginalised by rules
        such as ``group-moments`` (see ``simulate_nuisances``).
    population
        Standard deviations of shift and logarithmic width of the distribution of local parameters
        in a group, in unconstrained space, by name; (0.3, 0.2) for those that are not listed.
    zero_point
        Standard deviation of a shift of each observable that all objects share, in its unit; 0:
        none.
    selected_by
        Observables by a range of which the objects of a group are often chosen.
    default_error
        One standard deviation used where data come without errors.
    input_help
        Columns and formats of files of observations, for ``sbi-run show``; default: a column per
        observable.
    rows_are_objects
        True if a row of a table is an object, so that long tables can be read in parts.
    groups_differ
        True if groups of objects with equal shared parameters differ, because each is a draw of
        something else that its objects have in common.
    order_matters
        True if ``observe_like`` has more about the observed objects than it is given, by their
        number, such as a covariance of each; they are then not sorted.
    fixed_set
        True if there is no simulator but a fixed set of simulations, which ``stored_rows`` returns.
    columns_by_itself
        True if ``read_observations`` and ``observations_of`` apply the options ``--column`` and
        ``--unit`` (:func:`sbi_core.chosen_columns`, :func:`sbi_core.chosen_units`), because files
        are more than tables.
    """

    name: str
    version: str
    parameters: ParameterSpace
    observables: tuple[Observable, ...] = ()
    rows_are_objects: ClassVar[bool] = True
    groups_differ: ClassVar[bool] = False
    columns_by_itself: ClassVar[bool] = False
    fixed_set: ClassVar[bool] = False
    context_names: tuple[str, ...] = ()
    failures: Mapping[int, str] = {0: "ok"}
    citations: tuple[str, ...] = ()
    nuisances: Mapping[str, ParameterSpace] = {}
    population: Mapping[str, tuple[float, float]] = {}
    zero_point: float = 0.0
    selected_by: tuple[str, ...] = ()
    order_matters: bool = False
    default_error: float | None = None
    input_help: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        moved = {"diagnose": "check", "examine": "describe and report"}
        for old in set(moved) & set(cls.__dict__):
            msg = (
                f"{cls.__name__}.{old}: simulators no longer analyse results; write a subclass of "
                f"sbi_core.Analysis with {moved[old]}, register it with the hook "
                'register_analyses, and name it in the pipeline: analysis = { name = "..." }'
            )
            raise PluginError(msg)
        if isinstance(vars(cls).get("simulate"), FunctionType):
            cls.simulate = _handled(vars(cls)["simulate"])  # type: ignore[method-assign]
        for name in ("draw", "observe", "observe_like"):
            if isinstance(vars(cls).get(name), FunctionType):
                setattr(cls, name, _named(vars(cls)[name]))

    @abstractmethod
    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return noise-free data for theta (n, d), failed rows with ``ok=False``."""

    def simulate_nuisances(
        self,
        theta: ArrayLike | Tensor,
        nuisances: Mapping[str, NDArray[np.float64]],
        rng: Rng,
    ) -> Batch:
        """Return noise-free data for theta (n, d) and nuisance parameters.

        Simulators with ``nuisances`` write it.

        Parameters
        ----------
        theta
            Parameters, (n, d).
        nuisances
            Parameters (n, k) of every family, one row per row of theta; NaN in all columns of a
            row: nominal values, as in ``simulate``.
        rng
            Where randomness comes from.
        """
        msg = f"simulator '{self.name}' has nuisance parameters, but no simulate_nuisances"
        raise PluginError(msg)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n rows of theta from the prior with their noise-free data."""
        gen = as_generator(rng)
        return self.simulate(self.parameters.sample(n, gen), gen)

    def stored_rows(self, start: int, stop: int) -> Batch:
        """Return simulations start .. stop of a fixed set, with noise-free data.

        Simulators with ``fixed_set`` write it.
        """
        msg = f"simulator '{self.name}' has fixed_set = True, but no stored_rows"
        raise PluginError(msg)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with noise, errors and masks; fresh at every call.

        Default: Gaussian noise of ``default_error``; no noise when that is None.
        """
        if self.default_error is None:
            return batch
        gen = torch_generator(rng, batch.x.device)
        noise = torch.randn(
            batch.x.shape, generator=gen, device=batch.x.device, dtype=torch.float32
        )
        err = torch.full_like(batch.x, self.default_error)
        return batch.with_(x=batch.x + err * noise.to(batch.x.dtype), x_err=err)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch observed with errors and missing values as in ``like``.

        Used to calibrate combinations for given data: every row takes the errors and mask of a
        random row of ``like``; what is missing in the batch stays missing. Default: Gaussian noise;
        override it for other noise or context.
        """
        if like.x_err is None or like.context is not None:
            return self.observe(batch, rng)
        gen = as_generator(rng)
        donor = torch.as_tensor(gen.integers(len(like), size=len(batch)))
        mask = like.observed[donor].to(batch.x.device) & batch.observed
        err = torch.where(mask, like.x_err[donor].to(batch.x), torch.ones_like(batch.x))
        noise = torch.randn(batch.x.shape, generator=torch_generator(gen), dtype=torch.float32).to(
            batch.x
        )
        x = torch.where(mask, batch.x + err * noise, torch.nan)
        err = torch.where(mask, err, torch.nan)
        complete = like.mask is None and batch.mask is None
        return batch.with_(x=x, x_err=err, mask=None if complete else mask)

    def log_likelihood(self, simulated: Batch, observed: Batch) -> NDArray[np.float64]:
        """Return log p(observed | simulated) row by row, (n,), up to a constant per object.

        ``simulated`` is noise-free, with theta; missing values do not contribute. Default:
        Gaussian errors; override it for other noise or context.

        Raises
        ------
        ObservationError
            If the objects come without errors.
        """
        if observed.x_err is None:
            msg = f"objects without errors have no likelihood under simulator '{self.name}'"
            raise ObservationError(msg)
        mask = observed.observed
        off = (observed.x - simulated.x.to(observed.x.device)) / observed.x_err
        chi2 = torch.where(mask, off, torch.zeros_like(off)).double().square()
        return np.asarray(-0.5 * chi2.flatten(1).sum(1).cpu().numpy())

    def observations_of(self, table: Table, source: str) -> Observations:
        """Return the objects of a table in memory; the default takes a column per observable.

        Rows that cannot be inferred are listed in ``excluded``, with a reason. Long tables are
        handed over in parts, unless ``rows_are_objects`` is False.

        Parameters
        ----------
        table
            One row per object (see ``rows_are_objects``).
        source
            Its name for messages.
        """
        reader = ColumnReader(table, source)
        return observations_from_columns(reader, self.observables, default_error=self.default_error)

    def read_observations(self, path: str | Path) -> Observations:
        """Return the objects of a file; the default reads a table or the layout of npz and HDF5.

        Override it only where a file is more than a table, e.g. a folder of spectra.

        Raises
        ------
        DataFileError
            If the file cannot be read.
        ObservationError
            If it holds no object that can be inferred.
        """
        if holds_arrays(path):
            return Observations.read(path)
        return checked(self.observations_of(self.read_table(path), str(path)))

    def read_table(self, path: str | Path) -> Table:
        """Return the table of a file; override it for other formats of tables.

        Raises
        ------
        DataFileError
            If the file cannot be read.
        """
        return read_table(path)

    def example_observations(self, rng: Rng, n: int = 100) -> Observations:
        """Return mock observations that share one value of the global parameters.

        Globals are the prior mean; locals are drawn from the prior.
        """
        gen = as_generator(rng)
        theta = self.parameters.sample(n, gen)
        mean, _ = self.parameters.moments()
        for k, scope in enumerate(self.parameters.scopes):
            if scope == "global":
                theta[:, k] = mean[k]
        batch = self.observe(self.simulate(theta, gen).succeeded, gen)
        if len(batch) == 0:
            msg = f"simulator '{self.name}' failed for all {n} example objects"
            raise ObservationError(msg)
        return Observations.from_batch(
            batch,
            observables=self.observables,
            context_names=self.context_names,
            truth_names=self.parameters.names,
            source=f"mock objects of {self.name} {self.version}",
        )

    def summaries(self, batch: Batch) -> Batch:
        """Return summary statistics of each object for the support score and TARP references.

        Default: the batch itself; simulators whose noise is not Gaussian, or whose data are
        images, override it and return observed data reduced to ``x`` (n, k). Their errors
        ``x_err``, 0 where nothing was observed, are given where distances from the simulations
        depend on the noise: simulations of similar errors are then compared, too.
        """
        return batch

    @property
    def identity(self) -> dict[str, Any]:
        """Name and version as runs record and compare them, JSON-serialisable."""
        return {"name": self.name, "version": self.version}


@dataclass(frozen=True, slots=True)
class InputShape:
    """Shape of one row of network input: x (without the batch axis) and context columns."""

    x: tuple[int, ...]
    context: int = 0
    has_err: bool = False
    has_mask: bool = False

    @classmethod
    def of(cls, batch: Batch) -> InputShape:
        """Return the shape of a batch."""
        context = 0 if batch.context is None else batch.context.shape[1]
        return cls(
            tuple(batch.x.shape[1:]), context, batch.x_err is not None, batch.mask is not None
        )


class Embedding(ABC):
    """A factory of torch modules ``(x, x_err, mask, context) -> (n, k)``.

    The module receives standardised input: ``x`` (n, ...) with zeros where nothing was observed,
    ``x_err`` as standardised log10 (or None), ``mask`` as 0/1 floats (or None), ``context`` (n, c)
    standardised (or None).

    Parameters
    ----------
    config
        Options; the defaults of ``config_type`` when left out.

    Attributes
    ----------
    name
        Registry name; stored with the estimator, which is loaded by it.
    config_type
        Pydantic model of the options; None: there are no options.
    config
        The options; stored with the estimator.
    takes_sets
        True when a row of ``x`` is a set (members, features) whose order does not matter: its
        members then share means and scales.
    raw_input
        True when ``x`` is passed on as it is (counts, say); errors and context are standardised all
        the same.
    """

    name: str
    config_type: ClassVar[type[BaseModel] | None] = None
    config: BaseModel | None
    takes_sets: bool = False
    raw_input: bool = False

    def __init__(self, config: BaseModel | None = None) -> None:
        default = None if self.config_type is None else self.config_type()
        self.config = default if config is None else config

    @abstractmethod
    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for rows of that shape; its ``out_features`` is k."""

    @staticmethod
    def of(candidate: Any) -> Embedding:
        """Return the embedding; one that does not inherit gets defaults for what it lacks.

        Raises
        ------
        ConfigError
            If it lacks ``name`` or ``build``.
        """
        if isinstance(candidate, Embedding):
            return candidate
        missing = [a for a in ("name", "build") if not hasattr(candidate, a)]
        if missing:
            msg = (
                f"{type(candidate).__name__} is not an embedding, it lacks "
                f"{' and '.join(missing)}: subclass sbi_core.Embedding, give it a name and write "
                "build(shape)"
            )
            raise ConfigError(msg)
        return _Adopted(candidate)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.config is None else self.config})"


class _Adopted(Embedding):
    """An embedding whose class does not inherit from :class:`Embedding`."""

    def __init__(self, inner: Any) -> None:
        super().__init__(getattr(inner, "config", None))
        self.inner, self.name = inner, inner.name
        self.takes_sets = bool(getattr(inner, "takes_sets", False))
        self.raw_input = bool(getattr(inner, "raw_input", False))

    def build(self, shape: InputShape) -> nn.Module:
        module: nn.Module = self.inner.build(shape)
        return module

    def __repr__(self) -> str:
        return repr(self.inner)


class RowSource(Protocol):
    """Noise-free simulations that are read in blocks because they do not fit into memory.

    Row k is the same whatever the blocks; block b holds rows ``ends[b] .. ends[b + 1]``.
    :class:`~sbi_core.simulate.rows.ShardedBatch` reads shard files.

    Attributes
    ----------
    ends
        First row of every block and, last, the number of rows; (blocks + 1,).
    identity
        Hash that changes with the simulations.
    """

    ends: NDArray[np.int64]
    identity: str

    @property
    def nbytes(self) -> int:
        """Memory that all rows would take."""
        ...

    @property
    def succeeded(self) -> RowSource:
        """The rows whose simulation succeeded."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Batch: ...

    def read(self, block: int, only: Sequence[str] = ...) -> Batch:
        """Return the rows of one block, all fields or only some."""
        ...

    def keys(self, block: int) -> NDArray[np.int64]:
        """Return the units of splitting of one block."""
        ...

    def load(self) -> Batch:
        """Return all rows."""
        ...


@dataclass(frozen=True)
class Training:
    """Input of the training of an estimator.

    Parameters
    ----------
    batch
        Noise-free simulations with all parameters in ``theta``; failed rows already removed. Or
        a source that reads them in blocks: it is loaded when it fits into the option
        ``max_memory_gb`` of the training loop, and streamed otherwise.
    space
        The parameters to infer, with the proposal that drew them.
    columns
        Their columns in ``batch.theta``.
    observe
        Adds noise, errors and masks: ``observe(batch, rng) -> Batch``; in a run a method of the
        simulator, whose ``__self__`` gives access to it.
    config
        Options of the training loop.
    seed
        Root seed.
    directory
        Folder of checkpoint and metrics; None: nothing is written.
    device
        Torch device.
    split_seed
        Seed of splits, of the noise of validation and test; ``seed`` when left out. Members of
        an ensemble share it, so that their losses can be compared.
    """

    batch: Batch | RowSource
    space: ParameterSpace
    columns: tuple[int, ...]
    observe: Callable[[Batch, Rng], Batch]
    config: Any
    seed: int = 0
    directory: Path | None = None
    device: str = "cpu"
    split_seed: int | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a training.

    Parameters
    ----------
    epochs, seconds
        Length of the training.
    test_nll
        Mean negative log density of the true theta on the test split, nats, physical space.
    best_epoch
        Epoch whose weights were kept.
    history
        One mapping per epoch: epoch, train_loss, val_loss, learning_rate, seconds.
    split
        Sizes of the three splits and the hash of their indices.
    """

    epochs: int
    seconds: float
    test_nll: float
    best_epoch: int
    history: tuple[Mapping[str, float], ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)

    @property
    def still_improving(self) -> bool:
        """True if the validation loss fell by more than 0.01 in the last tenth of the epochs.

        Of an ensemble, if that of one of its members did.
        """
        members: dict[float, list[float]] = {}
        for line in self.history:
            members.setdefault(line.get("member", 0), []).append(line["val_loss"])
        return any(_fall(losses) > 0.01 for losses in members.values())


def _fall(losses: Sequence[float]) -> float:
    """Return by how much the last tenth of the losses lowered their minimum."""
    late = -(-len(losses) // 10)
    return min(losses[:-late], default=-math.inf) - min(losses[-late:])


Callback = Callable[[Mapping[str, Any]], None]


class Estimator(ABC):
    """A conditional density q(theta | x), normalised inside the support of its proposal.

    Attributes
    ----------
    name
        Registry name.
    space
        The inferred parameters with the proposal it was trained under; set by ``fit``.
    """

    name: str
    space: ParameterSpace

    @abstractmethod
    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Train; ``callbacks`` receive a mapping after every epoch."""

    @abstractmethod
    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> NDArray[np.float64]:
        """Return log q for theta (n, d) -> (n,), or theta (S, n, d) -> (S, n)."""

    @abstractmethod
    def sample(
        self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]
    ) -> NDArray[np.float64]:
        """Return draws (S, n, d) for n objects.

        With one generator per object, its draws do not depend on the objects beside it.
        """

    def gaussian_moments(self, batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return exact mean (n, k) and covariance (n, k, k) of q in unconstrained space.

        Raises
        ------
        DensityUnavailableError
            If the estimator has no closed form; callers then use draws.
        """
        msg = f"estimator '{self.name}' has no closed-form moments"
        raise DensityUnavailableError(msg)

    def score(self, value: NDArray[np.float64], batch: Batch) -> NDArray[np.float64]:
        """Return the gradient of log q (n, k) at one value (k,), in unconstrained space.

        Raises
        ------
        DensityUnavailableError
            If the estimator has none; combinations then use mean and covariance of q.
        """
        msg = f"estimator '{self.name}' has no gradient of its density"
        raise DensityUnavailableError(msg)

    def to(self, device: str | torch.device) -> Self:
        """Move networks to a torch device and return self; the default does nothing."""
        return self

    @abstractmethod
    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""

    @classmethod
    @abstractmethod
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> Estimator:
        """Read the files of :meth:`save`; nothing stored there is executed.

        ``registry`` provides embeddings (and other estimators) by name; default: the installed
        plugins.
        """


class Combiner(ABC):
    """From N single-object posteriors to one posterior of the shared parameters.

    Attributes
    ----------
    name
        Registry name.
    comparison_only
        True for a rule that is biased and shown for comparison; never a default.
    warning
        Sentence that the report shows beside the results of the rule, if there is one.
    groups_needed, group_size
        Number of simulated groups, and of objects in each, for :meth:`prepare`; 0 if the rule
        learns nothing.
    learns_alone
        True if it learns from the groups and the simulator only (:meth:`learn`): a run lets it
        learn while the network of single objects is trained.
    marginalises
        True if nuisance parameters are drawn in the groups that it learns from and is tested on
        (see ``sbi_core.simulate.nuisances``).
    simulates
        True if the rule runs the simulator while it combines.
    takes_emulator
        True if the emulator of a run, with its error added to the noise, replaces the simulator;
        for rules that run it very often.
    progress
        Shows how far a long combination has come; nowhere by default.
    """

    name: str
    comparison_only: bool = False
    warning: str = ""
    groups_needed: int = 0
    group_size: int = 0
    simulates: bool = False
    takes_emulator: bool = False
    learns_alone: bool = False
    marginalises: bool = False
    progress: Progress = Progress()

    def attach(self, simulator: Simulator) -> None:  # noqa: B027 - most rules need none
        """Take the simulator; only rules that simulate or evaluate its likelihood need it."""

    @abstractmethod
    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects of one group.

        Parameters
        ----------
        posterior
            Posterior of single objects. The prior that is divided out is the one that its estimator
            recorded.
        observations
            The n objects.
        rng
            Where randomness comes from.

        Returns
        -------
        CombinedPosterior

        Raises
        ------
        ConfigError
            If no parameter is shared, or the rule needs a simulator (:meth:`attach`) or training
            (:meth:`prepare`) and has none.
        PriorMismatchError
            If the posterior has another prior than the simulator or the training of the rule.
        ObservationError
            If the objects do not fit the training of the rule.
        SimulationError
            If a rule that simulates could not.
        """

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets of the objects of one group.

        Parameters
        ----------
        posterior, observations, rng
            As for :meth:`combine`.
        subsets
            Rows of the objects of each subset.

        Returns
        -------
        list of CombinedPosterior
            One per subset.

        Raises
        ------
        ConfigError, PriorMismatchError, ObservationError, SimulationError
            As :meth:`combine`.
        """
        return [self.combine(posterior, observations[rows], rng=rng) for rows in subsets]

    def subset_moments(
        self, posterior: Posterior, observations: Observations, subsets: Sequence[slice]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return mean (d,) and covariance (d, d) of each subset, in unconstrained space."""
        combined = self.combine_subsets(posterior, observations, subsets)
        return [(c.z_mean, c.z_cov) for c in combined]

    def check_shape(self, shape: InputShape) -> None:  # noqa: B027 - most rules take any
        """Raise ObservationError if objects of this shape cannot be combined.

        A run calls it before its simulations.
        """

    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Learn from simulated groups with known truth; return numbers about the fit."""
        return self.learn(groups, seed=seed)

    def learn(self, groups: Iterable[Observations], *, seed: int = 0) -> Mapping[str, float]:
        """Do the same without a posterior; for rules with ``learns_alone``."""
        return {}

    def save(self, directory: str | Path) -> None:  # noqa: B027 - nothing learned, nothing saved
        """Write the result of :meth:`prepare` (safetensors and JSON)."""

    def restore(self, directory: str | Path) -> None:  # noqa: B027
        """Read the files that :meth:`save` wrote; nothing stored there is executed."""
