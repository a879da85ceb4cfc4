"""Names of snapshots: simulation (stem) and output step.

``g8.26e11.01024`` is step 1024 of the simulation ``g8.26e11``. A re-simulation with the same
initial conditions (``8.26e11`` of NIHAO-UHD) has the same stem: both belong to one split. Outputs
of other codes (``output_00080``, ``snapdir_099/snap_099.0.hdf5``, ``snapshot_600.hdf5``) have the
name of the folder around them.
"""

from __future__ import annotations

import re
from pathlib import Path

from sbi_core import DataFileError

__all__ = ["STEM_PATTERN", "canonical", "is_snapshot", "stem_and_step"]

STEM_PATTERN = r"^(g?\d\.\d+e\d+)\.(\d{5})$"
_OUTPUT = re.compile(r"(?:output|snap|snapshot|snip)_(\d+)(?:_z\w+)?(?:\.0)?(?:\.hdf5|\.h5)?")
_WITHIN = re.compile(r"snapdirs?(_\d+)?|outputs?|snapshots?|data", re.IGNORECASE)
_LATER = re.compile(r"\.[1-9]\d*\.(hdf5|h5)$")  # all but the first file of a snapshot
_MASS = re.compile(r"g?(\d\.\d+)e0*(\d+)", re.IGNORECASE)


def canonical(stem: str) -> str:
    """Return one spelling for all spellings of a stem (``1.0e10``, ``g1.00e10``, ``G1.00e10``)."""
    name = stem.strip()
    parts = _MASS.fullmatch(name)
    return name if parts is None else f"g{float(parts[1])}e{parts[2]}"


def stem_and_step(path: str | Path, pattern: str = STEM_PATTERN) -> tuple[str, int]:
    """Return stem and step of a snapshot.

    Parameters
    ----------
    path
        File, or folder of RAMSES.
    pattern
        Regular expression with two groups, simulation and step, for the name; with a ``/`` in
        it, for the end of the path.

    Raises
    ------
    DataFileError
        If the name does not match the pattern.
    """
    path = Path(path)
    name = path.name
    match = re.search(pattern, path.as_posix()) if "/" in pattern else re.match(pattern, name)
    other = _OUTPUT.fullmatch(name) if pattern == STEM_PATTERN else None
    around = [p.name for p in path.parents if p.name and not _WITHIN.fullmatch(p.name)]
    if other and around:
        return around[0], int(other[1])
    if match is None or len(match.groups()) < 2:
        msg = (
            f"'{name}' does not match the pattern of snapshot names {pattern}: give "
            "--stem-regex with two groups, simulation and step"
        )
        raise DataFileError(msg)
    stem = match[1]
    return (f"g{stem}" if re.fullmatch(r"\d\.\d+e\d+", stem) else stem), int(match[2])


def is_snapshot(path: Path, pattern: str = STEM_PATTERN) -> bool:
    """Return True for the files, and RAMSES folders, whose name is that of a snapshot."""
    try:
        stem_and_step(path, pattern)
    except DataFileError:
        return False
    if path.is_dir():
        return any(path.glob("info_*.txt"))
    return path.is_file() and not _LATER.search(path.name)
