"""The Python twin of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from sbi_core.components import Combiner, Embedding, Estimator, Simulator
from sbi_core.data.observations import Observations
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import Run, execute
from sbi_core.progress import Progress, make_progress
from sbi_core.registry import Plugin, Registry

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
    observations: str | Path | Observations | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    config: str | Path | None = None,
    stages: Iterable[str] | None = None,
    restart: str | None = None,
    quiet: bool = True,
    registry: Registry | None = None,
) -> Run:
    """Run a plugin's pipeline and return the run.

    Parameters
    ----------
    plugin
        Name of an installed plugin, e.g. ``"chempy"``.
    preset
        ``quick``, ``standard``, ``large`` or ``paper``.
    observations
        File to infer, or observations; default: the plugin's example.
    out
        Run directory; default ``runs/PLUGIN-PRESET``.
    seed
        Root seed: same seed, same numbers; default 1.
    overrides
        ``{"section.key": value}`` or ``["section.key=value"]``.
    config
        TOML file with further options.
    stages, restart
        Only these stages; do this stage and all after it again.
    quiet
        Show no progress.
    registry
        Where plugins are found; default: those installed.

    Raises
    ------
    SbiError
        One clear sentence for every kind of bad input.
    """
    found = registry or Registry([plugin])
    target = Path("runs") / f"{plugin}-{preset}" if out is None else Path(out)
    path = _as_file(observations, target)
    resolved = resolve(
        found,
        plugin,
        preset=preset,
        file=config,
        overrides=overrides,
        seed=seed,
        infer__observations=path,
    )
    progress: Progress = make_progress(quiet=quiet)
    chosen = None if stages is None else list(stages)
    return execute(resolved, target, found, stages=chosen, restart=restart, progress=progress)


def _as_file(observations: str | Path | Observations | None, out: Path) -> str | None:
    """Return the name of a file that holds the observations."""
    if observations is None:
        return None
    if not isinstance(observations, Observations):
        return str(observations)
    path = out.with_name(f"{out.name}-observations.npz")  # everything: context and truth, too
    path.parent.mkdir(parents=True, exist_ok=True)
    observations.write(path, overwrite=True)
    return str(path)


def load_run(directory: str | Path) -> Run:
    """Return the run in a directory; nothing that is stored there is executed.

    Raises
    ------
    RunDirectoryError
        If the directory does not exist or holds no run.
    """
    return Run(directory)


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
    """Return the installed plugins with what they offer and what is wrong with them."""
    return Registry().plugins
