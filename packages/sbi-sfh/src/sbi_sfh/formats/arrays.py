"""Spectra in npz and HDF5 files: arrays are columns, single numbers and attributes are facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sbi_core import open_hdf5, read_npz
from sbi_sfh.formats.names import column
from sbi_sfh.formats.spectrum import Spectrum, spectra_of
from sbi_sfh.formats.surveys import Survey
from sbi_sfh.formats.tables import read as read_table

__all__ = ["read", "read_hdf5"]


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of an npz file: one (L,), or n with flux (n, L) and facts (n,)."""
    yield from _spectra(read_npz(path), {}, {}, f"'{path.name}'")


def read_hdf5(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of an HDF5 file: a table, arrays as in npz, or a group per galaxy."""
    with open_hdf5(path) as f:
        nodes: list[Any] = [f]
        f.visititems(lambda _, node: nodes.append(node))
        if not any(isinstance(n, h5py.Dataset) and n.dtype.names for n in nodes):
            for group in nodes:
                if isinstance(group, h5py.Group):
                    yield from _of_group(group, dict(f.attrs), path)
            return
    yield from read_table(path)


def _of_group(group: Any, shared: dict[str, Any], path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of the arrays of a group; none where it has none of the file's spectra."""
    data = {str(k): v for k, v in group.items() if isinstance(v, h5py.Dataset)}
    name = group.name.strip("/")
    if not data or (name and column(data, "flux") is None):
        return
    units = {k: _unit(v.attrs.get("unit", v.attrs.get("units", ""))) for k, v in data.items()}
    facts = {**shared, **dict(group.parent.attrs), **dict(group.attrs)}
    where = f"'{path.name}'" + (f", {name}" if name else "")
    if name:
        facts["id"] = name
    yield from _spectra({k: _array(v) for k, v in data.items()}, facts, units, where)


def _array(data: Any) -> Any:
    values = np.asarray(data[()])
    return values.astype(str) if values.dtype.kind in "SO" else values


def _unit(value: Any) -> str | None:
    return (value.decode() if isinstance(value, bytes) else str(value)) or None


def _spectra(
    arrays: dict[str, Any], facts: dict[str, Any], units: dict[str, Any], where: str
) -> Iterator[Spectrum]:
    columns = {n: v for n, v in arrays.items() if v.size > 1}
    facts = facts | {n: v.reshape(-1)[0] for n, v in arrays.items() if v.size == 1}
    gist = {"SPEC", "ESPEC", "LOGLAM"} <= set(arrays)
    survey = Survey("GIST", unit="Angstrom", rest=True) if gist else None
    yield from spectra_of(columns, facts, where, units, survey=survey)
