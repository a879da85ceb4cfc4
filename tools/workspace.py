"""What lies below packages/ and examples/: the one place that discovers it."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Package", "examples", "packages"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Package:
    """One folder with a pyproject.toml and a src/ layout."""

    name: str
    path: Path
    plugins: tuple[str, ...]
    extras: tuple[str, ...]

    @property
    def import_name(self) -> str:
        return re.sub(r"[-.]+", "_", self.name)

    @property
    def src(self) -> Path:
        return self.path / "src"

    @property
    def tests(self) -> Path:
        return self.path / "tests"

    @property
    def is_core(self) -> bool:
        return self.name == "sbi-core"


def packages(root: Path = ROOT) -> list[Package]:
    """Every package below packages/, the core first."""
    discovered = _discover(root / "packages")
    return sorted(discovered, key=lambda package: (not package.is_core, package.name))


def examples() -> list[Package]:
    """Third-party plugins below examples/."""
    return _discover(ROOT / "examples")


def _discover(folder: Path) -> list[Package]:
    return [_read(file) for file in sorted(folder.glob("*/pyproject.toml"))]


def _read(file: Path) -> Package:
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return Package(
        name=project["name"],
        path=file.parent,
        plugins=tuple(project.get("entry-points", {}).get("sbi_core", {})),
        extras=tuple(project.get("optional-dependencies", {})),
    )
