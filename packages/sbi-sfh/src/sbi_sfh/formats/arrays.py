"""Spectra in npz files: arrays are columns, single numbers are facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sbi_core import read_npz
from sbi_sfh.formats.spectrum import Spectrum, spectra_of

__all__ = ["read"]


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of an npz file: one (L,), or n with flux (n, L) and facts (n,)."""
    arrays = read_npz(path)
    columns = {n: v for n, v in arrays.items() if v.size > 1}
    facts = {n: v.reshape(-1)[0] for n, v in arrays.items() if v.size == 1}
    yield from spectra_of(columns, facts, f"'{path.name}'")
