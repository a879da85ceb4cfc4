"""Hooks a plugin may implement; all are optional.

Each hook receives ``register(name, factory, *, config=ConfigModel, summary="one line")``. A
factory is called with the validated options and builds the object; nothing heavy happens at
discovery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sbi_core.components import Combiner, Embedding, Estimator, Simulator

__all__ = [
    "HOOK_API",
    "OLDEST_HOOK_API",
    "PROJECT",
    "RENAMED",
    "Register",
    "hookimpl",
    "hookspec",
]

PROJECT = "sbi_core"
HOOK_API = 1  # recorded in every run; raised when a hook changes its meaning
OLDEST_HOOK_API = 1  # plugins written for an older one are refused; raised a minor release later
# Old names of hooks and what they are called now: implementations work for one minor release, with
# a warning.
RENAMED: Mapping[str, str] = {}

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

T_co = TypeVar("T_co", covariant=True)


class Register(Protocol[T_co]):
    """The callable a hook receives."""

    def __call__(
        self,
        name: str,
        factory: Callable[..., Any] | str,
        *,
        config: type[BaseModel] | str | None = None,
        summary: str = "",
    ) -> None:
        """Register ``factory`` under ``name``.

        ``config`` is the pydantic model of its options, or ``"module:Class"`` when importing
        the model would import something heavy. ``factory`` may be ``"module:Class"`` too.
        """
        ...


@hookspec
def register_simulators(register: Register[Simulator]) -> None:
    """Register simulators: ``register(name, factory, config=..., summary=...)``."""


@hookspec
def register_embeddings(register: Register[Embedding]) -> None:
    """Register embeddings: ``register(name, factory, config=..., summary=...)``."""


@hookspec
def register_estimators(register: Register[Estimator]) -> None:
    """Register estimators: ``register(name, factory, config=..., summary=...)``."""


@hookspec
def register_combiners(register: Register[Combiner]) -> None:
    """Register combiners: ``register(name, factory, config=..., summary=...)``."""


@hookspec
def register_pipelines(register: Register[str]) -> None:
    """Register pipelines: ``register(name, factory, summary=...)``.

    The factory takes no options and returns the text of a TOML file that names the four
    components and their options for each preset.
    """
