"""``sbi-run show NAME``: parameters, input, presets and options of a plugin."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sbi_core.cli.groups import examples
from sbi_core.errors import counted
from sbi_core.registry import Registry

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sbi_core.components import Simulator
    from sbi_core.pipeline.config import RunConfig
    from sbi_core.priors.space import ParameterSpace

__all__ = ["command", "parameter_rows", "preset_rows"]

_WIDTH = 104
_COMMENT = 32  # column of the descriptions


@click.command("show", epilog=examples("sbi-run show chempy", "sbi-run show sfh --preset large"))
@click.argument("name")
@click.option(
    "--preset", metavar="NAME", default="standard", show_default=True,
    help="Preset whose options are shown.",
)  # fmt: skip
def command(name: str, preset: str) -> None:
    """Show parameters, priors, input columns, presets and options of the plugin NAME."""
    registry = Registry([name])
    plugin = registry.plugin(name)

    from sbi_core.pipeline.config import resolve

    config = resolve(registry, name, preset=preset)
    simulator = registry.build("simulator", config.simulator.name, config.simulator.options)
    summary = registry.find("pipeline", name).summary
    click.echo(f"{plugin.name}  ({plugin.distribution} {plugin.version})  {summary}")
    for title, lines in (
        ("parameters", _columns(parameter_rows(simulator.parameters))),
        ("nuisance parameters, by family", _nuisances(simulator)),
        ("input", _inputs(simulator)),
        ("presets (time on two processor cores)", _columns(preset_rows(registry, name))),
        (
            f"options of preset '{preset}' (change with --set SECTION.KEY=VALUE)",
            _options(registry, config, simulator),
        ),
    ):
        content = list(lines)
        click.echo(f"\n{title}\n" if content else "", nl=bool(content))
        for line in content:
            click.echo(f"    {line}".rstrip())


def parameter_rows(space: ParameterSpace) -> list[tuple[str, ...]]:
    """Return name, scope, prior, unit and meaning of every parameter."""
    from sbi_core.report.text import prior_words

    rows: list[tuple[str, ...]] = []
    for p in (*space.parameters, *space.members):
        scope = f"{p.repeat} times" if p.repeat else p.scope
        rows.append((p.name, scope, prior_words(p.prior.to_spec()), p.unit, p.description))
    return rows


def _nuisances(simulator: Simulator) -> Iterator[str]:
    """Yield the families of nuisance parameters, with the names of their parameters."""
    for family, space in simulator.nuisances.items():
        yield from textwrap.wrap(f"{family}: {', '.join(space.names)}", subsequent_indent="    ")


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows whose cells but the last are padded to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]])


def _inputs(simulator: Simulator) -> Iterator[str]:
    if simulator.input_help:
        yield from textwrap.dedent(simulator.input_help).strip().splitlines()
        return
    rows = [(o.name, o.unit, ", ".join(o.aliases)) for o in simulator.observables]
    yield from _columns([("column", "unit", "other names"), *rows])
    yield "Errors: e_NAME, NAME_err or NAME_error. Identifiers: id."


def preset_rows(registry: Registry, name: str) -> list[tuple[str, ...]]:
    """Return name, size and time of every preset."""
    spec = tomllib.loads(registry.build("pipeline", name))
    base = spec.get("base", {}).get("simulate", {}).get("n")
    rows: list[tuple[str, ...]] = []
    for preset, sections in spec.get("presets", {}).items():
        n = sections.get("simulate", {}).get("n", base)
        minutes = spec.get("minutes", {}).get(preset)
        time = f"about {minutes:g} min" if minutes else "estimated when the run starts"
        rows.append((preset, counted(n, "simulation") if n else "", time))
    return rows


def _options(registry: Registry, config: RunConfig, simulator: Simulator) -> Iterator[str]:
    """Yield the options of all stages that run, as TOML with their meaning as comments."""
    from sbi_core.pipeline.config import ComponentSection
    from sbi_core.simulate.emulator import EmulatorConfig
    from sbi_core.training.config import TrainConfig

    yield from _assignments(config, ("seed", "device"))
    space = simulator.parameters.select(config.estimator.parameters)
    left_out = {"plugin", "preset", "seed", "device"}
    if not any(p.scope == "global" for p in space.parameters):
        left_out |= {"combiner", "combine"}
    for name in (n for n in type(config).model_fields if n not in left_out):
        section = getattr(config, name)
        yield ""
        yield f"[{name}]"
        if isinstance(section, ComponentSection):
            yield from _assignments(section, type(section).model_fields)
            model = registry.find(name, section.name).options  # type: ignore[arg-type]
            if model is not None:
                yield from _described(section.options, model)
        elif name == "emulate":
            yield from _assignments(section, ("enabled",))
            if section.enabled:
                yield from _changed(section.options, EmulatorConfig)
        elif name == "train":
            yield from _changed(section, TrainConfig)
        else:
            yield from _described(section.model_dump(), type(section))


def _assignments(section: BaseModel, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        field = type(section).model_fields[name]
        yield from _line(name, getattr(section, name), field.description)


def _described(
    values: Mapping[str, Any], model: type[BaseModel], names: Iterable[str] | None = None
) -> Iterator[str]:
    for name in model.model_fields if names is None else names:
        yield from _line(name, values.get(name), model.model_fields[name].description)


def _changed(values: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    """Yield the options that a preset sets, and the names of the others."""
    defaults = model().model_dump(mode="json")
    names = [name for name in defaults if values.get(name) != defaults[name]]
    yield from _described(values, model, names)
    others = ", ".join(name for name in defaults if name not in names)
    for line in textwrap.wrap(f"further options: {others}", _WIDTH - 6):
        yield f"# {line}"


def _line(name: str, value: Any, meaning: str | None) -> Iterator[str]:
    """Yield ``name = value  # meaning``; an option that is not set is a comment."""
    text = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
    comments = textwrap.wrap(meaning or "", _WIDTH - _COMMENT - 6)
    if len(text) > _COMMENT - 2 and comments:
        yield text
        text = ""
    for comment in comments:
        yield f"{text:<{_COMMENT}}# {comment}"
        text = ""
    if text:
        yield text


def _toml(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
