"""Write recipe/recipe.yaml: the packages for conda, with the dependencies of their pyproject.toml.

``python tools/recipe.py``; a test compares the file with what this would write. It builds
the tree; a submission to a channel has the released sdists, with their SHA-256, as sources instead.
"""

import re
import tomllib
from typing import Any

from workspace import ROOT, Package, packages

__all__ = ["recipe"]

# names that differ on conda-forge
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "lazy_loader": "lazy-loader"}

HEADER = """\
# Written by tools/recipe.py. One recipe, one output per package: they share a repository.
schema_version: 1

context:
  python_min: "3.11"

recipe:
  name: sbi-astro
  version: "{version}"

outputs:
"""

OUTPUT = """\
  - package:
      name: {name}
      version: "{version}"
    source:
      path: ../packages/{folder}
    build:
      number: 0
      noarch: python
      script: python -m pip install . -vv --no-deps --no-build-isolation
{scripts}    requirements:
      host:
        - python ${{{{ python_min }}}}.*
        - pip
        - hatchling >=1.24
      run:
        - python >=${{{{ python_min }}}}
{run}    tests:
      - python:
          imports:
            - {module}
          pip_check: true
          python_version: ${{{{ python_min }}}}.*
      - script:
          - sbi-run plugins
    about:
      license: BSD-3-Clause
      license_file: LICENSE
      summary: {summary}
"""


def recipe(wanted: list[Package]) -> str:
    """Return the text of the recipe."""
    core = next(package for package in wanted if package.is_core)
    parts = [HEADER.format(version=_version(core))]
    parts += [_output(package) for package in wanted]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _output(package: Package) -> str:
    project = _project(package)
    scripts = [f"{k} = {v}" for k, v in project.get("scripts", {}).items()]
    entry_points = "".join(f"          - {line}\n" for line in scripts)
    return OUTPUT.format(
        name=package.name,
        module=package.import_name,
        folder=package.path.name,
        version=_version(package),
        scripts=f"      python:\n        entry_points:\n{entry_points}" if scripts else "",
        run="".join(f"        - {_conda(line)}\n" for line in project["dependencies"]),
        summary=_quoted(project["description"]),
    )


def _conda(requirement: str) -> str:
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", requirement)
    assert match is not None
    return f"{NAMES.get(match[1], match[1].lower().replace('_', '-'))} {match[2]}".strip()


def _quoted(text: str) -> str:
    return f'"{text}"'


def _project(package: Package) -> dict[str, Any]:
    text = (package.path / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _version(package: Package) -> str:
    init = (package.src / package.import_name / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', init, re.MULTILINE)
    assert match is not None
    return match[1]


if __name__ == "__main__":
    (ROOT / "recipe").mkdir(exist_ok=True)
    (ROOT / "recipe" / "recipe.yaml").write_text(recipe(packages()), encoding="utf-8")
