"""Discovery of plugins, and the registry of their components.

Entry-point group ``sbi_core``: the name is the plugin name, the object a module of hook
implementations. Every entry point is loaded on its own, so that a broken plugin costs only
itself; nothing is global: a :class:`Registry` is built when it is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import pluggy
from packaging.requirements import InvalidRequirement, Requirement

from sbi_core import __version__, hookspecs
from sbi_core.errors import (
    ComponentNotFoundError,
    ConfigError,
    PluginError,
    SbiError,
    first_line,
    near_matches,
    raised,
)
from sbi_core.hookspecs import HOOK_API, PROJECT
from sbi_core.validation import validate

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "HOOKS",
    "KINDS",
    "REPLACED",
    "Component",
    "Kind",
    "Plugin",
    "Registry",
    "defects",
    "domain_package",
]

Kind = Literal["simulator", "embedding", "estimator", "combiner", "analysis", "pipeline", "command"]
HOOKS: Mapping[Kind, str] = {
    "simulator": "register_simulators",
    "embedding": "register_embeddings",
    "estimator": "register_estimators",
    "combiner": "register_combiners",
    "analysis": "register_analyses",
    "pipeline": "register_pipelines",
    "command": "register_commands",
}
KINDS: tuple[Kind, ...] = tuple(HOOKS)
GROUP = "sbi_core"
BUILTIN = "sbi-core"
SIMULATIONS = "simulations"  # fixed sets of simulations
_OWN = {BUILTIN: "sbi_core.builtin_plugin", SIMULATIONS: "sbi_core.simulations_plugin"}
_PATH = re.compile(r"\w+(\.\w+)*:\w+")  # package.module:name
_DOMAIN_PACKAGES = ("chempy", "casbi", "sfh", "sedflow")


def domain_package(plugin: str) -> str | None:
    """Return the distribution that provides one of this project's plugins, or None."""
    return f"sbi-{plugin}" if plugin in _DOMAIN_PACKAGES else None


REPLACED: Mapping[tuple[str, str], str] = dict.fromkeys(  # (kind, former name): its successor
    (("combiner", "recalibrated"), ("combiner", "amortised")), "simulated-moments"
)


@dataclass(frozen=True, slots=True)
class Component:
    """One registered component: its factory and its origin."""

    kind: Kind
    name: str
    factory: Callable[..., Any] | str
    config: type[BaseModel] | str | None
    summary: str
    plugin: str
    distribution: str
    version: str

    @property
    def options(self) -> type[BaseModel] | None:
        """The model of its options, imported if need be."""
        return cast("type[BaseModel] | None", self._imported(self.config))

    def checked(self, options: Mapping[str, Any]) -> BaseModel | None:
        """Return the options as their model; None for a component without options.

        Raises
        ------
        ConfigError
            If an option is unknown or ill-typed.
        """
        model = self.options
        if model is not None:
            return validate(model, options, self.kind)
        if options:
            msg = f"{self.kind} '{self.name}' takes no options, got {sorted(options)}"
            raise ConfigError(msg)
        return None

    def build(self, options: Mapping[str, Any] | None = None) -> Any:
        """Validate the options and call the factory; a command is returned as it is.

        Raises
        ------
        ConfigError
            If an option is unknown or ill-typed.
        PluginError
            If the path of the factory leads nowhere, or the factory raises an exception or returns
            nothing (a pipeline: no text).
        """
        make = self._imported(self.factory)
        if self.kind == "command":
            return make
        checked = self.checked(options or {})
        try:
            built = make() if checked is None else make(checked)
        except (SbiError, MemoryError):
            raise
        except Exception as error:  # code of a plugin may fail in any way
            msg = (
                f"{self.kind} '{self.name}' of plugin '{self.plugin}' ({self.distribution}) cannot "
                f"be made: {raised(error)}"
            )
            raise PluginError(msg) from error
        if built is None or (self.kind == "pipeline" and not isinstance(built, str)):
            wanted = "the text of a TOML file" if self.kind == "pipeline" else f"the {self.kind}"
            msg = (
                f"the factory of {self.kind} '{self.name}' of plugin '{self.plugin}' returned "
                f"{type(built).__name__}; it must return {wanted}"
            )
            raise PluginError(msg)
        return built

    def _imported(self, target: Any) -> Any:
        """Import what is given as text, ``"package.module:name"``."""
        if not isinstance(target, str):
            return target
        of = f"{self.kind} '{self.name}' of plugin '{self.plugin}' ({self.distribution}): "
        if not _PATH.fullmatch(target):
            first = target.strip().split("\n")[0][:40]
            msg = f"{of}'{first}' is not the path of a function or class; {self._remedy}"
            raise PluginError(msg)
        module, _, name = target.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            msg = f"{of}'{target}' cannot be imported: {error}"
            raise PluginError(msg) from error
        except SbiError:
            raise
        except Exception as error:  # code of a plugin may fail in any way
            msg = f"{of}'{target}' cannot be imported: {raised(error)}"
            raise PluginError(msg) from error

    @property
    def _remedy(self) -> str:
        """What to write in place of a text that is no path."""
        if self.kind == "pipeline":
            return "register a function that returns the TOML, e.g. lambda: PIPELINE"
        return "write package.module:name"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One installed plugin, loaded or not."""

    name: str
    distribution: str
    version: str
    status: Literal["loaded", "blocked", "failed"]
    problem: str = ""
    components: tuple[Component, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """Origin of a plugin module."""

    name: str
    distribution: str
    version: str
    load: Callable[[], Any]
    warnings: tuple[str, ...] = ()


class Registry:
    """Components by kind and name.

    Parameters
    ----------
    only
        Names of plugins to load at first; the others are loaded when a component is not found
        among them. None loads all.
    extra
        More plugins, by name: modules or objects with hook implementations (for tests and
        notebooks).
    """

    def __init__(
        self, only: Iterable[str] | None = None, *, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._sources = _discover()
        self._extra = dict(extra or {})
        for name, module in self._extra.items():
            self._sources[name] = _Source(name, f"{name} (in memory)", "0", partial(_same, module))
        self._plugins: dict[str, Plugin] = {}
        self._components: dict[tuple[Kind, str], list[Component]] = {}
        self._load(BUILTIN)
        for name in self._sources if only is None else only:
            if name in self._sources:
                self._load(name)

    # -- loading -------------------------------------------------------------------

    def _load(self, name: str) -> None:
        if name in self._plugins:
            return
        source = self._sources[name]
        blocked = _blocked(name)
        if blocked:
            plugin = Plugin(name, source.distribution, source.version, "blocked", blocked)
        else:
            plugin = _load_plugin(source)
        self._plugins[name] = plugin
        for component in plugin.components:
            self._components.setdefault((component.kind, component.name), []).append(component)

    def load_all(self) -> Registry:
        """Load every installed plugin; return the registry itself."""
        for name in self._sources:
            self._load(name)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle names only: the other process loads the plugins that are installed there."""
        extra = {
            name: _Imported(module.__name__) if isinstance(module, ModuleType) else module
            for name, module in self._extra.items()
        }
        return _restored, (tuple(self._plugins), extra)

    # -- look-up ---------------------------------------------------------------------

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins loaded so far, with their problems."""
        return list(self._plugins.values())

    @property
    def installed(self) -> list[str]:
        """Names of all installed plugins, loaded or not, without the built-in ones."""
        return [name for name in self._sources if name not in _OWN]

    def components(self, kind: Kind | None = None) -> list[Component]:
        """Return the components loaded so far."""
        loaded = [c for cs in self._components.values() for c in cs]
        return [c for c in loaded if kind is None or c.kind == kind]

    def plugin(self, name: str) -> Plugin:
        """Load one plugin by name.

        Raises
        ------
        PluginError
            If it is not installed (with the install command or near matches), blocked, or
            failed to load.
        """
        if name not in self._sources:
            package = domain_package(name)
            if package is not None:
                msg = f"plugin '{name}' is not installed; run: pip install {package}"
                raise PluginError(msg)
            known = [*self.installed, *_DOMAIN_PACKAGES]
            listed = ", ".join(self.installed) or "none"
            msg = f"unknown plugin '{name}'{near_matches(name, known)} (installed: {listed})"
            raise PluginError(msg)
        self._load(name)
        plugin = self._plugins[name]
        if plugin.status == "blocked":
            msg = f"plugin '{name}' is blocked: {plugin.problem}"
            raise PluginError(msg)
        if plugin.status == "failed":
            msg = f"plugin '{name}' ({plugin.distribution}) could not be loaded: {plugin.problem}"
            raise PluginError(msg)
        return plugin

    def find(self, kind: Kind, name: str) -> Component:
        """Return the component called ``name`` or ``distribution:name``.

        Raises
        ------
        ComponentNotFoundError
            If there is none; the message lists near matches.
        PluginError
            If two distributions provide that name.
        """
        distribution, _, bare = name.rpartition(":")
        matches = self._matching(kind, bare, distribution)
        if not matches:
            self.load_all()
            matches = self._matching(kind, bare, distribution)
        if not matches:
            raise ComponentNotFoundError(self._not_found(kind, name))
        if len(matches) > 1:
            who = " and ".join(sorted(c.distribution for c in matches))
            choices = " or ".join(sorted(f"'{c.distribution}:{bare}'" for c in matches))
            msg = f"{kind} '{bare}' is provided by {who}; write {choices}"
            raise PluginError(msg)
        return matches[0]

    def _matching(self, kind: Kind, name: str, distribution: str) -> list[Component]:
        named = self._components.get((kind, name), [])
        return [c for c in named if not distribution or c.distribution == distribution]

    def _not_found(self, kind: Kind, name: str) -> str:
        known = sorted({c.name for c in self.components(kind)})
        msg = f"unknown {kind} '{name}'{near_matches(name, known)} (known: {', '.join(known)})"
        if (kind, name) in REPLACED:
            new = REPLACED[kind, name]
            msg = (
                f"{kind} '{name}' was replaced; use '{new}' in its place, "
                f"e.g. --set {kind}.name={new}"
            )
        package = domain_package(name)
        if package is not None and name not in self._sources:
            msg = f"{kind} '{name}' is not installed; run: pip install {package}"
        failed = [p.name for p in self.plugins if p.status == "failed"]
        if failed:
            msg += f"; plugins that failed to load: {', '.join(failed)} (see `sbi-run plugins`)"
        warned = [p.name for p in self.plugins if p.warnings]
        if warned:
            msg += f"; plugins with warnings: {', '.join(warned)} (see `sbi-run plugins`)"
        return msg

    def build(self, kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Find a component and build it with the given options."""
        return self.find(kind, name).build(options)


@dataclass(frozen=True)
class _Imported:
    """A module by its name."""

    name: str


def _restored(names: tuple[str, ...], extra: Mapping[str, Any]) -> Registry:
    modules = {
        name: importlib.import_module(module.name) if isinstance(module, _Imported) else module
        for name, module in extra.items()
    }
    return Registry(names, extra=modules)


def _same(module: Any) -> Any:
    return module


def _discover() -> dict[str, _Source]:
    sources = {
        name: _Source(name, BUILTIN, __version__, partial(importlib.import_module, module))
        for name, module in _OWN.items()
    }
    for entry in entry_points(group=GROUP):
        source = _source(entry)
        other = sources.setdefault(entry.name, source)
        if other.distribution != source.distribution:
            sources[entry.name] = _clash(other, source)
    return sources


def _clash(one: _Source, two: _Source) -> _Source:
    """Return a source that fails with both names: neither of the two is preferred."""
    who = " and ".join(sorted((one.distribution, two.distribution)))
    msg = f"plugin name '{one.name}' is used by {who}; uninstall one of them"
    return _Source(one.name, who, "", partial(_fail, msg))


def _fail(message: str) -> NoReturn:
    raise PluginError(message)


def _source(entry: EntryPoint) -> _Source:
    dist = entry.dist
    name = dist.name if dist is not None else "unknown distribution"
    version = dist.version if dist is not None else "0"
    needs = () if dist is None else _unmet(dist.requires or ())
    return _Source(entry.name, name, version, entry.load, needs)


def _unmet(requires: Iterable[str]) -> tuple[str, ...]:
    """Return a warning when a distribution requires another version of sbi-core than this one."""
    mine = [r for r in requires if re.match(r"sbi[-_.]core\b", r, re.IGNORECASE)]
    if not mine:
        return ()

    try:
        wanted = Requirement(mine[0])
    except InvalidRequirement:
        return ()
    if wanted.specifier.contains(__version__, prereleases=True):
        return ()
    return (
        f"it needs sbi-core{wanted.specifier}, this is sbi-core {__version__}: "
        "pip install one that fits, results may be wrong",
    )


def _blocked(name: str) -> str:
    """Return how the environment blocks a plugin, empty if it does not."""
    if name in _OWN:
        return ""
    load, block = os.environ.get("SBI_LOAD_PLUGINS"), os.environ.get("SBI_BLOCK_PLUGINS", "")
    if name in _names(block):
        return f"SBI_BLOCK_PLUGINS={block} names it"
    if load is not None and name not in _names(load):
        return f"SBI_LOAD_PLUGINS={load} does not name it"
    return ""


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")} - {""}


def _load_plugin(source: _Source) -> Plugin:
    components: list[Component] = []
    try:
        module = source.load()
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        _check_arguments(manager, module)
        manager.register(module, name=source.name)
        for kind, hook in HOOKS.items():
            getattr(manager.hook, hook)(register=_collector(kind, source, components))
        warnings = (*source.warnings, *_hook_warnings(manager, module))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # code of a plugin may fail in any way, also with a panic
        problem = str(error) if isinstance(error, SbiError) else raised(error)
        return Plugin(source.name, source.distribution, source.version, "failed", problem)
    if not components and not warnings:
        warnings = ("it registers nothing: its module has no hook, e.g. register_simulators",)
    return Plugin(
        source.name,
        source.distribution,
        source.version,
        "loaded",
        components=tuple(components),
        warnings=warnings,
    )


def _check_arguments(manager: pluggy.PluginManager, module: Any) -> None:
    """Check that every hook takes the function that it is given, by its name.

    Raises
    ------
    PluginError
        With the first hook that does not.
    """
    for name in HOOKS.values():
        if manager.parse_hookimpl_opts(module, name) is None:
            continue
        given = inspect.signature(getattr(module, name)).parameters.values()
        taken = [p.name for p in given if p.default is p.empty and p.name != "self"]
        if taken != ["register"]:
            msg = f"hook '{name}' takes ({', '.join(taken)}); write def {name}(register):"
            raise PluginError(msg)


def _hook_warnings(manager: pluggy.PluginManager, module: Any) -> tuple[str, ...]:
    """Return a sentence for every hook without its mark, and every mark without its hook."""
    hooks = set(HOOKS.values())
    warnings = []
    for name in dir(module):
        marked = manager.parse_hookimpl_opts(module, name) is not None
        if marked and name not in hooks:
            near = near_matches(name, hooks)
            warnings.append(f"hook '{name}' is unknown (HOOK_API {HOOK_API}) and ignored{near}")
        if not marked and name in hooks and callable(getattr(module, name)):
            warnings.append(f"function '{name}' is ignored: put @hookimpl above it")
    return tuple(warnings)


def _collector(kind: Kind, source: _Source, components: list[Component]) -> Callable[..., None]:
    """Return the function ``register`` that the hook of a kind is given."""

    def register(
        name: str,
        factory: Callable[..., Any] | str,
        *,
        config: type[BaseModel] | str | None = None,
        summary: str = "",
    ) -> None:
        if ":" in name:
            msg = f"{kind} name '{name}' must not contain ':'"
            raise PluginError(msg)
        if any(c.kind == kind and c.name == name for c in components):
            msg = f"{kind} '{name}' is registered twice by {source.distribution}"
            raise PluginError(msg)
        origin = (source.name, source.distribution, source.version)
        components.append(Component(kind, name, factory, config, summary, *origin))

    return register


# -- defects ----------------------------------------------------------------------------------


def defects(plugin: Plugin) -> list[str]:
    """Return a sentence for every path that leads nowhere and every pipeline that is not TOML.

    Modules are searched as text, so that nothing heavy is imported.
    """
    sentences = []
    for c in plugin.components:
        for path in (p for p in (c.factory, c.config) if isinstance(p, str)):
            if (c.kind != "pipeline" or _PATH.fullmatch(path)) and (reason := _missing(path)):
                sentences.append(f"{c.kind} '{c.name}': '{path}' leads nowhere: {reason}")
        if c.kind == "pipeline" and (reason := _not_toml(c)):
            sentences.append(f"pipeline '{c.name}': {reason}")
    return sentences


def _not_toml(pipeline: Component) -> str:
    try:
        tomllib.loads(pipeline.build())
    except tomllib.TOMLDecodeError as error:
        return f"its text is not valid TOML: {error}"
    except Exception as error:  # code of a plugin may fail in any way
        cause = error.__cause__
        why = raised(cause) if isinstance(cause, Exception) else first_line(error)
        return f"its text cannot be read: {why}"
    return ""


def _missing(path: str) -> str:
    """Return why ``"package.module:name"`` leads nowhere, empty if it seems to lead somewhere."""
    module, _, name = path.partition(":")
    if not name:
        return "write package.module:name"
    if module in sys.modules:
        return "" if hasattr(sys.modules[module], name) else f"'{module}' has no '{name}'"
    file = _file_of(module)
    if file is None:
        return f"there is no module '{module}'"
    if file.suffix != ".py":
        return ""
    text = file.read_text(encoding="utf-8", errors="replace")
    if re.search(rf"\b{re.escape(name)}\b|import \*|def __getattr__", text):
        return ""
    return f"'{module}' has no '{name}'"


def _file_of(module: str) -> Path | None:
    """Return the file of a module; neither it nor its parents are imported."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for name in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{name}", list(spec.submodule_search_locations))
    return None if spec is None or spec.origin is None else Path(spec.origin)
