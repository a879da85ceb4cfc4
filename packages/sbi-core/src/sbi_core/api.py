"""The Python twin of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from sbi_core.components import Combiner, Embedding, Estimator, Simulator
from sbi_core.data.reading import Reading
from sbi_core.data.simulations import Simulations, open_simulations
from sbi_core.errors import ConfigError
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import reading_options, resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.fixed import InMemory, matched, options_of
from sbi_core.pipeline.reading import read_objects, written_beside
from sbi_core.pipeline.runner import Run, execute
from sbi_core.posterior import Posterior
from sbi_core.priors.reading import guessed_space, space_of
from sbi_core.priors.space import ParameterSpace
from sbi_core.progress import Progress, make_progress
from sbi_core.registry import SIMULATIONS, Plugin, Registry, defects
from sbi_core.simulate.arrays import split_keys

__all__ = [
    "fit",
    "get_combiner",
    "get_embedding",
    "get_estimator",
    "get_simulator",
    "load_run",
    "plugins",
    "run",
]


def run(
    plugin: str,
    *,
    preset: str = "standard",
    observations: Any = None,
    out: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    config: str | Path | None = None,
    stages: Iterable[str] | None = None,
    restart: str | None = None,
    quiet: bool = True,
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    missing: Sequence[float] | None = None,
    units: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Run:
    """Run a plugin's pipeline and return the run.

    Parameters
    ----------
    plugin
        Name of an installed plugin, e.g. ``"chempy"``.
    preset
        ``quick``, ``standard``, ``large`` or ``paper``.
    observations, columns, strict, missing, units
        Objects to infer, as in :meth:`sbi_core.Run.observations`; default: the plugin's example.
    out
        Run directory; default ``runs/PLUGIN-PRESET``.
    seed
        Root seed: same seed, same numbers; default 1.
    overrides
        ``{"section.key": value}`` or ``["section.key=value"]``.
    config
        TOML file with further options.
    stages
        Run only these stages; the stages before must be done.
    restart
        Delete the results of this stage and of all later ones, and run them again.
    quiet
        Show no progress.
    registry
        Where plugins are found; default: those installed.

    Raises
    ------
    SbiError
        One clear sentence for every kind of bad input.
    """
    directory = RunDirectory(Path("runs", f"{plugin}-{preset}") if out is None else out)
    registry = registry or Registry([plugin])  # may change the working directory
    reading = Reading(columns or {}, strict, missing, units=units or {})
    is_file = observations is None or isinstance(observations, (str, Path))
    resolved = resolve(
        registry,
        plugin,
        preset=preset,
        file=config and directory.path(config),
        overrides=overrides,
        seed=seed,
        infer__observations=str(observations) if is_file and observations is not None else None,
        **(reading_options(reading) if is_file else {}),
    )
    if not is_file:
        simulator = Context(resolved, registry, directory, Progress()).simulator
        objects = read_objects(simulator, observations, reading)
        resolved.infer.observations = written_beside(objects, directory)
    progress: Progress = make_progress(quiet=quiet)
    chosen = None if stages is None else list(stages)
    return execute(resolved, directory, registry, stages=chosen, restart=restart, progress=progress)


def fit(
    theta: Any,
    x: Any = None,
    prior: Any = None,
    *,
    x_err: Any = None,
    group: Any = None,
    noise: float | Sequence[float] | None = None,
    nan: str = "error",
    preset: str = "standard",
    out: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    quiet: bool = False,
) -> Posterior:
    """Train a posterior on simulations that you have.

    Simulations with the same parameters, the same data or the same ``group`` are never both in the
    training and in the test set. See docs/your-own-simulations.md.

    Parameters
    ----------
    theta
        Parameters, one row per simulation: a numpy array, a torch tensor, a table (pandas, astropy,
        columns by name) or an xarray object; names of columns are kept. Or, without ``x``, a file
        as ``sbi-run --simulations`` reads it.
    x
        Data in any of these forms, in the order of theta; images as (n, rows, columns).
    prior
        The distribution that theta was drawn from: priors by name (:class:`Prior`, distributions of
        scipy or torch, or tables such as ``{"family": "uniform", "low": 0, "high": 1}``), a
        :class:`ParameterSpace`, a distribution of torch for all columns, or a file of priors.
        Default: uniform or normal, as the columns of theta are.
    x_err
        One standard deviation of ``x``, where it differs between simulations and is known for the
        observed objects, too.
    group
        Simulations that belong together, (n,): cosmology, galaxy, random seed.
    noise
        Standard deviation of Gaussian noise that is drawn anew in every epoch, one number or one
        per column of ``x``; default: ``x`` is as observed.
    nan
        ``"error"``; ``"drop"`` leaves simulations with NaN in ``x`` out; ``"missing"`` takes NaN as
        not measured.
    preset
        Length of the training: ``quick``, ``standard`` or ``large``.
    out
        Run directory; default: a temporary one (see :meth:`Posterior.save`).
    seed
        Root seed: same seed, same numbers; default 1.
    overrides
        ``{"section.key": value}``, see docs/configuration.md.
    quiet
        Show no progress.

    Raises
    ------
    SbiError
        One clear sentence for every kind of bad input.

    Examples
    --------
    >>> import numpy as np
    >>> theta = np.random.default_rng(1).uniform(size=(2000, 1))
    >>> x = theta + 0.1 * np.random.default_rng(2).standard_normal((2000, 3))
    >>> posterior = fit(theta, x, {"a": stats.uniform(0, 1)})  # doctest: +SKIP
    >>> posterior.calibrate()  # doctest: +SKIP
    >>> posterior.sample([0.4, 0.5, 0.45])  # doctest: +SKIP
    """
    progress = make_progress(quiet=quiet)
    simulations, space = _simulations_of(theta, x, prior, x_err, group, progress)
    split_keys(simulations, space, nan)  # bad values are refused before anything is written
    levels = [] if noise is None else _levels(noise)
    options = options_of(simulations, space, preset, sha256=simulations.sha256, noise=levels)
    options["simulator.nan"] = nan
    registry = Registry([], extra={SIMULATIONS: InMemory(simulations)})
    resolved = resolve(
        registry,
        SIMULATIONS,
        preset=preset,
        overrides=overrides,
        defaults=options,
        seed=seed,
    )
    temporary = TemporaryDirectory(prefix="sbi-") if out is None else None
    target = out or Path(temporary.name if temporary else "", "run")
    run = execute(resolved, target, registry, stages=["simulate", "train"], progress=progress)
    run.temporary = temporary
    return run.posterior


def _levels(noise: Any) -> list[float]:
    try:
        return list(map(float, np.atleast_1d(np.asarray(noise, float)).ravel()))
    except (TypeError, ValueError):
        msg = f"noise = {noise!r}: expected a number, or one per column of x"
        raise ConfigError(msg) from None


def _simulations_of(
    theta: Any, x: Any, prior: Any, x_err: Any, group: Any, progress: Progress
) -> tuple[Simulations, ParameterSpace]:
    """Return the simulations that :func:`fit` was given, and the space of their parameters."""
    if x is None:
        simulations, space = _of_file(theta, prior)
    else:
        simulations = Simulations.of(theta, x, x_err, group)
        space = _space_for(simulations, prior, progress)
    if simulations.theta.shape[1] != space.dim:
        msg = (
            f"theta has {simulations.theta.shape[1]} columns, the prior {space.dim} parameters "
            f"({', '.join(space.names)})"
        )
        raise ConfigError(msg)
    return matched(simulations, space)


def _of_file(file: Any, prior: Any) -> tuple[Simulations, ParameterSpace]:
    if not isinstance(file, (str, Path)):
        msg = "give both theta and x, or the name of a file with both"
        raise ConfigError(msg)
    if prior is None:
        msg = f"'{file}' needs its priors: fit(file, prior=...)"
        raise ConfigError(msg)
    space = space_of(prior)
    return open_simulations(file, space.names), space


def _space_for(simulations: Simulations, prior: Any, progress: Progress) -> ParameterSpace:
    """Return the space of the prior, or of one that is guessed, which is then shown."""
    names = simulations.names
    if prior is not None:
        return space_of(prior, names or _numbered(simulations.theta, prior))
    rows = np.asarray(simulations.theta[:])
    space = guessed_space(rows[np.isfinite(rows).all(1)], names or _numbered(rows))
    listed = ", ".join(f"{p.name} {p.prior}" for p in space)
    progress.say(f"no prior given; assumed from the simulations: {listed}")
    return space


def _numbered(theta: Any, prior: Any = None) -> list[str]:
    """Return names of columns that have none; empty where the prior has some."""
    if isinstance(prior, (ParameterSpace, Mapping, str, Path)):
        return []
    return [f"theta{k + 1}" for k in range(theta.shape[1])]


def load_run(
    directory: str | Path, *, registry: Registry | None = None, overrides: Iterable[str] = ()
) -> Run:
    """Return the run in a directory; nothing that is stored there is executed.

    Parameters
    ----------
    directory
        A directory written by ``sbi-run`` or :func:`sbi_core.run`.
    registry
        Where plugins are found; default: those installed.
    overrides
        See :class:`~sbi_core.Run`; for example ``"simulator.alpha_proxy=true"``.

    Raises
    ------
    RunDirectoryError
        If the directory does not exist or holds no run.
    """
    return Run(directory, registry, overrides)


def get_simulator(name: str, **options: Any) -> Simulator:
    """Return the simulator of that name, e.g. ``get_simulator("chempy", yields="tng")``."""
    return cast("Simulator", Registry([name]).build("simulator", name, options))


def get_embedding(name: str, **options: Any) -> Embedding:
    """Return the embedding of that name."""
    return Embedding.of(Registry([]).build("embedding", name, options))


def get_estimator(name: str, **options: Any) -> Estimator:
    """Return an untrained estimator of that name."""
    return cast("Estimator", Registry([]).build("estimator", name, options))


def get_combiner(name: str, **options: Any) -> Combiner:
    """Return the combiner of that name."""
    return cast("Combiner", Registry([]).build("combiner", name, options))


def plugins() -> list[Plugin]:
    """Return the installed plugins with their components and their defects, as warnings."""
    return [replace(p, warnings=(*p.warnings, *defects(p))) for p in Registry().plugins]
