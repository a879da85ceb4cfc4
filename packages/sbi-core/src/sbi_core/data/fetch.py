"""Files that do not ship with a package: looked up in ``SBI_DATA_DIR``, fetched on request.

A pipeline's TOML may hold tables ``[data.NAME]`` with ``title, url, licence, citation`` and
``[[data.NAME.files]]`` with ``path, sha256, size``. Files are fetched with pooch, which checks
the sum, to the user's cache directory. Nothing is fetched unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sbi_core.errors import ConfigError, DataFileError, first_line, near_matches
from sbi_core.registry import Registry

__all__ = [
    "DataFile",
    "Dataset",
    "cache_dir",
    "data_dirs",
    "datasets",
    "fetch",
    "find_data",
    "require_data",
]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set: path below the data set's folder, SHA-256, size in bytes."""

    path: str
    sha256: str
    size: int = 0

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            msg = f"data file path '{self.path}' must stay below its data set's folder"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A public data set and where to get it."""

    name: str
    title: str
    url: str
    licence: str
    citation: str
    files: tuple[DataFile, ...]

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return sum(f.size for f in self.files)

    @property
    def directory(self) -> Path:
        """Where fetched files lie."""
        return cache_dir() / self.name

    @property
    def present(self) -> bool:
        """Whether all files lie in one of the data folders."""
        return all(find_data(f"{self.name}/{f.path}") is not None for f in self.files)

    @classmethod
    def from_spec(cls, name: str, spec: Mapping[str, Any]) -> Dataset:
        """Build from a ``[data.NAME]`` table."""
        files = tuple(DataFile(**f) for f in spec.get("files", ()))
        rest = {k: str(spec.get(k, "")) for k in ("title", "url", "licence", "citation")}
        return cls(name=name, files=files, **rest)


def cache_dir() -> Path:
    """Return the folder for fetched files (created by :func:`fetch`)."""
    import pooch

    return Path(pooch.os_cache("sbi-core"))


def data_dirs() -> list[Path]:
    """Return where files are looked up: ``SBI_DATA_DIR`` when set, then the cache."""
    value = os.environ.get("SBI_DATA_DIR", "")
    return [*([Path(value).expanduser()] if value else []), cache_dir()]


def find_data(path: str) -> Path | None:
    """Return the first existing file or folder of that relative path, or None."""
    for directory in data_dirs():
        candidate = directory / path
        if candidate.exists():
            return candidate
    return None


def require_data(path: str, dataset: str) -> Path:
    """Return the file of that relative path.

    Raises
    ------
    DataFileError
        If it is not there; the message gives the fetch command.
    """
    found = find_data(path)
    if found is None:
        where = ", ".join(str(d) for d in data_dirs())
        msg = (
            f"'{path}' not found in {where}; run: sbi-run data fetch {dataset}"
            " (or set SBI_DATA_DIR to a folder that holds it)"
        )
        raise DataFileError(msg)
    return found


def datasets(registry: Registry) -> dict[str, Dataset]:
    """Return the data sets of all installed pipelines."""
    import tomllib

    found: dict[str, Dataset] = {}
    for component in registry.load_all().components("pipeline"):
        tables = tomllib.loads(component.build()).get("data", {})
        for name, spec in tables.items():
            found[name] = Dataset.from_spec(name, spec)
    return found


def fetch(name: str, registry: Registry, *, progress: bool = False) -> Path:
    """Fetch a data set into the cache; files already there are kept.

    Raises
    ------
    DataFileError
        If the data set is unknown, a download fails or its sum does not match.
    """
    import pooch

    known = datasets(registry)
    if name not in known:
        listed = ", ".join(known) or "none"
        msg = f"unknown data set '{name}'{near_matches(name, known)} (known: {listed})"
        raise DataFileError(msg)
    dataset = known[name]
    for file in dataset.files:
        target = dataset.directory / file.path
        try:
            pooch.retrieve(
                url=f"{dataset.url.rstrip('/')}/{file.path}",
                known_hash=f"sha256:{file.sha256}",
                fname=target.name,
                path=target.parent,
                progressbar=progress,
            )
        except Exception as error:  # network libraries raise many kinds of errors
            msg = (
                f"could not fetch '{file.path}' of '{name}' from {dataset.url}: {first_line(error)}"
            )
            raise DataFileError(msg) from None
    return dataset.directory
