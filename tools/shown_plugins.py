"""Write docs/plugins.md: what `sbi-run show` prints for every plugin of this project.

``python tools/shown_plugins.py`` writes the page; a test compares.
"""

import sys

from click.testing import CliRunner
from workspace import ROOT

from sbi_core.cli.show import command

PAGE = ROOT / "docs" / "plugins.md"
PLUGINS = {
    "chempy": "Stellar abundances to the initial mass function and the rate of SNe Ia",
    "casbi": "The abundance plane of a halo to its accreted dwarf galaxies",
    "sfh": "Spectra of galaxies to their star formation histories",
    "sedflow": "Photometry of galaxies to the parameters of PROVABGS",
}
HEAD = """# Parameters, options and presets of the plugins

The output of `sbi-run show NAME` for the preset `standard`. Every option can be changed with
`--set section.key=value`; [](configuration.md) explains the sections that all plugins share.
"""


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """Return the page as the installed plugins make it."""
    parts = [HEAD]
    for name, title in PLUGINS.items():
        parts.append(f"## {name}\n\n{title}.\n\n```text\n{shown(name)}\n```\n")
    return "\n".join(parts)


def shown(name: str) -> str:
    """Return what the command prints."""
    done = CliRunner().invoke(command, [name], catch_exceptions=False)
    return "\n".join(line.rstrip() for line in done.output.splitlines()).strip()


if __name__ == "__main__":
    sys.exit(main())
