"""``sbi-run show NAME``: parameters, priors, observables, options and presets of a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sbi_core.priors.space import ParameterSpace
    from sbi_core.registry import Registry

__all__ = ["command"]


@click.command("show")
@click.argument("name")
@click.option("--preset", default="standard", show_default=True, help="Whose options to show.")
def command(name: str, preset: str) -> None:
    """Show parameters, priors, observables, options and presets of plugin NAME."""
    from sbi_core.registry import Registry

    registry = Registry([name])
    plugin = registry.plugin(name)

    from sbi_core.pipeline.config import resolve, to_toml

    config = resolve(registry, name, preset=preset)
    simulator = registry.build("simulator", config.simulator.name, config.simulator.options)
    click.echo(f"{plugin.name}  ({plugin.distribution} {plugin.version})\n")
    click.echo("parameters")
    for line in _parameters(simulator.parameters):
        click.echo(line)
    click.echo("\nobservables")
    for o in simulator.observables:
        click.echo(f"    {o.name:<16}{o.unit:<8}also: {', '.join(o.aliases) or '-'}")
    _options(registry, config)
    click.echo(f"\npresets: {', '.join(_presets(registry, name))}")
    click.echo(f"\noptions of preset '{preset}' (change with --set section.key=value)\n")
    click.echo(to_toml(config))


def _parameters(space: ParameterSpace) -> list[str]:
    """Name, scope (or how often it repeats), prior, unit and meaning, in columns."""
    from sbi_core.report.text import prior_words

    rows = []
    for p in (*space.parameters, *space.members):
        scope = f"x {p.repeat}" if p.repeat else p.scope
        rows.append((p.name, scope, prior_words(p.prior.to_spec()), p.unit, p.description))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = []
    for row in rows:
        cells = [f"{text:<{width}}" for text, width in zip(row[:4], widths, strict=True)]
        lines.append("    " + "  ".join([*cells, row[4]]).rstrip())
    return lines


def _presets(registry: Registry, name: str) -> list[str]:
    import tomllib

    return list(tomllib.loads(registry.build("pipeline", name)).get("presets", {}))


def _options(registry: Registry, config: Any) -> None:
    for kind in ("simulator", "embedding", "estimator", "combiner"):
        section = getattr(config, kind)
        model = registry.find(kind, section.name).options
        if model is not None and model.model_fields:
            click.echo(f"\noptions of {kind} '{section.name}'")
            for line in _fields(model):
                click.echo(line)


def _fields(model: type[BaseModel]) -> list[str]:
    return [
        f"    {name:<20}{field.default!r:<18}{field.description or ''}"
        for name, field in model.model_fields.items()
    ]
