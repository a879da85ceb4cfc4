"""Hooks a plugin may implement; all are optional.

Each hook receives ``register(name, factory, *, config=ConfigModel, summary="one line")``. A
factory is called with the validated options and builds the object; nothing heavy happens at
discovery.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

if TYPE_CHECKING:
    import click
    from pydantic import BaseModel

    from sbi_core.analyses import Analysis
    from sbi_core.components import Combiner, Embedding, Estimator, Simulator

__all__ = ["HOOK_API", "PROJECT", "Register", "hookimpl", "hookspec"]

PROJECT = "sbi_core"
HOOK_API = 1  # recorded in every run; raised when a hook changes its meaning

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
def register_analyses(register: Register[Analysis]) -> None:
    """Register analyses: ``register(name, factory, config=..., summary=...)``."""


@hookspec
def register_pipelines(register: Register[str]) -> None:
    """Register pipelines: ``register(name, factory, summary=...)``.

    The factory takes no options and returns the text of a TOML file that names the five
    components and their options for each preset.
    """


@hookspec
def register_commands(register: Register[click.Command]) -> None:
    """Register commands: ``register(name, "package.module:command", summary=...)``.

    The click command ``NAME`` of plugin ``PLUGIN`` is ``sbi-run PLUGIN NAME``. Give its path as
    text: it is imported when the command is used.
    """
