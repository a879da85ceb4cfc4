"""``sbi-run new-plugin NAME``: a package to start from, which installs, passes and runs at once."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import click

from sbi_core import __version__
from sbi_core.cli.groups import COMMANDS, examples
from sbi_core.errors import ConfigError
from sbi_core.registry import BUILTIN, Registry, domain_package

__all__ = ["command"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_FILES = {  # template -> place in the package
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "gitignore.txt": ".gitignore",
    "test.yml.txt": ".github/workflows/test.yml",
    "init.py.txt": "src/@MODULE@/__init__.py",
    "simulator.py.txt": "src/@MODULE@/simulator.py",
    "test_conformance.py.txt": "tests/test_conformance.py",
}


@click.command("new-plugin", epilog=examples("sbi-run new-plugin fading-star"))
@click.argument("name")
@click.option(
    "--dir", "parent", metavar="DIR", default=".", show_default="the current folder",
    help="Folder in which the package is created.",
)  # fmt: skip
def command(name: str, parent: str) -> None:
    """Write a small plugin package, sbi-NAME, as a starting point.

    The package can be installed, passes the conformance checks and runs.
    """
    plugin = _checked(name)
    folder = Path(parent) / f"sbi-{plugin}"
    if folder.exists():
        what = "directory" if folder.is_dir() else "file"
        msg = f"the {what} '{folder}' exists; choose another name, another --dir, or move it away"
        raise ConfigError(msg)
    words = _words(plugin)
    try:
        for template, place in _FILES.items():
            path = folder / _filled(place, words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(_template(template), words), encoding="utf-8")
    except OSError as error:
        msg = f"cannot write to '{folder}': {error.strerror or error}"
        raise ConfigError(msg) from None
    module = folder / "src" / words["MODULE"] / "simulator.py"
    click.echo(f"{folder}: your model goes into {module}\n")
    click.echo(f"    cd {folder} && pip install -e '.[test]' && pytest")
    click.echo(f"    sbi-run --plugin {plugin} --preset quick")


def _checked(name: str) -> str:
    """Return the plugin's name, without the prefix of distributions.

    Raises
    ------
    ConfigError
        If it cannot be a name, or is the name of a plugin or of a command.
    """
    plugin = name.removeprefix("sbi-")
    if not _NAME.fullmatch(plugin) or len(plugin) > 40:
        better = re.sub(r"[^a-z0-9]+", "-", plugin.lower()).strip("-0123456789")[:40].strip("-")
        hint = f", e.g. '{better}'" if _NAME.fullmatch(better) else ""
        msg = (
            f"'{name}' cannot be the name of a plugin: use lower-case letters, digits and single "
            f"dashes, beginning with a letter, at most 40 characters{hint}"
        )
        raise ConfigError(msg)
    registry = Registry([])
    if plugin in registry.installed:
        msg = (
            f"a plugin '{plugin}' is installed already; choose another name (see `sbi-run plugins`)"
        )
        raise ConfigError(msg)
    if plugin in COMMANDS:
        msg = f"'{plugin}' is a command of sbi-run; choose another name"
        raise ConfigError(msg)
    package = domain_package(plugin)
    if package is not None or plugin == BUILTIN.removeprefix("sbi-"):
        msg = f"'{plugin}' is the name of {package or BUILTIN}; choose another name"
        raise ConfigError(msg)
    return plugin


def _words(plugin: str) -> dict[str, str]:
    """Return what the marks @WORD@ of the template stand for."""
    major, minor = (int(part) for part in __version__.split(".")[:2])
    return {
        "NAME": plugin,
        "DISTRIBUTION": f"sbi-{plugin}",
        "MODULE": f"sbi_{plugin.replace('-', '_')}",
        "CLASS": "".join(part.capitalize() for part in plugin.split("-")),
        "CORE": f">={major}.{minor},<{major}.{minor + 1}",
    }


def _template(name: str) -> str:
    return files("sbi_core.cli").joinpath("plugin_template", name).read_text(encoding="utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda mark: words[mark[1]], text)
