"""Names of snapshots: simulation (stem) and output step.

``g8.26e11.01024`` is step 1024 of the simulation ``g8.26e11``. A re-simulation with the same
initial conditions (``8.26e11`` of NIHAO-UHD) has the same stem: both belong to one split.
"""

from __future__ import annotations

import re
from pathlib import Path

from sbi_core import DataFileError

__all__ = ["STEM_PATTERN", "canonical", "stem_and_step"]

STEM_PATTERN = r"^(g?\d\.\d+e\d+)\.(\d{5})$"
_MASS = re.compile(r"g?(\d\.\d+)e0*(\d+)", re.IGNORECASE)


def canonical(stem: str) -> str:
    """Return one spelling for all spellings of a stem (``1.0e10``, ``g1.00e10``, ``G1.00e10``)."""
    name = stem.strip()
    parts = _MASS.fullmatch(name)
    return name if parts is None else f"g{float(parts[1])}e{parts[2]}"


def stem_and_step(path: str | Path, pattern: str = STEM_PATTERN) -> tuple[str, int]:
    """Return stem and step of a snapshot.

    Raises
    ------
    DataFileError
        If the name does not match the pattern.
    """
    name = Path(path).name
    match = re.match(pattern, name)
    if match is None or len(match.groups()) < 2:
        msg = (
            f"'{name}' does not match the pattern of snapshot names {pattern}: give "
            "--stem-regex with two groups, simulation and step"
        )
        raise DataFileError(msg)
    stem = match[1]
    return (f"g{stem}" if re.fullmatch(r"\d\.\d+e\d+", stem) else stem), int(match[2])
