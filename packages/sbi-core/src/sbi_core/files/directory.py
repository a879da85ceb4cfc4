"""Paths of a run directory, and files that are either whole or absent.

Every file is written under a temporary name, flushed to disk, and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from numpy.typing import NDArray

from sbi_core.data.gate import read_npz, read_text, regular_file
from sbi_core.errors import DataFileError, RunDirectoryError

__all__ = [
    "RunDirectory",
    "atomic_write",
    "read_arrays",
    "read_json",
    "read_lines",
    "sha256_of",
    "write_json",
]


@contextlib.contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block ended well."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open(mode, encoding="utf-8" if mode == "w" else None) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
        msg = f"'{path}' is damaged: {error}"
        raise RunDirectoryError(msg) from None


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
        msg = f"'{path}' is missing or damaged: {error}"
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
        msg = f"'{path}' is missing or damaged: {error}"
        raise RunDirectoryError(msg) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with regular_file(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class RunDirectory:
    """Where the parts of one run lie.

    Parameters
    ----------
    root
        The run directory; created by :meth:`create`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self.config = self.root / "run.toml"
        self.provenance = self.root / "provenance.json"
        self.sims = self.root / "sims"
        self.emulator = self.root / "emulator"
        self.estimator = self.root / "estimator"
        self.card = self.estimator / "card.md"
        self.diagnostics = self.root / "diagnostics.npz"
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
            probe = self.root / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            msg = f"cannot write to run directory '{self.root}': {error.strerror or error}"
            raise RunDirectoryError(msg) from None
        ours = re.compile(r"^\.|\.tmp[\w-]*$")  # what another task of the same run writes now
        foreign = [p.name for p in self.root.iterdir() if not ours.search(p.name)]
        if foreign and not self.config.exists():
            listed = ", ".join(sorted(foreign)[:3])
            msg = f"'{self.root}' is not empty and holds no run ({listed}); choose another --out"
            raise RunDirectoryError(msg)

    def require(self) -> None:
        """Raise RunDirectoryError when this is not a run directory."""
        if not self.config.exists():
            what = "holds no run (no run.toml)" if self.root.is_dir() else "does not exist"
            msg = f"run directory '{self.root}' {what}"
            raise RunDirectoryError(msg)

    def remove(self, *paths: Path) -> None:
        """Delete files or folders of this run, if they are there."""
        for path in paths:
            if self.root.resolve() not in path.resolve().parents:
                msg = f"refusing to delete '{path}': it is not inside '{self.root}'"
                raise RunDirectoryError(msg)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
