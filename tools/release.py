"""Make the version of a package that of a tag, or check that it is.

``python tools/release.py sbi-chempy-v0.2.0`` writes the version into the package (for ``sbi-core``
also into CITATION.cff) and dates the unreleased part of its changelog. With ``--check`` nothing is
written: the release workflow builds the folder that is printed only if version and changelog are
those of the tag. RELEASING.md has the steps.
"""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from workspace import ROOT, Package, packages

__all__ = ["checked", "release"]

TAG = re.compile(r"(?P<name>sbi-[a-z0-9-]+?)-v(?P<version>\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)")
VERSION = re.compile(r'^(__version__ = )"([^"]+)"$', re.MULTILINE)
UNRELEASED = re.compile(r"^## (?:\S+ \()?[Uu]nreleased\)?$", re.MULTILINE)
CITED = re.compile(r"^(version: )(.+)$", re.MULTILINE)


def release(tag: str, root: Path = ROOT) -> Package:
    """Write version and changelog of a tag; return the package.

    Raises
    ------
    ValueError
        If the tag has no package, or the changelog of the package no unreleased part.
    """
    package, version = _parts(tag, root)
    changes = _text(package.path / "CHANGELOG.md")
    if not UNRELEASED.search(changes):
        msg = f"{package.name}: CHANGELOG.md has no part '## Unreleased'; nothing to release"
        raise ValueError(msg)
    day = datetime.now(UTC).date()
    _write(package.path / "CHANGELOG.md", UNRELEASED.sub(f"## {version} ({day})", changes, count=1))
    for file, pattern, new in _places(package, version, root):
        _write(file, pattern.sub(new, _text(file), count=1))
    return package


def checked(tag: str, root: Path = ROOT) -> Package:
    """Return the package of a tag.

    Raises
    ------
    ValueError
        If its version or its changelog is not that of the tag.
    """
    package, version = _parts(tag, root)
    wrong = [
        file.relative_to(root).as_posix()
        for file, pattern, new in _places(package, version, root)
        if pattern.sub(new, text := _text(file), count=1) != text or not pattern.search(text)
    ]
    first = re.search(r"^## (.+)$", _text(package.path / "CHANGELOG.md"), re.MULTILINE)
    if first is None or first[1].split()[0] != version:
        wrong.append((package.path / "CHANGELOG.md").relative_to(root).as_posix())
    if wrong:
        msg = f"{', '.join(wrong)}: not version {version}; run python tools/release.py {tag}"
        raise ValueError(msg)
    return package


def _parts(tag: str, root: Path) -> tuple[Package, str]:
    match = TAG.fullmatch(tag)
    known = {package.name: package for package in packages(root)}
    if match is None or match["name"] not in known:
        msg = f"'{tag}' is no tag of a release: NAME-vX.Y.Z, NAME one of {', '.join(known)}"
        raise ValueError(msg)
    return known[match["name"]], match["version"]


def _places(package: Package, version: str, root: Path) -> list[tuple[Path, re.Pattern[str], str]]:
    """Return the files that hold the version, how to find it, and what it must be."""
    init = package.src / package.import_name / "__init__.py"
    places = [(init, VERSION, rf'\g<1>"{version}"')]
    if package.is_core:
        places.append((root / "CITATION.cff", CITED, rf"\g<1>{version}"))
    return places


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the version of a package that of a tag.")
    parser.add_argument("tag", help="NAME-vX.Y.Z")
    parser.add_argument("--check", action="store_true", help="write nothing, print the folder")
    options = parser.parse_args()
    try:
        package = (checked if options.check else release)(options.tag)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(package.path.relative_to(ROOT).as_posix())
    return 0


if __name__ == "__main__":
    sys.exit(main())
