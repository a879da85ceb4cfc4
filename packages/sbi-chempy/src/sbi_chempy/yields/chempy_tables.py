r"""Reader for single tables of an original Chempy yield directory, one study and channel each.

============================  ====  =======================================================
table                         ch.   files
============================  ====  =======================================================
``nugrid-delayed``,           sn2   ``NuGrid``: total yields, explosions delayed or rapid
``nugrid-rapid``
``chieffi04``                 sn2   ``Chieffi04/*.npy``: net yields of this study by Chempy
``west17``                    sn2   ``West17``: ejecta; only stars that explode (Ertl et al.)
``frischknecht16-static``,    sn2   ``Frischknecht16``: net yields *before* the explosion
``frischknecht16-rotating``
``nugrid``                    agb   ``NuGrid``: the stars of 1-7 Msun of the same file
============================  ====  =======================================================

All are net tables here: where a file lists all ejecta :math:`m_e`,

.. math:: y_e = (m_e - X_e\,m_{ej}) / M, \qquad r = 1 - m_{ej}/M, \qquad u = 1 - r ,

with the initial composition X of the study. ``CL18`` and ``Seitenzahl2013`` of the directory are
the embedded ``limongi18`` and ``seitenzahl13-n100``.

References:
    | NuGrid set 1 extension, data of 22 August 2016 (Ritter et al. 2018, MNRAS 480, 538)
    | Chieffi & Limongi 2004, ApJ 608, 405
    | West & Heger, in preparation (2017; stars and GCE model as West & Heger 2013)
    | Frischknecht et al. 2016, MNRAS 456, 1803
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import AGB_RANGE_MSUN, ELEMENTS, SN2_RANGE_MSUN
from sbi_chempy.yields.chempy_raw import reading
from sbi_chempy.yields.tables import Channel, YieldRows, YieldTable
from sbi_core import read_npz, read_text

__all__ = ["RAW_TABLES", "missing_table_files", "read_chempy_table"]

Array = NDArray[np.float64]
Models = Mapping[float, list[tuple[float, float, Array]]]
"""Metallicity -> (initial mass, remnant [Msun], net yields [Msun]) of each model."""

_NUGRID = "NuGrid/element_yield_table_MESAonly_fryer12_delay_total.txt"
_NUGRID_RAPID = "NuGrid/H NuGrid yields rapid total.txt"
_CHIEFFI = tuple(f"Chieffi04/chieffi_net_met_ind_{i}.npy" for i in range(6))
_CHIEFFI_Z = (0.0, 1e-6, 1e-4, 1e-3, 6e-3, 2e-2)
_WEST = ("West17/ertl.txt", "West17/init_abun.npz")
_FRISCHKNECHT = "Frischknecht16/yields_total.txt"
_FRISCHKNECHT_Z = {"z14": 1.4e-2, "z01": 1e-3, "zm5": 1e-5}  # z = 1e-7 has one mass only


def _nugrid(directory: Path, file: str) -> Models:
    models: dict[float, list[tuple[float, float, Array]]] = {}
    for block in re.split(r"(?=H Table:)", read_text(directory / file))[1:]:
        mass, z = (float(v) for v in re.findall(r"[MZ]=([\d.e-]+)", block)[:2])
        lines = [line.split("&")[1:] for line in block.splitlines() if line.startswith("&")]
        made, birth = (
            _elements((row[0].strip(), float(row[k])) for row in lines[1:]) for k in (1, 2)
        )
        ejected = sum(float(row[1]) for row in lines[1:])
        if mass not in [m for m, _, _ in models.setdefault(z, [])]:  # (5, 0.01) is there twice
            models[z].append((mass, mass - ejected, made - ejected * birth))
    return models


def _chieffi(directory: Path) -> Models:
    """Index 0 is Z = 0: remnants and yields agree with ``yields.dat`` in this order."""
    models = {}
    for z, file in zip(_CHIEFFI_Z, _CHIEFFI, strict=True):
        table = read_npz(directory / file)[""]
        yields = np.stack([table[e] for e in ELEMENTS], axis=1) * table["Mass"][:, None]
        remnant = table["mass_in_remnants"] * table["Mass"]
        models[z] = list(zip(table["Mass"], remnant, yields, strict=True))
    return models


def _west(directory: Path) -> Models:
    """Metallicities are relative to solar; the composition file has them in ascending order."""
    lines = read_text(directory / _WEST[0]).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["metallicity", "mass"])
    names = lines[start].split()[5:]
    table = np.array([line.split() for line in lines[start + 1 :] if line.strip()], dtype=float)
    relative = np.unique(table[:, 0])
    content = read_npz(directory / _WEST[1])
    models = {}
    for z, mix in zip(relative, content["datfile"], strict=True):
        birth = _elements(zip(content["keys"].tolist(), mix, strict=False))
        metals = 1 - birth[ELEMENTS.index("H")] - birth[ELEMENTS.index("He")]
        models[float(metals) if z > 0 else 0.0] = [
            (mass, mass - made.sum(), _elements(zip(names, made, strict=True)) - made.sum() * birth)
            for mass, made in ((row[1], row[5:]) for row in table[table[:, 0] == z])
        ]
    return models


def _frischknecht(directory: Path, rotation: str) -> Models:
    """Iron and silicon are made by the explosion, which is not included: set to zero."""
    lines = read_text(directory / _FRISCHKNECHT).splitlines()
    names = [m.group(1) for line in lines if (m := re.search(r"/(G\w+)/", line))]
    remnant = {int(m.group(1)): float(m.group(2)) for line in lines if (m := _REMNANT.match(line))}
    start = next(i for i, line in enumerate(lines) if line.startswith("## yields"))
    isotopes = [line.split() for line in lines[start + 2 :] if line.strip()]
    table = np.array([row[1:] for row in isotopes], dtype=float)
    models: dict[float, list[tuple[float, float, Array]]] = {}
    for k, name in enumerate(names):
        mass, z, physics = float(name[1:4]), name[4:7], name[7:]
        if z not in _FRISCHKNECHT_Z or physics not in _FRISCHKNECHT_MODELS[rotation]:
            continue
        made = _elements(zip((row[0] for row in isotopes), table[:, k], strict=True))
        made[[ELEMENTS.index(e) for e in ("Fe", "Si")]] = 0
        models.setdefault(_FRISCHKNECHT_Z[z], []).append((mass, remnant[k + 1], made))
    return models


_REMNANT = re.compile(r" *(\d\d)\s+[A-D]\d\ds\d\s(?:\s*[\d.]+){4}\s+([\d.]+)")
_FRISCHKNECHT_MODELS = {"static": ("S013", "S003"), "rotating": ("S413", "S418")}


def _elements(pairs: Iterable[tuple[str, float]]) -> Array:
    """Sum isotopes (``C12``, ``he4``, ``p``, ``d``) or elements to the nine of the model."""
    total = np.zeros(len(ELEMENTS))
    for name, value in pairs:
        letters = re.sub(r"\d", "", name).capitalize()
        symbol = "H" if name in ("p", "d") else letters
        if symbol in ELEMENTS:
            total[ELEMENTS.index(symbol)] += value
    return total


class _Source(NamedTuple):
    files: tuple[str, ...]
    read: Callable[[Path], Models]
    study: str
    citation: str


_RITTER = ("NuGrid", "NuGrid set 1 extension of 2016: Ritter et al. 2018, MNRAS 480, 538")
_FRISCH = ("Frischknecht et al. 2016", "Frischknecht et al. 2016, MNRAS 456, 1803")
_SOURCES: dict[str, dict[str, _Source]] = {
    "sn2": {
        "nugrid-delayed": _Source((_NUGRID,), lambda d: _nugrid(d, _NUGRID), *_RITTER),
        "nugrid-rapid": _Source((_NUGRID_RAPID,), lambda d: _nugrid(d, _NUGRID_RAPID), *_RITTER),
        "chieffi04": _Source(
            _CHIEFFI, _chieffi, "Chieffi & Limongi 2004", "Chieffi & Limongi 2004, ApJ 608, 405"
        ),
        "west17": _Source(
            _WEST, _west, "West & Heger", "West & Heger 2013, ApJ 774, 75; Ertl et al. 2016"
        ),
        "frischknecht16-static": _Source(
            (_FRISCHKNECHT,), lambda d: _frischknecht(d, "static"), *_FRISCH
        ),
        "frischknecht16-rotating": _Source(
            (_FRISCHKNECHT,), lambda d: _frischknecht(d, "rotating"), *_FRISCH
        ),
    },
    "agb": {"nugrid": _Source((_NUGRID,), lambda d: _nugrid(d, _NUGRID), *_RITTER)},
}

RAW_TABLES: dict[str, tuple[str, ...]] = {c: tuple(s) for c, s in _SOURCES.items()}
"""Names per channel."""


def missing_table_files(directory: Path, name: str) -> list[str]:
    """Files a table needs that a directory does not hold, relative to it.

    Parameters
    ----------
    directory : the Chempy yield directory
    name : one of :data:`RAW_TABLES`
    """
    files = next(sources[name].files for sources in _SOURCES.values() if name in sources)
    return [file for file in files if not (directory / file).is_file()]


def read_chempy_table(directory: Path, channel: Channel, name: str) -> YieldTable:
    """Read one table of a Chempy yield directory.

    Parameters
    ----------
    directory : the Chempy yield directory
    channel, name : of :data:`RAW_TABLES`

    Returns
    -------
    YieldTable

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names all of them.
    YieldTableError
        If a file is damaged or its numbers cannot be yields.
    """
    missing = missing_table_files(directory, name)
    if missing:
        raise FileNotFoundError(
            f"yields {name!r}: {directory} is incomplete, missing {', '.join(missing)}"
        )
    source = _SOURCES[channel][name]
    with reading((directory / source.files[0]).parent):
        models = source.read(directory)
        metallicity = sorted(models)
        rows = tuple(_rows(models[z], channel) for z in metallicity)
    return YieldTable(
        channel, name, np.array(metallicity), rows, True, source.study, source.citation
    )


def _rows(models: list[tuple[float, float, Array]], channel: Channel) -> YieldRows:
    limits = SN2_RANGE_MSUN if channel == "sn2" else AGB_RANGE_MSUN
    mass, remnant = (np.array([model[k] for model in models], dtype=float) for k in (0, 1))
    yields = np.array([made for _, _, made in models]) / mass[:, None]
    return YieldRows.from_columns(mass, remnant / mass, 1 - remnant / mass, yields, limits)
