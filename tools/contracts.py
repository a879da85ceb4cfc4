"""Who may import whom, checked for every package that is present.

import-linter checks the graph; its configuration is generated here from what lies below packages/,
so a new domain package is covered on the day its folder appears:

1. ``sbi_core`` never imports a domain package.
2. Domain packages never import each other.
3. Inside ``sbi_core``, imports point down the layers of ``LAYERS`` (architecture, section 1).
4. ``sbi_core.diagnostics`` are functions of arrays: they import nothing else of ``sbi_core``.
5. ``sbi_core.adapters`` is the only importer of the sbi package.

A graph of modules cannot see *names*, so the sixth rule is read from the syntax trees:

6. Domain packages (and the examples) use only the names in ``sbi_core.__all__`` and the module
   ``sbi_core.testing``.
"""

import ast
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workspace import Package, examples, packages

# Highest first. "|" siblings must not import each other, ":" siblings may. A module that does not
# exist yet is skipped; a module of sbi_core that is in no layer is an error.
LAYERS = (
    "cli | testing",
    "api",
    "pipeline",
    "plot",
    "report",
    "refine",
    "combiners",
    "estimators",
    "diagnostics",
    "embeddings",
    "adapters",
    "simulate",
    "training",
    "files",
    "analyses",
    "posterior",
    "components",
    "priors",
    "data",
    "registry : builtin_plugin : simulations_plugin",
    "hookspecs",
    "validation",
    "rng | threads",
    "progress",
    "errors",
)
# The public front (and what `python -m` runs) stands above all layers.
UNLAYERED = {"__init__", "__main__", "_version"}

HEADER = """\
[importlinter]
root_packages =
{roots}
include_external_packages = True
exclude_type_checking_imports = True
"""


def main() -> int:
    present = [package for package in packages() if _init(package).is_file()]
    core = next((package for package in present if package.is_core), None)
    if core is None:
        print("no sbi_core to check")
        return 0
    domains = [package for package in present if not package.is_core]

    complaints = [*_unplaced(core), *_private_names(core, [*domains, *examples()])]
    for complaint in complaints:
        print(complaint)
    graph_status = _lint_graph(core, domains)
    return 1 if complaints else graph_status


# ------------------------------------------------------------------------------- import-linter


def _lint_graph(core: Package, domains: list[Package]) -> int:
    from importlinter.cli import lint_imports

    sys.path[:0] = [str(package.src) for package in [core, *domains]]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "importlinter.ini"
        file.write_text(_configuration(core, domains), encoding="utf-8")
        return int(lint_imports(config_filename=str(file), cache_dir=folder))


def _configuration(core: Package, domains: list[Package]) -> str:
    names = [package.import_name for package in domains]
    children = _children(core)
    parts = [HEADER.format(roots=_lines([core.import_name, *names]))]
    if names:
        parts.append(
            _contract("core-knows-no-domain", "sbi_core imports no domain package", "forbidden")
            + f"source_modules =\n{_lines([core.import_name])}\n"
            + f"forbidden_modules =\n{_lines(names)}\n"
        )
    if len(names) > 1:
        parts.append(
            _contract("domains-apart", "Domain packages do not import each other", "independence")
            + f"modules =\n{_lines(names)}\n"
        )
    parts.append(
        _contract("layers", "Inside sbi_core, imports point down", "layers")
        + f"layers =\n{_lines(_optional(layer) for layer in LAYERS)}\n"
        + f"containers =\n{_lines([core.import_name])}\n"
    )
    others = sorted(children - {"diagnostics"})
    if "diagnostics" in children and others:
        parts.append(
            _contract("diagnostics-alone", "Diagnostics are functions of arrays", "forbidden")
            + "source_modules =\n    sbi_core.diagnostics\n"
            + f"forbidden_modules =\n{_lines(f'sbi_core.{name}' for name in others)}\n"
            # sbi_core/__init__ runs anyway when a submodule is imported; that is not a use of it.
            + "allow_indirect_imports = True\n"
        )
    others = sorted(children - {"adapters"})
    if others:
        parts.append(
            _contract("one-adapter", "Only sbi_core.adapters imports sbi", "forbidden")
            + f"source_modules =\n{_lines(f'sbi_core.{name}' for name in others)}\n"
            + "forbidden_modules =\n    sbi\n"
            + "allow_indirect_imports = True\n"
        )
    return "\n".join(parts)


def _contract(key: str, name: str, kind: str) -> str:
    return f"[importlinter:contract:{key}]\nname = {name}\ntype = {kind}\n"


def _lines(items: Iterator[str] | list[str]) -> str:
    return "\n".join(f"    {item}" for item in items)


def _optional(layer: str) -> str:
    """``a | b`` -> ``(a) | (b)``: import-linter skips a parenthesised module that is absent."""
    for separator in (" | ", " : "):
        if separator in layer:
            return separator.join(f"({name})" for name in layer.split(separator))
    return f"({layer})"


# ------------------------------------------------------------------------------ own, by syntax


def _children(core: Package) -> set[str]:
    """Names of the modules and packages directly inside sbi_core."""
    folder = core.src / core.import_name
    modules = {file.stem for file in folder.glob("*.py")}
    subpackages = {file.parent.name for file in folder.glob("*/__init__.py")}
    return (modules | subpackages) - UNLAYERED


def _unplaced(core: Package) -> Iterator[str]:
    placed = {name for layer in LAYERS for name in layer.split() if name not in "|:"}
    for name in sorted(_children(core) - placed):
        yield f"sbi_core.{name} is in no layer: give it a place in LAYERS of tools/contracts.py"


def _private_names(core: Package, users: list[Package]) -> Iterator[str]:
    public = _public_names(core)
    for package in users:
        for file in sorted(package.src.rglob("*.py")):
            where = f"{package.path.name}/{file.relative_to(package.path)}"
            try:
                tree = ast.parse(file.read_text(encoding="utf-8"))
            except SyntaxError as error:
                yield f"{where}:{error.lineno}: {error.msg}"
                continue
            for line, name in _uses_of_core(tree):
                if name.split(".")[0] not in public | {"testing"}:
                    yield f"{where}:{line}: sbi_core.{name} is not in sbi_core.__all__"


def _public_names(core: Package) -> set[str]:
    # Imported, not parsed: the front may compute its __all__. Its import is light by design.
    sys.path.insert(0, str(core.src))
    return set(importlib.import_module(core.import_name).__all__)


def _uses_of_core(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name below sbi_core) of every use of the core in one module."""
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root, _, rest = alias.name.partition(".")
                if root == "sbi_core":
                    if rest:
                        yield node.lineno, rest
                    aliases.add(alias.asname or root)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            root, _, rest = node.module.partition(".")
            if root == "sbi_core":
                for alias in node.names:
                    yield node.lineno, f"{rest}.{alias.name}" if rest else alias.name
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
            and not node.attr.startswith("__")
        ):
            yield node.lineno, node.attr


def _init(package: Package) -> Path:
    return package.src / package.import_name / "__init__.py"


if __name__ == "__main__":
    sys.exit(main())
