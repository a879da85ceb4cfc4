"""The Python twin of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sbi_core.components import Combiner, Embedding, Estimator, Simulator
from sbi_core.data.observations import Observations
from sbi_core.data.reading import Reading
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import reading_options, resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.reading import read_objects
from sbi_core.pipeline.runner import Run, execute
from sbi_core.progress import Progress, make_progress
from sbi_core.registry import Plugin, Registry, defects

__all__ = [
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
        resolved.infer.observations = _as_file(objects, directory)
    progress: Progress = make_progress(quiet=quiet)
    chosen = None if stages is None else list(stages)
    return execute(resolved, directory, registry, stages=chosen, restart=restart, progress=progress)


def _as_file(observations: Observations, directory: RunDirectory) -> str:
    """Write observations in memory beside the run directory; return the name of the file."""
    out = directory.given if directory.given.name else directory.root.resolve()
    given = out.with_name(f"{out.name}-observations.npz")  # everything: context and truth, too
    path = directory.path(given)
    path.parent.mkdir(parents=True, exist_ok=True)
    observations.write(path, overwrite=True)
    return str(given)


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
