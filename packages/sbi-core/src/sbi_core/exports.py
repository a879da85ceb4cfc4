"""Draws in the formats of other programs: GetDist chains, CSV, ArviZ.

A GetDist chain is ``ROOT.txt`` (weight, minus log posterior, parameters), ``ROOT.paramnames``
(name and TeX label) and ``ROOT.ranges`` (ends of the prior, N where there is none).

References:
    | GetDist, https://getdist.readthedocs.io
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_core.errors import ConfigError

__all__ = ["safe_name", "write_csv", "write_getdist"]

F64 = NDArray[np.float64]


def safe_name(text: str) -> str:
    """Return a file name for an identifier: letters, digits and ``._+-``, the rest as ``_``."""
    return re.sub(r"[^\w.+-]", "_", text).lstrip(".") or "_"


def write_getdist(
    root: str | Path,
    draws: ArrayLike,
    names: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    support: tuple[ArrayLike, ArrayLike] | None = None,
) -> list[Path]:
    """Write a chain of equally weighted draws; return the files.

    Parameters
    ----------
    root
        Path without ending.
    draws
        (S, d).
    names, labels
        Of the columns; labels are TeX without dollars.
    support
        Lower and upper ends of the prior, each (d,); GetDist does not smooth across them.

    Raises
    ------
    ConfigError
        If shapes do not fit, or the folder does not exist.
    """
    values = _checked(root, draws, names)
    root = Path(root)
    labels = list(names if labels is None else labels)
    # minus log posterior is not known for draws of an estimator: 0, and GetDist uses the weights
    chain = np.column_stack([np.ones(len(values)), np.zeros(len(values)), values])
    files = {".txt": "".join(f"{_row(row)}\n" for row in chain)}
    files[".paramnames"] = "".join(f"{n}\t{x}\n" for n, x in zip(names, labels, strict=True))
    if support is not None:
        ends = zip(names, *(np.asarray(e, dtype=np.float64) for e in support), strict=True)
        files[".ranges"] = "".join(f"{n}\t{_end(a)}\t{_end(b)}\n" for n, a, b in ends)
    written = []
    for suffix, text in files.items():
        path = root.with_name(root.name + suffix)
        _write(path, text)
        written.append(path)
    return written


def write_csv(
    path: str | Path,
    draws: ArrayLike,
    names: Sequence[str],
    id: Sequence[str] | None = None,  # noqa: A002
) -> Path:
    """Write draws (S, d), or (S, n, d) with a first column ``id``, as comma-separated values."""
    values = np.asarray(draws, dtype=np.float64)
    head = ",".join(names)
    if id is None:
        rows = [_row(row, ",") for row in _checked(path, values, names)]
    else:
        head = "id," + head
        quoted = [_quoted(str(i)) for i in id]
        rows = [
            f"{quoted[k]},{_row(row, ',')}"
            for k in range(len(quoted))
            for row in _checked(path, values[:, k], names)
        ]
    _write(Path(path), "\n".join([head, *rows]) + "\n")
    return Path(path)


def _checked(path: str | Path, draws: ArrayLike, names: Sequence[str]) -> F64:
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        msg = f"draws must be (S, {len(names)}) for parameters {list(names)}, got {values.shape}"
        raise ConfigError(msg)
    folder = Path(path).parent
    if not folder.is_dir():
        msg = f"cannot write '{path}': folder '{folder}' does not exist"
        raise ConfigError(msg)
    return values


def _row(row: F64, separator: str = " ") -> str:
    return separator.join(f"{v:.9g}" for v in row)


def _end(value: float) -> str:
    return f"{value:.9g}" if np.isfinite(value) else "N"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search('[",\n\r]', text) else text


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None
