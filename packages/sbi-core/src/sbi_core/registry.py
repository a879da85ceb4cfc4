"""Discovery of plugins and the typed registry of what they offer.

Entry-point group ``sbi_core``: the name is the plugin name, the object a module of hook
implementations. Every entry point is loaded on its own, so that a broken plugin costs only
itself; nothing is global: a :class:`Registry` is built when it is needed.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

import pluggy

from sbi_core import hookspecs
from sbi_core.errors import ComponentNotFoundError, PluginError, near_matches
from sbi_core.hookspecs import HOOK_API, PROJECT

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["KINDS", "Component", "Kind", "Plugin", "Registry", "domain_package"]

Kind = Literal["simulator", "embedding", "estimator", "combiner", "pipeline"]
KINDS: tuple[Kind, ...] = ("simulator", "embedding", "estimator", "combiner", "pipeline")
GROUP = "sbi_core"
BUILTIN = "sbi-core"
_DOMAIN_PACKAGES = ("chempy", "casbi", "sfh", "sedflow")


def domain_package(plugin: str) -> str | None:
    """Return the distribution that provides one of this project's plugins, or None."""
    return f"sbi-{plugin}" if plugin in _DOMAIN_PACKAGES else None


@dataclass(frozen=True, slots=True)
class Component:
    """One registered component: how to build it and where it comes from."""

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
        if isinstance(self.config, str):
            return cast("type[BaseModel]", _resolve(self.config))
        return self.config

    def build(self, options: Mapping[str, Any] | None = None) -> Any:
        """Validate the options and call the factory.

        Raises
        ------
        ConfigError
            If an option is unknown or ill-typed.
        """
        from sbi_core.errors import ConfigError
        from sbi_core.validation import validate

        make = _resolve(self.factory) if isinstance(self.factory, str) else self.factory
        model = self.options
        if model is None:
            if options:
                msg = f"{self.kind} '{self.name}' takes no options, got {sorted(options)}"
                raise ConfigError(msg)
            return make()
        return make(validate(model, options or {}, self.kind))


def _resolve(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One installed plugin, loaded or not."""

    name: str
    distribution: str
    version: str
    status: Literal["loaded", "blocked", "failed"]
    problem: str = ""
    components: tuple[Component, ...] = ()
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Source:
    """Where a plugin module comes from."""

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
        Plugin names to load at first; the rest is loaded when a name is not found among
        them. None loads all.
    extra
        More plugins, by name: modules or objects with hook implementations (for tests and
        notebooks).
    """

    def __init__(
        self, only: Iterable[str] | None = None, *, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._sources = _discover()
        for name, module in (extra or {}).items():
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
        if not _allowed(name):
            plugin = Plugin(name, source.distribution, source.version, "blocked")
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

    # -- what is there -------------------------------------------------------------

    @property
    def plugins(self) -> list[Plugin]:
        """The plugins loaded so far, with their problems."""
        return list(self._plugins.values())

    @property
    def installed(self) -> list[str]:
        """Names of all installed plugins, loaded or not, without the built-in one."""
        return [name for name in self._sources if name != BUILTIN]

    def components(self, kind: Kind | None = None) -> list[Component]:
        """Return the components loaded so far."""
        found = [c for cs in self._components.values() for c in cs]
        return [c for c in found if kind is None or c.kind == kind]

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
            msg = f"plugin '{name}' is blocked by SBI_LOAD_PLUGINS or SBI_BLOCK_PLUGINS"
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
            If two distributions offer that name.
        """
        distribution, _, bare = name.rpartition(":")
        found = self._matching(kind, bare, distribution)
        if not found:
            self.load_all()
            found = self._matching(kind, bare, distribution)
        if not found:
            raise ComponentNotFoundError(self._not_found(kind, name))
        if len(found) > 1:
            who = " and ".join(sorted(c.distribution for c in found))
            choices = " or ".join(sorted(f"'{c.distribution}:{bare}'" for c in found))
            msg = f"{kind} '{bare}' is offered by {who}; write {choices}"
            raise PluginError(msg)
        return found[0]

    def _matching(self, kind: Kind, name: str, distribution: str) -> list[Component]:
        found = self._components.get((kind, name), [])
        return [c for c in found if not distribution or c.distribution == distribution]

    def _not_found(self, kind: Kind, name: str) -> str:
        known = sorted({c.name for c in self.components(kind)})
        msg = f"unknown {kind} '{name}'{near_matches(name, known)} (known: {', '.join(known)})"
        package = domain_package(name)
        if package is not None and name not in self._sources:
            msg = f"{kind} '{name}' is not installed; run: pip install {package}"
        failed = [p.name for p in self.plugins if p.status == "failed"]
        if failed:
            msg += f"; plugins that failed to load: {', '.join(failed)} (see `sbi-run plugins`)"
        return msg

    def build(self, kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Find a component and build it with the given options."""
        return self.find(kind, name).build(options)


def _same(module: Any) -> Any:
    return module


def _discover() -> dict[str, _Source]:
    from sbi_core import __version__

    sources = {
        BUILTIN: _Source(
            BUILTIN,
            BUILTIN,
            __version__,
            lambda: importlib.import_module("sbi_core.builtin_plugin"),
        )
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

    def load() -> Any:
        msg = f"plugin name '{one.name}' is used by {who}; uninstall one of them"
        raise PluginError(msg)

    return _Source(one.name, who, "", load)


def _source(entry: EntryPoint) -> _Source:
    dist = entry.dist
    name = dist.name if dist is not None else "unknown distribution"
    version = dist.version if dist is not None else "0"
    needs = () if dist is None else _unmet(dist.requires or ())
    return _Source(entry.name, name, version, entry.load, needs)


def _unmet(requires: Iterable[str]) -> tuple[str, ...]:
    """Say when a distribution asks for another version of sbi-core than this one."""
    from sbi_core import __version__

    mine = [r for r in requires if re.match(r"sbi[-_.]core\b", r, re.IGNORECASE)]
    if not mine:
        return ()
    from packaging.requirements import InvalidRequirement, Requirement

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


def _allowed(name: str) -> bool:
    def names(variable: str) -> set[str] | None:
        value = os.environ.get(variable)
        return None if value is None else {n.strip() for n in value.split(",") if n.strip()}

    if name == BUILTIN:
        return True
    load, block = names("SBI_LOAD_PLUGINS"), names("SBI_BLOCK_PLUGINS")
    return (load is None or name in load) and name not in (block or set())


def _load_plugin(source: _Source) -> Plugin:
    found: list[Component] = []
    warnings: tuple[str, ...] = ()
    try:
        module = source.load()
        api = _contract(source, module)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(module, name=source.name)
        warnings = (
            *source.warnings,
            *_newer_contract(api),
            *_unknown_hooks(manager, module),
            *_renamed_hooks(manager, module),
        )
        for kind in KINDS:
            name = f"register_{kind}s"
            register = _collector(kind, source, found, lenient=api > HOOK_API)
            getattr(manager.hook, name)(register=register)
            for old in (o for o, new in hookspecs.RENAMED.items() if new == name):
                getattr(module, old, _nothing)(register)
    except (Exception, SystemExit) as error:  # a stranger's code may fail in any way
        problem = f"{type(error).__name__}: {error}"
        return Plugin(source.name, source.distribution, source.version, "failed", problem)
    return Plugin(
        source.name, source.distribution, source.version, "loaded", "", tuple(found), warnings
    )


def _nothing(register: Callable[..., None]) -> None:
    """Register nothing."""


def _contract(source: _Source, module: Any) -> int:
    """Return the HOOK_API that a plugin states it was written for; this one where it is silent.

    Raises
    ------
    PluginError
        If it is older than what is still supported, or no number.
    """
    stated = getattr(module, "HOOK_API", HOOK_API)
    if not isinstance(stated, int):
        msg = f"HOOK_API of the plugin is {stated!r}: state a whole number, now {HOOK_API}"
        raise PluginError(msg)
    if stated < hookspecs.OLDEST_HOOK_API:
        msg = (
            f"it was written for HOOK_API {stated}, this sbi-core supports "
            f"{hookspecs.OLDEST_HOOK_API} to {HOOK_API}; run: pip install -U {source.distribution}"
        )
        raise PluginError(msg)
    return stated


def _newer_contract(api: int) -> tuple[str, ...]:
    if api <= HOOK_API:
        return ()
    return (
        f"it was written for HOOK_API {api}, this sbi-core has {HOOK_API}: what is new in it is "
        "ignored; run: pip install -U sbi-core",
    )


def _renamed_hooks(manager: pluggy.PluginManager, module: Any) -> tuple[str, ...]:
    return tuple(
        f"hook '{old}' is now called '{new}'; the old name goes away in the next minor release"
        for old, new in hookspecs.RENAMED.items()
        if manager.parse_hookimpl_opts(module, old) is not None
    )


def _unknown_hooks(manager: pluggy.PluginManager, module: Any) -> tuple[str, ...]:
    known = {f"register_{kind}s" for kind in KINDS}
    names = [
        n
        for n in dir(module)
        if n not in hookspecs.RENAMED and manager.parse_hookimpl_opts(module, n) is not None
    ]
    return tuple(
        f"hook '{n}' is not known to this sbi-core (HOOK_API {HOOK_API})"
        f"{near_matches(n, known)}; it is ignored, a newer sbi-core may know it"
        for n in names
        if n not in known
    )


def _collector(
    kind: Kind, source: _Source, found: list[Component], *, lenient: bool = False
) -> Callable[..., None]:
    """Return what hooks are given; ``lenient``: keywords of a newer contract are ignored."""

    def register(
        name: str,
        factory: Callable[..., Any] | str,
        *,
        config: type[BaseModel] | str | None = None,
        summary: str = "",
        **unknown: Any,
    ) -> None:
        if unknown and not lenient:
            msg = (
                f"register() of {kind} '{name}' got {sorted(unknown)}, which HOOK_API {HOOK_API} "
                "does not know; a plugin for a newer sbi-core states its HOOK_API"
            )
            raise PluginError(msg)
        if ":" in name:
            msg = f"{kind} name '{name}' must not contain ':'"
            raise PluginError(msg)
        if any(c.kind == kind and c.name == name for c in found):
            msg = f"{kind} '{name}' is registered twice by {source.distribution}"
            raise PluginError(msg)
        found.append(
            Component(
                kind,
                name,
                factory,
                config,
                summary,
                source.name,
                source.distribution,
                source.version,
            )
        )

    return register
