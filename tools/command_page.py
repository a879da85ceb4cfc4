"""Write docs/cli.md from the help of every command, those of the plugins included.

``python tools/command_page.py`` replaces what stands between ``<!-- begin commands -->`` and
``<!-- end -->``; a test compares.
"""

import inspect
import re
import sys
from collections.abc import Iterator

import click
from workspace import ROOT

from sbi_core.cli import app

PAGE = ROOT / "docs" / "cli.md"
PLUGINS = ("chempy", "casbi", "sfh", "sedflow")
_WIDEST = 72  # characters of a command in one line of the page
_WORDS = re.compile(r"(?<![`\w])(--?[a-z][\w-]*|[\w/-]+\.(?:toml|html|json|nc|ecsv))(?![`\w])")

_EXTRAS = (  # what click appends to the help of an option
    (re.compile(r"\[default: \(?(.*?)\)?(?:; x.*?)?\]$"), r"Default: \1."),
    (re.compile(r"\[required\]$"), "Required."),
    (re.compile(r"\[x.=.*\]$"), ""),
)


def main() -> int:
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def filled(text: str) -> str:
    """Return the page with all commands as the code has them."""
    body = "\n".join(line for words, command in commands() for line in entry(words, command))
    found = re.search(r"(.*<!-- begin commands -->\n).*?(<!-- end -->.*)", text, re.DOTALL)
    assert found is not None
    return found[1] + body + found[2]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words that call it."""
    context = click.Context(app, info_name="sbi-run")
    for name in [*app.list_commands(context), *PLUGINS]:
        command = app.get_command(context, name)
        assert command is not None
        yield from below(name, command, context)


def below(
    words: str, command: click.Command, parent: click.Context
) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command, info_name=words, parent=parent)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from below(f"{words} {name}", inner, context)


def entry(words: str, command: click.Command) -> Iterator[str]:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["sbi-run", words, *(_metavar(a) for a in arguments)])
    yield from (f"## `{usage}`", "", *paragraphs(command.help or ""))
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines()]
        calls = [wrapped(f"$ {line}") for line in lines if line.startswith("sbi-run")]
        yield from ("<!-- shown only -->", "```console", *calls, "```", "")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        yield from ("| option | meaning |", "|---|---|", *map(row, options), "")


def wrapped(command: str) -> str:
    """Return a command that is continued on further lines where it is wider than the page."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) > _WIDEST:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return "\n".join(lines)


def _metavar(argument: click.Argument) -> str:
    name = argument.metavar or str(argument.name).upper()
    many = argument.nargs != 1 and not name.endswith("...")
    return f"{name}..." if many else name


def paragraphs(text: str) -> Iterator[str]:
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("\b"):
            yield from ("```text", *block.splitlines()[1:], "```", "")
        else:
            yield from (block, "")


def row(option: click.Option) -> str:
    context = click.Context(click.Command("x"))
    name = ", ".join(f"`{o}`" for o in option.opts)
    if not option.is_flag:
        name = f"`{option.opts[-1]} {option.make_metavar(context)}`"
    _, meaning = option.get_help_record(context) or ("", "")
    for pattern, words in _EXTRAS:
        meaning = pattern.sub(words, meaning)
    cells = name, _WORDS.sub(r"`\1`", " ".join(meaning.split()))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
