"""Spectra in tables: text with or without a header, CSV, ECSV, HDF5, parquet, VOTable.

A table is one galaxy, or one galaxy per row where cells hold arrays. Facts stand in the metadata,
or in comments ``# REDSHIFT = 0.03``. Columns without names are wavelength, flux and error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_core import ObservationError, read_table, read_text
from sbi_sfh.formats.names import FACTS, plain
from sbi_sfh.formats.spectrum import Spectrum, has_spectrum, spectra_of

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["SUFFIXES", "TEXTS", "read", "read_words", "spectra_of_table"]

SUFFIXES = (
    ".ecsv", ".csv", ".tsv", ".txt", ".dat", ".mrt", ".vot", ".xml", ".parquet",
)  # fmt: skip
TEXTS = (".asc", ".ascii", ".spec", ".spectrum", ".sp", ".tab", ".tbl")
_POSITIONS = ("wave", "flux", "err")
_ONCE = ("redshift", "cosmic", "velocity", "radial", "sigma", "vacuum", "air", "frame")
_FACT = re.compile(r"#?\s*([\w/]+)\s*[=:]\s*(.+?)\s*")
_PAIR = re.compile(r"#?\s*([A-Za-z]\w*)\s+([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*", re.I)
_FILLERS = {
    "wavelength",
    "wavelengths",
    "are",
    "is",
    "in",
    "at",
    "the",
    "and",
    "frame",
    "restframe",
}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf)", re.I)
_FOREIGN = re.compile(r"[-+]?\d+[.,]?\d*([ed][-+]?\d+)?", re.I)  # 3,5 and 3.5D+03
_UNIT = re.compile(r"(\w+)\s*[\[(]\s*([^\])]+?)\s*[\])]")


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of a table file."""
    yield from spectra_of_table(read_table(path), f"'{path.name}'")


def read_words(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of a text file with another suffix."""
    from astropy.table import Table

    table = Table.read(read_text(path).splitlines(), format="ascii")
    yield from spectra_of_table(table, f"'{path.name}'")


def spectra_of_table(table: Table, source: str) -> Iterator[Spectrum]:
    """Yield the spectra of a table in memory.

    Parameters
    ----------
    table
        Columns with wavelengths, flux and errors; facts in ``meta``.
    source
        Its name for messages.
    """
    facts = {k: v for k, v in table.meta.items() if k != "comments"}
    comments = [str(c) for c in table.meta.get("comments", [])]
    columns = {str(n): table[n] for n in table.colnames}
    units = {str(n): table[n].unit for n in table.colnames}
    if _FACT.fullmatch(" ".join(columns)):  # a comment that was taken for the header
        comments.insert(0, " ".join(columns))
        columns = {f"col{k}": v for k, v in enumerate(columns.values(), start=1)}
    for comment in comments:
        if match := _FACT.fullmatch(comment):
            _check_repeated(facts, match[1], match[2], source)
            facts.setdefault(match[1], match[2])
        elif (match := _PAIR.fullmatch(comment)) and any(
            plain(match[1]) in FACTS[k] for k in _ONCE
        ):
            _check_repeated(facts, match[1], match[2], source)
            facts.setdefault(match[1], match[2])
        for name, fact in _stated(comment).items():
            facts.setdefault(name, fact)
    if all(_is_number(n) for n in columns):
        columns = _with_first_row(columns)
    if not has_spectrum(columns) and all(re.fullmatch(r"col\d+", n) for n in columns):
        columns, units = _by_place(columns, comments, source)
    yield from spectra_of(columns, facts, source, units)


def _stated(comment: str) -> dict[str, str]:
    """Return what a comment of a few words states: ``wavelengths in air``, ``rest frame, vacuum``.

    A comment with any other word states nothing.
    """
    words = re.findall(r"[^\s,;.#-]+", comment.lower())
    rest = [w for w in words if w in ("rest", "restframe")]
    medium = [w for w in words if w in ("air", "vacuum")]
    if set(words) - _FILLERS - {"rest", "air", "vacuum"} or len(medium) > 1:
        return {}
    return ({"frame": "rest"} if rest else {}) | ({"vacuum": medium[0]} if medium else {})


def _check_repeated(facts: dict[str, Any], name: str, value: str, source: str) -> None:
    """Raise for a second, other redshift, velocity or convention of wavelengths."""
    if str(facts.get(name, value)) != value and any(plain(name) in FACTS[k] for k in _ONCE):
        msg = f"{source}: two values of {name}, {facts[name]} and {value}; delete one of the lines"
        raise ObservationError(msg)


def _is_number(name: str) -> bool:
    return (_NUMBER.fullmatch(name) or _FOREIGN.fullmatch(name)) is not None


def _with_first_row(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns of numbers whose first row was taken for a header."""
    whole: dict[str, Any] = {}
    for k, (name, values) in enumerate(columns.items(), start=1):
        rest = np.ma.asarray(values)
        numbers = rest.dtype.kind in "iuf" and _NUMBER.fullmatch(name)
        first = [float(name)] if numbers else np.array([name])
        whole[f"col{k}"] = np.ma.concatenate([first, rest if numbers else rest.astype(np.str_)])
    return whole


def _by_place(
    columns: dict[str, Any], comments: list[str], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return columns of a file without header under the names of its last comment, or by place."""
    for comment in reversed(comments):
        units = {m[1]: m[2] for m in _UNIT.finditer(comment)}
        words = _UNIT.sub(r"\1", comment.lstrip("# ")).replace(",", " ").split()
        if len(words) == len(columns) and has_spectrum(dict.fromkeys(words)):
            return dict(zip(words, columns.values(), strict=True)), units
    if not 2 <= len(columns) <= len(_POSITIONS):
        msg = (
            f"{source}: {len(columns)} columns without names; write a first line such as "
            "'wave flux err'"
        )
        raise ObservationError(msg)
    return dict(zip(_POSITIONS, columns.values(), strict=False)), {}
