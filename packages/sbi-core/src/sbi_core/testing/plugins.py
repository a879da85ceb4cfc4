"""All checks of a plugin: of the plugin itself, and of everything it registers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any

import click

from sbi_core.components import InputShape
from sbi_core.errors import ConfigError, near_matches
from sbi_core.registry import BUILTIN, Component, Registry, defects
from sbi_core.rng import stream
from sbi_core.testing.combiners import COMBINER_CHECKS, CombinerCase
from sbi_core.testing.embeddings import EMBEDDING_CHECKS, EmbeddingCase
from sbi_core.testing.estimators import ESTIMATOR_CHECKS, EstimatorCase
from sbi_core.testing.outcome import Check, NotApplicable, Result, bind, require, run_all
from sbi_core.testing.pipelines import PIPELINE_CHECKS, PipelineCase
from sbi_core.testing.simulators import SIMULATOR_CHECKS

__all__ = ["PLUGIN_CHECKS", "PluginCase", "check_plugin", "conformance_checks"]


def check_command_has_a_help_text(command: Any) -> None:
    """`sbi-run PLUGIN COMMAND --help` explains the command."""
    require(
        isinstance(command, click.Command),
        f"the path leads to {type(command).__name__}",
        "register the path of a click command",
    )
    require(bool(command.help), "the command has no help text", "give its function a docstring")


_CHECKS: Mapping[str, tuple[Callable[[Any], None], ...]] = {
    "simulator": SIMULATOR_CHECKS,
    "embedding": EMBEDDING_CHECKS,
    "estimator": ESTIMATOR_CHECKS,
    "combiner": COMBINER_CHECKS,
    "pipeline": PIPELINE_CHECKS,
    "command": (check_command_has_a_help_text,),
}
_HEAVY = ("torch", "matplotlib", "scipy")


@dataclass(frozen=True)
class PluginCase:
    """An installed plugin, or a module with hook implementations."""

    name: str
    registry: Registry
    installed: bool


def check_loads_without_warnings(case: PluginCase) -> None:
    """Hooks are known and marked, paths lead somewhere, versions fit."""
    plugin = case.registry.plugin(case.name)
    sentences = [*plugin.warnings, *defects(plugin)]
    require(not sentences, "; ".join(sentences), "follow the advice, or update sbi-core")


def check_summaries_are_given(case: PluginCase) -> None:
    """Every component has its line in `sbi-run plugins`."""
    silent = [c.name for c in case.registry.plugin(case.name).components if not c.summary]
    require(not silent, f"{silent} have no summary", 'pass summary="one line" to register')


def check_discovery_is_light(case: PluginCase) -> None:
    """Loading the entry point imports nothing heavy: `sbi-run plugins` answers within a second."""
    if not case.installed:
        msg = "it is not installed"
        raise NotApplicable(msg)
    code = (
        "import sys; from importlib.metadata import entry_points as e; "
        "[p.load() for p in e(group='sbi_core', name=sys.argv[1])]; "
        "print([m for m in sys.argv[2:] if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, case.name, *_HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"its entry point fails: {done.stderr[-300:]}", "mend it")
    require(
        done.stdout.strip() == "[]",
        f"importing the plugin's module imports {done.stdout.strip()}",
        'give factory and config as text, "package.module:Class": they are imported when used',
    )


PLUGIN_CHECKS = (check_loads_without_warnings, check_summaries_are_given, check_discovery_is_light)


def conformance_checks(
    name: str,
    module: Any = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    exact: Collection[str] = (),
    only: str | None = None,
    without: Collection[str] = (),
) -> list[Check]:
    """Return every check of a plugin and of what it registers; nothing is built yet.

    Parameters
    ----------
    name
        Name of the plugin.
    module
        A module or object with hook implementations, for plugins that are not installed.
    options
        Options of components by name, where defaults will not do.
    exact
        Combiners that claim to be exact for Gaussian posteriors.
    only
        One kind: simulator, embedding, estimator, combiner, pipeline, command or plugin.
    without
        Checks to leave out, by the names pytest shows, with * and ?: say in a comment why.

    Raises
    ------
    PluginError
        If the plugin is not installed or cannot be loaded.
    ConfigError
        If ``options`` or ``exact`` name no component of it, or ``only`` no kind.
    """
    if only is not None and only not in ("plugin", *_CHECKS):
        msg = f"unknown kind '{only}'{near_matches(only, ['plugin', *_CHECKS])}"
        raise ConfigError(msg)
    registry = Registry([name], extra=None if module is None else {name: module})
    components = registry.plugin(name).components
    known = {c.name for c in components}
    for given in (*(options or {}), *exact):
        if given not in known:
            msg = f"plugin '{name}' has no component '{given}'{near_matches(given, known)}"
            raise ConfigError(msg)
    case = PluginCase(name, registry, module is None and name != BUILTIN)
    checks = bind("plugin", name, PLUGIN_CHECKS, lambda: case)
    for c in components:
        chosen = (options or {}).get(c.name, {})
        subject = partial(_subject, c, chosen, registry, components, exact=c.name in exact)
        checks += bind(c.kind, c.name, _CHECKS[c.kind], cache(subject))
    left_out = {p: [str(c) for c in checks if fnmatchcase(str(c), p)] for p in without}
    for pattern in (p for p, found in left_out.items() if not found):
        msg = f"without names no check: '{pattern}'{near_matches(pattern, map(str, checks))}"
        raise ConfigError(msg)
    skipped = {name for found in left_out.values() for name in found}
    return [c for c in checks if only in (None, c.kind) and str(c) not in skipped]


def _subject(
    component: Component,
    options: Mapping[str, Any],
    registry: Registry,
    siblings: Collection[Component],
    *,
    exact: bool,
) -> Any:
    """Return what the checks of that kind are given."""
    make = partial(component.build, options)
    if component.kind == "pipeline":
        return PipelineCase(component.name, registry)
    if component.kind == "estimator":
        return EstimatorCase(make)
    if component.kind == "combiner":
        return CombinerCase(make, exact)
    built = make()
    if component.kind == "embedding":
        return EmbeddingCase(built, _shapes(built, siblings))
    return built


def _shapes(embedding: Any, siblings: Collection[Component]) -> list[InputShape]:
    """Return the shapes that the plugin's own simulators deliver, where it takes them."""
    from sbi_core.errors import SbiError

    found = []
    for component in siblings:
        if component.kind == "simulator":
            simulator = component.build()
            batch = simulator.draw(4, stream(1, "shape")).succeeded
            shape = InputShape.of(simulator.observe(batch, stream(1, "noise")))
            try:
                embedding.build(shape)
            except SbiError:
                continue
            found.append(shape)
    return found


def check_plugin(name: str, module: Any = None, **rest: Any) -> list[Result]:
    """Run every check of a plugin and return what became of each.

    Parameters
    ----------
    name, module, rest
        As in :func:`conformance_checks`.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    return run_all(conformance_checks(name, module, **rest))
