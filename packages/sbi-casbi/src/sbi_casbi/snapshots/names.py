"""Names of snapshots: which simulation, and which step.

``g8.26e11.01024`` is step 1024 of the simulation *stem* ``g8.26e11``. A re-simulation with the
same initial conditions (``8.26e11`` of NIHAO-UHD) is the same stem: both stay in one split.
"""

from __future__ import annotations

import re
from pathlib import Path

from sbi_core import DataFileError

__all__ = ["STEM_PATTERN", "find_snapshots", "stem_and_step"]

STEM_PATTERN = r"^(g?\d\.\d+e\d+)\.(\d{5})$"


def stem_and_step(path: str | Path, pattern: str = STEM_PATTERN) -> tuple[str, int]:
    """Return stem and step of a snapshot.

    Raises
    ------
    DataFileError
        If the name does not match the pattern.
    """
    name = Path(path).name
    found = re.match(pattern, name)
    if found is None or len(found.groups()) < 2:
        msg = (
            f"'{name}' does not match the pattern of snapshot names {pattern}: give "
            "--stem-regex with two groups, simulation and step"
        )
        raise DataFileError(msg)
    stem = found[1]
    return (f"g{stem}" if re.fullmatch(r"\d\.\d+e\d+", stem) else stem), int(found[2])


def find_snapshots(root: str | Path, pattern: str = STEM_PATTERN) -> list[Path]:
    """Return all snapshots below a folder, sorted by name.

    Raises
    ------
    DataFileError
        If the folder does not exist or holds none.
    """
    root = Path(root)
    if not root.is_dir():
        msg = f"folder of snapshots '{root}' does not exist"
        raise DataFileError(msg)
    found = [p for p in root.rglob("*") if p.is_file() and re.match(pattern, p.name)]
    if not found:
        msg = f"'{root}' holds no file whose name matches {pattern}; give --stem-regex"
        raise DataFileError(msg)
    return sorted(found, key=lambda p: (p.name, str(p)))
