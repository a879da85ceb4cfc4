"""Commands, imported when they are used: those of the core, those of plugins; exit codes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property

import click

from sbi_core.errors import near_matches
from sbi_core.registry import Component, Registry, domain_package

__all__ = [
    "COMMANDS",
    "EXIT_CALIBRATION",
    "EXIT_INTERRUPTED",
    "CoreGroup",
    "PluginGroup",
    "examples",
]

EXIT_CALIBRATION = 3
EXIT_INTERRUPTED = 130
COMMANDS = (  # in the order in which they are used
    "run",
    "show",
    "plugins",
    "infer",
    "combine",
    "compare",
    "refine",
    "report",
    "export",
    "cite",
    "data",
    "simulate",
    "tune",
    "new-plugin",
)


def examples(*lines: str) -> str:
    """Return the epilog of a command's help: calls that can be copied, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Group(click.Group):
    """A group that suggests names near a misspelt one and writes whole summaries."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.words(ctx)
            near = near_matches(args[0], known) or f" (known: {', '.join(known)})"
            ctx.fail(f"no command '{args[0]}'{near}")
        return super().resolve_command(ctx, args)

    def words(self, ctx: click.Context) -> list[str]:
        """Return the words that may stand first."""
        return self.list_commands(ctx)

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return what a command does, in one line: the first paragraph of its help."""
        command = self.get_command(ctx, name)
        text = (command and command.help) or ""
        return " ".join(text.partition("\n\n")[0].split())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of the commands with their summaries."""
        rows = [(name, self.summary(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class CoreGroup(Group):
    """The commands of the core, and a group for every installed plugin.

    Parameters
    ----------
    modules
        Command -> module with the attribute ``command``, in the order in which they are listed.
    attributes
        Those of ``click.Group``.
    """

    def __init__(self, *, modules: Mapping[str, str], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands of the core."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command of the core, or the group of a plugin."""
        if cmd_name in self._modules:
            command: click.Command = importlib.import_module(self._modules[cmd_name]).command
            return command

        registry = _registry(ctx)
        if cmd_name in registry.installed or domain_package(cmd_name):
            return PluginGroup(cmd_name, registry)
        return None

    def words(self, ctx: click.Context) -> list[str]:
        """Return the commands and the plugins."""
        return [*self._modules, *_registry(ctx).installed]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, and the plugins that are installed."""
        super().format_commands(ctx, formatter)
        names = ", ".join(_registry(ctx).installed)
        if names:
            with formatter.section("Plugins"):
                formatter.write_text(f"{names}. `sbi-run PLUGIN` lists the commands of a plugin.")


def _registry(ctx: click.Context) -> Registry:
    """Return one registry per call of the program; no plugin is loaded yet."""
    registry: Registry = ctx.meta.get("sbi_core.registry") or Registry([])
    ctx.meta["sbi_core.registry"] = registry
    return registry


class PluginGroup(Group):
    """The commands of one plugin: ``sbi-run NAME COMMAND``."""

    def __init__(self, name: str, registry: Registry) -> None:
        super().__init__(
            name,
            invoke_without_command=True,
            callback=_explain,
            help=f"Commands of the plugin {name}.\n\nTo run its pipeline: `sbi-run run {name}`. "
            f"To see its parameters, options and presets: `sbi-run show {name}`.",
        )
        self._plugin, self._registry = name, registry

    @cached_property
    def _components(self) -> dict[str, Component]:
        components = self._registry.plugin(self._plugin).components
        return {c.name: c for c in components if c.kind == "command"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; options of the pipeline belong behind `sbi-run run NAME`."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ctx.fail(
                f"'{ctx.command_path}' has no option {error.option_name}; to run the pipeline: "
                f"sbi-run run {self._plugin}"
            )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that the plugin registers."""
        return list(self._components)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        component = self._components.get(cmd_name)
        if component is None:
            return None
        command: click.Command = component.build()
        return command

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return the summary that the plugin registered; nothing is imported."""
        text = self._components[name].summary
        return text and f"{text[0].upper()}{text[1:].rstrip('.')}."


def _explain() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
