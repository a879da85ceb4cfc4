"""Paths of a run directory; its JSON files and arrays."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sbi_core.data.gate import read_npz, read_text, regular_file
from sbi_core.data.writing import atomic_write, write_atomic
from sbi_core.errors import DataFileError, RunDirectoryError

__all__ = [
    "RESTORE",
    "RunDirectory",
    "read_arrays",
    "read_json",
    "read_lines",
    "sha256_of",
    "write_json",
    "write_lines",
]

RESTORE = (
    "restore it from a copy of the run, or choose another run directory (out)"  # what can be done
)

# what stages write into folders, recorded or not yet; with temporary names of version 0.1.0
_OWN = re.compile(
    r"^(part-\d{6}\.h5|pack\.h5|\w+\.safetensors|(config|made-from|failed_step)\.json|metrics\.jsonl"
    r"|card\.md)(\.tmp[\w-]*)?$|^\..*\.tmp-[0-9a-f]{16}(\.\w+)*$|^\.landmark-[0-9a-f]{32}$"
)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused."""
    with atomic_write(path) as f:
        json.dump(value, f, indent=1, allow_nan=False, ensure_ascii=False)
        f.write("\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    RunDirectoryError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        msg = f"'{path}' is missing"
        raise RunDirectoryError(msg) from None
    except (OSError, ValueError, RecursionError, DataFileError) as error:
        msg = f"'{path}' is damaged ({error}); {RESTORE}"
        raise RunDirectoryError(msg) from None


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write JSON atomically, one value per line."""
    write_atomic(path, "".join(json.dumps(value) + "\n" for value in values).encode())


def read_lines(path: Path) -> list[Any]:
    """Read a file with one JSON value per line.

    Raises
    ------
    RunDirectoryError
        If the file is missing or a line is not JSON.
    """
    try:
        return [json.loads(line) for line in read_text(path).splitlines() if line]
    except (OSError, ValueError, RecursionError, DataFileError) as error:
        msg = f"'{path}' is missing or damaged ({error}); {RESTORE}"
        raise RunDirectoryError(msg) from None


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an npz file; objects in it are refused, not unpickled.

    Raises
    ------
    RunDirectoryError
        If the file is missing, damaged or holds objects.
    """
    try:
        return read_npz(path)
    except DataFileError as error:
        msg = f"'{path}' is missing or damaged ({error}); {RESTORE}"
        raise RunDirectoryError(msg) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with regular_file(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return ""


class RunDirectory:
    """Where the parts of one run lie.

    Attributes
    ----------
    given
        Its path as it was given; all other paths are absolute.
    """

    def __init__(self, root: str | Path) -> None:
        self._started = _working_directory()
        self.given = Path(root).expanduser()
        self.root = self.given.absolute()  # plugins may change the working directory
        self.config = self.root / "run.toml"
        self.provenance = self.root / "provenance.json"
        self.sims = self.root / "sims"
        self.emulator = self.root / "emulator"
        self.estimator = self.root / "estimator"
        self.card = self.estimator / "card.md"
        self.diagnostics = self.root / "diagnostics.npz"
        self.reference = self.root / "reference.npz"
        self.diagnose_sections = self.root / "diagnose-sections.json"
        self.infer_sections = self.root / "infer-sections.json"
        self.posterior = self.root / "posterior.nc"
        self.summary = self.root / "summary.ecsv"
        self.combined = self.root / "combined.ecsv"
        self.combined_samples = self.root / "combined.npz"
        self.groups = self.root / "groups"
        self.combiners = self.root / "combiner"
        self.report_html = self.root / "report.html"
        self.report_json = self.root / "report.json"
        self.metrics = self.root / "metrics.jsonl"
        self.log = self.root / "log.txt"

    def path(self, given: str | Path) -> Path:
        """Return a path from the command or the configuration of the run.

        It is the one that was given, unless a plugin changed the working directory since.
        """
        given = Path(given).expanduser()
        return given if _working_directory() == self._started else Path(self._started, given)

    def combiner(self, name: str) -> Path:
        """Return the folder of what a combiner learned."""
        return self.combiners / name.replace(":", "-")

    def create(self) -> None:
        """Create the directory.

        Raises
        ------
        RunDirectoryError
            If it cannot be created or written, or holds files but no run.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            why = "a file has this name" if self.root.is_file() else error.strerror or error
            msg = f"cannot write to run directory '{self.root}': {why}"
            raise RunDirectoryError(msg) from None
        ours = re.compile(r"^\.|\.tmp[\w-]*$")  # what another task of the same run writes now
        foreign = [p.name for p in self.root.iterdir() if not ours.search(p.name)]
        if foreign and not self.config.exists():
            if self.provenance.exists():
                msg = f"'{self.config}' is missing: without it the run cannot go on; {RESTORE}"
                raise RunDirectoryError(msg)
            listed = ", ".join(sorted(foreign)[:3])
            msg = (
                f"'{self.root}' is not empty and holds no run ({listed}); choose another run "
                "directory (out)"
            )
            raise RunDirectoryError(msg)

    def require(self) -> None:
        """Raise RunDirectoryError when this is not a run directory."""
        if not self.config.exists():
            what = "holds no run (no run.toml)" if self.root.is_dir() else "does not exist"
            msg = f"run directory '{self.given}' {what}"
            raise RunDirectoryError(msg)

    def refuse_links(self) -> None:
        """Raise RunDirectoryError when the run holds a link, a pipe, or a folder for a file."""
        for name in self._own():
            if (path := self.root / name).suffix and path.is_dir():
                msg = f"'{path}' is a folder where the run writes a file; move it elsewhere"
                raise RunDirectoryError(msg)
        for folder, folders, files in os.walk(self.root):
            for name in sorted((*folders, *files)):
                path = Path(folder, name)
                if path.is_symlink():
                    remedy = "put the file in its place"
                    if path.is_dir():
                        remedy = (
                            "put the folder in its place; to use another disk, move the whole run "
                            "there (out may be a link to it)"
                        )
                    msg = (
                        f"'{path}' is a link to '{path.readlink()}': nothing is written through "
                        f"links in a run directory; {remedy}"
                    )
                    raise RunDirectoryError(msg)
                if name in files and path.exists() and not path.is_file():
                    msg = f"'{path}' is not a regular file; remove it"
                    raise RunDirectoryError(msg)

    def remove(self, *paths: Path, made: Iterable[str] = ()) -> None:
        """Delete files and folders of this run, if they are there; check all before.

        Parameters
        ----------
        paths
            Files and folders.
        made
            Files that the run recorded, below the run directory, beside those of known names.

        Raises
        ------
        RunDirectoryError
            If one is outside the run, a link, or was not made by it; nothing is deleted then.
        """
        files, folders = list[Path](), list[Path]()
        known = {self.root / name for name in (*made, *self._own())}
        for path in paths:
            if self.root.resolve() not in path.resolve().parents or path.is_symlink():
                msg = f"refusing to delete '{path}': it is a link, or not inside '{self.root}'"
                raise RunDirectoryError(msg)
            inside = sorted(path.rglob("*")) if path.is_dir() else []
            for p in (path, *inside):
                if p.is_dir() and not p.is_symlink():
                    folders.append(p)
                elif p.is_symlink() or (p.exists() and p not in known and not _OWN.match(p.name)):
                    msg = f"refusing to delete '{p}': this run did not make it; move it elsewhere"
                    raise RunDirectoryError(msg)
                elif p.exists():
                    files.append(p)
        for p in files:
            p.unlink(missing_ok=True)
        for p in reversed(folders):
            p.rmdir()

    def _own(self) -> list[str]:
        """Return the names of the files of a run that lie at its top."""
        return [
            p.name for p in vars(self).values() if isinstance(p, Path) and p.parent == self.root
        ]
