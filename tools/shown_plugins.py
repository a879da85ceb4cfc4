"""Write docs/plugins.md: what `sbi-run show` prints for every plugin of this project, as tables.

``python tools/shown_plugins.py`` writes the page; a test compares.
"""

import sys
from collections.abc import Iterable, Iterator

from click.testing import CliRunner
from workspace import ROOT

from sbi_core.cli.show import command, parameter_rows, preset_rows
from sbi_core.pipeline.config import resolve
from sbi_core.registry import Registry

PAGE = ROOT / "docs" / "plugins.md"
PLUGINS = {
    "chempy": "Stellar abundances to the initial mass function and the rate of SNe Ia",
    "casbi": "The abundance plane of a halo to its accreted dwarf galaxies",
    "sfh": "Spectra of galaxies to their star formation histories",
    "sedflow": "Photometry of galaxies to the parameters of PROVABGS",
}
HEAD = """# Parameters, options and presets of the plugins

As `sbi-run show NAME` prints them, for the preset `standard`. Every option can be changed with
`--set section.key=value`; [](configuration.md) explains the sections that all plugins share.
Times of presets are for two processor cores.
"""
_COMMENT = 4 + 32  # column of the descriptions of options, in what the command prints


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """Return the page as the installed plugins make it."""
    parts = [HEAD]
    for name, title in PLUGINS.items():
        parts.append(f"## {name}\n\n{title}.\n")
        parts += ["\n".join(lines) + "\n" for lines in sections(name)]
    return "\n".join(parts)


def sections(name: str) -> Iterator[list[str]]:
    """Yield parameters, nuisance parameters, input, presets and options of a plugin."""
    registry = Registry([name])
    config = resolve(registry, name, preset="standard")
    simulator = registry.build("simulator", config.simulator.name, config.simulator.options)
    names = ("parameter", "scope", "prior", "unit", "meaning")
    rows = [(f"`{row[0]}`", *row[1:]) for row in parameter_rows(simulator.parameters)]
    yield table(names, rows)
    if simulator.nuisances:
        families = (
            f"* {family}: {', '.join(f'`{p}`' for p in space.names)}"
            for family, space in simulator.nuisances.items()
        )
        yield ["Nuisance parameters, by family:", "", *families]
    shown = printed(name)
    yield ["Input:", "", "```text", *shown["input"], "```"]
    yield table(("preset", "size", "time"), preset_rows(registry, name))
    yield from options(next(lines for title, lines in shown.items() if title.startswith("options")))


def printed(name: str) -> dict[str, list[str]]:
    """Return the lines that the command prints, by title."""
    done = CliRunner().invoke(command, [name], catch_exceptions=False)
    found: dict[str, list[str]] = {"": []}
    for line in done.output.splitlines():
        if line and not line.startswith(" "):
            found[line] = []
        else:
            list(found.values())[-1].append(line[4:].rstrip())
    return {title: "\n".join(lines).strip("\n").split("\n") for title, lines in found.items()}


def options(lines: list[str]) -> Iterator[list[str]]:
    """Yield a table of the options of every section, and the names of options not shown."""
    section, rows, further = "", list[tuple[str, ...]](), ""
    for line in [*lines, "[end]"]:
        if line.startswith("["):
            if rows:
                yield table(("option", "value", "meaning"), rows)
            if further:
                names = further.removeprefix("further options: ").split(", ")
                yield [f"Further options of `{section[:-1]}`: {', '.join(map(code, names))}."]
            section, rows, further = f"{line.strip('[]')}.", [], ""
        elif line.startswith("# ") and " =" not in line[:_COMMENT]:
            further = f"{further} {line[2:]}".strip()
        elif line.strip():
            text, meaning = line[: _COMMENT - 4], line[_COMMENT - 4 :]
            if not meaning.startswith("# ") or text.strip()[-1:] == ",":
                text, meaning = line, ""
            if text.strip():
                key, _, value = text.removeprefix("# ").partition(" =")
                rows.append((code(section + key), code(value.strip()), ""))
            rows[-1] = (*rows[-1][:2], f"{rows[-1][2]} {meaning.removeprefix('# ')}".strip())


def code(text: str) -> str:
    """Return text in the type of code, or nothing."""
    return f"`{text}`" if text else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a table; columns that are empty in all rows are left out."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    kept = [k for k in range(len(head)) if any(row[k] for row in rows)]
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(line[k] for k in kept)} |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
