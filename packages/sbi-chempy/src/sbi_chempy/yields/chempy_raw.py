r"""Reader for an original Chempy yield directory (``Chempy/input/yields``).

Builds the sets of the published applications from the files of the original code:

========================  ===================  ==========================  ======================
set                       SN Ia                SN II                       AGB
========================  ===================  ==========================  ======================
``tng``                   ``TNG/SNIa.hdf5``    ``TNG/SNII.hdf5``           ``TNG/AGB.hdf5``
``alternative``           ``Thielemann2003``   ``Nomoto2013/*.dat`` gross  ``Karakas2016``
``alternative-net``       ``Thielemann2003``   ``Nomoto2013/*.npy`` net    ``Karakas2016``
========================  ===================  ==========================  ======================

The quirks of the original are kept on purpose, because they are in the published results:
TNG wind is ejected mass minus *all* yields, so that rows close to 1e-4 only; Karakas yields are
changes per *ejected* mass used per initial mass; the Karakas Z = 0.001 remnants are the ones
written into the code of Chempy (up to 2.06 Msun).

References:
    | Philcox & Rybizki 2019, ApJ 887, 9 (code: oliverphilcox/ChempyMulti, commit 1ab0d0c)
    | Pillepich et al. 2018; Portinari et al. 1998; Karakas 2010; Thielemann et al. 2003;
    | Nomoto, Kobayashi & Tominaga 2013; Karakas & Lugaro 2016
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import AGB_RANGE_MSUN, ELEMENTS, SN2_RANGE_MSUN
from sbi_chempy.yields.tables import (
    Channel,
    SnIaYield,
    YieldRows,
    YieldSet,
    YieldTable,
    YieldTableError,
)
from sbi_core import open_hdf5, read_npz, read_text

__all__ = ["RAW_SETS", "find_missing_files", "read_chempy_directory"]

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
RawSet = Literal["tng", "alternative", "alternative-net"]
RAW_SETS: tuple[RawSet, ...] = ("tng", "alternative", "alternative-net")

_SYMBOLS = {
    "Hydrogen": "H",
    "Helium": "He",
    "Carbon": "C",
    "Nitrogen": "N",
    "Oxygen": "O",
    "Neon": "Ne",
    "Magnesium": "Mg",
    "Silicon": "Si",
    "Iron": "Fe",
}

_NOMOTO_Z = ("0.0010", "0.0040", "0.0080", "0.0200", "0.0500")
_KARAKAS_Z = ("001", "007", "014", "03")

# Msun; remnants of the Z = 0.001 models as Chempy's source has them, by initial mass.
_KARAKAS_Z001_REMNANT = {
    1.0: 0.678,
    1.25: 0.669,
    1.5: 0.657,
    2.0: 0.668,
    2.25: 0.839,
    2.5: 0.948,
    2.75: 1.057,
    3.0: 1.189,
    3.25: 1.403,
    3.5: 1.176,
    4.0: 1.726,
    4.5: 1.659,
    5.0: 1.740,
    5.5: 1.962,
    6.0: 1.725,
    7.0: 2.062,
}
_KARAKAS_REMNANT_CHANGED = {("03", 4.0): 0.744}  # Msun; the file says 0.774, Chempy uses this

# Initial compositions whose files are not in the public repository, as multiples of the
# Z = 0.03 composition: metals, then H and He mass fractions before normalisation. Recovered
# from the mock data of Philcox & Rybizki 2019 (agreement 1e-5 dex).
_KARAKAS_RECONSTRUCTED = {
    "007": (0.24978, 0.738818, 0.260170),
    "014": (0.49953, 0.711454, 0.280182),
}
_OXYGEN_FACTOR = 0.9866


def find_missing_files(directory: Path, name: RawSet) -> list[str]:
    """Files a set needs that a directory does not hold, relative to it.

    Parameters
    ----------
    directory : the Chempy yield directory
    name : one of :data:`RAW_SETS`

    Returns
    -------
    list of str
        Empty when the set can be built.
    """
    return [
        " or ".join(alternatives)
        for alternatives in _needed_files(name)
        if not any((directory / path).is_file() for path in alternatives)
    ]


def _needed_files(name: RawSet) -> list[tuple[str, ...]]:
    if name == "tng":
        return [(f"TNG/{f}.hdf5",) for f in ("SNIa", "SNII", "AGB")]
    if name == "alternative":
        nomoto = [(f"Nomoto2013/nomoto_2013_z={z}.dat",) for z in _NOMOTO_Z]
    else:
        nomoto = [(f"Nomoto2013/nomoto_net_met_ind_{i}.npy",) for i in range(5)]
    karakas = [(f"Karakas2016/yield_z{z}.dat",) for z in _KARAKAS_Z]
    initial = [("Karakas2016/surf_z001.dat",), _SURF_Z03]
    return [("Thielemann2003/0.02.txt",), *nomoto, *karakas, *initial]


_SURF_Z03 = ("Karakas2016/surf_z03.dat", "Karakas2016/surf_z03_first_block.dat")


def read_chempy_directory(directory: Path, name: RawSet) -> YieldSet:
    """Build a published yield set from a Chempy yield directory.

    Parameters
    ----------
    directory : folder with ``TNG``, ``Nomoto2013``, ``Karakas2016``, ``Thielemann2003``
    name : one of :data:`RAW_SETS`

    Returns
    -------
    YieldSet

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names all of them.
    YieldTableError
        If a file is damaged or its numbers cannot be yields.
    """
    missing = find_missing_files(directory, name)
    if missing:
        raise FileNotFoundError(
            f"yield set {name!r}: {directory} is incomplete, missing {', '.join(missing)}"
        )
    if name == "tng":
        with reading(directory / "TNG"):
            channels = _tng_sn1a(directory), _tng(directory, "sn2"), _tng(directory, "agb")
        return YieldSet(*channels, name)
    with reading(directory / "Nomoto2013"):
        sn2 = _nomoto_gross(directory) if name == "alternative" else _nomoto_net(directory)
    with reading(directory / "Thielemann2003"):
        sn1a = _thielemann(directory)
    with reading(directory / "Karakas2016"):
        agb = _karakas16(directory)
    return YieldSet(sn1a, sn2, agb, name)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what a damaged or foreign file provokes into one sentence."""
    try:
        yield
    except YieldTableError:
        raise
    except (OSError, EOFError, KeyError, IndexError, ValueError, StopIteration) as error:
        raise YieldTableError(
            f"a yield file in {folder} is damaged or has another layout "
            f"({type(error).__name__}: {error}); fetch it again"
        ) from None


# ----------------------------------------------------------------------------------- TNG


def _tng_species(names: Iterable[bytes]) -> list[str | None]:
    return [_SYMBOLS.get(name.decode()) for name in names]


def _tng_sn1a(directory: Path) -> SnIaYield:
    with open_hdf5(directory / "TNG" / "SNIa.hdf5") as file:
        species = _tng_species(file["Species_names"][()])
        yields = file["Yield"][()]
        study = file["Reference"][()].decode()
    total = yields.sum()  # float32 fractions of the total, as the original keeps them
    fraction = np.array([yields[species.index(e)] / total for e in ELEMENTS], dtype=np.float64)
    return SnIaYield(
        "tng",
        fraction * float(total),
        float(total),
        study,
        "Pillepich et al. 2018, MNRAS 473, 4077",
    )


def _tng(directory: Path, channel: Channel) -> YieldTable:
    """Net rows: y = yield/M, r = 1 - ejected/M, u = ejected/M - sum of all yields (float32)."""
    limits = SN2_RANGE_MSUN if channel == "sn2" else AGB_RANGE_MSUN
    filename = "SNII.hdf5" if channel == "sn2" else "AGB.hdf5"
    rows = []
    with open_hdf5(directory / "TNG" / filename) as file:
        species = _tng_species(file["Species_names"][()])
        order = [species.index(e) for e in ELEMENTS]
        mass = file["Masses"][()]
        z = file["Metallicities"][()]
        study = file["Reference"][()].decode()
        for name in file["Yield_names"][()][: len(z)]:
            group = file["Yields"][name.decode()]
            yields = (group["Yield"][()] / mass).T.astype(np.float64)
            remnant = ((mass - group["Ejected_mass"][()]) / mass).astype(np.float64)
            wind = (1 - remnant) - yields.sum(axis=1)
            rows.append(
                YieldRows.from_columns(
                    mass.astype(np.float64), remnant, wind, yields[:, order], limits
                )
            )
    return YieldTable(
        channel=channel,
        name="tng",
        metallicity=np.asarray(z, dtype=np.float64),
        rows=tuple(rows),
        net=True,
        study=study,
        citation="Pillepich et al. 2018, MNRAS 473, 4077",
    )


# --------------------------------------------------------------------------- alternative


def _thielemann(directory: Path) -> SnIaYield:
    lines = read_text(directory / "Thielemann2003" / "0.02.txt").splitlines()
    values = dict(zip(lines[0].split(), (float(v) for v in lines[1].split()), strict=True))
    return SnIaYield(
        "alternative",
        np.array([values[e] for e in ELEMENTS]),
        values["Mass"],
        "Thielemann et al. 2003",
        "Thielemann et al. 2003, in From Twilight to Highlight, p. 331",
    )


def _nomoto_table(rows: list[YieldRows], net: bool) -> YieldTable:
    return YieldTable(
        channel="sn2",
        name="alternative-net" if net else "alternative",
        metallicity=np.array([float(z) for z in _NOMOTO_Z]),
        rows=tuple(rows),
        net=net,
        study="Nomoto, Kobayashi & Tominaga 2013",
        citation="Nomoto, Kobayashi & Tominaga 2013, ARA&A 51, 457",
    )


def _nomoto_gross(directory: Path) -> YieldTable:
    """Gross rows: y = sum of isotopes / M, u = 1 - r - (sum of everything) / M."""
    rows = []
    for z in _NOMOTO_Z:
        text = read_text(directory / "Nomoto2013" / f"nomoto_2013_z={z}.dat")
        lines = [line.split() for line in text.splitlines() if line.strip()]
        mass, final = (np.array(line[1:], dtype=np.float64) for line in lines[:2])
        elements = {e: np.zeros_like(mass) for e in ELEMENTS}
        ejected = np.zeros_like(mass)
        for isotope, *values in lines[2:]:
            column = np.array(values, dtype=np.float64)
            symbol = re.match("[A-Za-z]+", isotope)
            ejected = ejected + column
            if symbol and symbol.group() in elements:
                elements[symbol.group()] = elements[symbol.group()] + column
        yields = np.stack([elements[e] for e in ELEMENTS], axis=1) / mass[:, None]
        remnant = final / mass
        wind = 1 - remnant - ejected / mass
        supernova = mass >= 13  # the same files list AGB models, of another study
        rows.append(
            YieldRows.from_columns(
                mass[supernova],
                remnant[supernova],
                wind[supernova],
                yields[supernova],
                SN2_RANGE_MSUN,
            )
        )
    return _nomoto_table(rows, net=False)


def _nomoto_net(directory: Path) -> YieldTable:
    """The net tables that come with ChempyMulti; index 0 is the highest metallicity."""
    rows = []
    for i in reversed(range(len(_NOMOTO_Z))):
        path = directory / "Nomoto2013" / f"nomoto_net_met_ind_{i}.npy"
        table = read_npz(path)[""]
        yields = np.stack([table[e] for e in ELEMENTS], axis=1)
        rows.append(
            YieldRows.from_columns(
                table["Mass"],
                table["mass_in_remnants"],
                table["unprocessed_mass_in_winds"],
                yields,
                SN2_RANGE_MSUN,
            )
        )
    return _nomoto_table(rows, net=True)


def _karakas16(directory: Path) -> YieldTable:
    rows = [_karakas16_rows(directory / "Karakas2016", z) for z in _KARAKAS_Z]
    return YieldTable(
        channel="agb",
        name="alternative",
        metallicity=np.array([0.001, 0.007, 0.014, 0.03]),
        rows=tuple(rows),
        net=True,
        study="Karakas & Lugaro 2016",
        citation="Karakas & Lugaro 2016, ApJ 825, 26",
    )


def _karakas16_rows(folder: Path, z: str) -> YieldRows:
    """Net rows: y = mean ejected minus initial composition, both normalised to 1."""
    initial = _karakas_initial(folder, z)
    text = read_text(folder / f"yield_z{z}.dat")
    models = _models_z001(text) if z == "001" else _models(text, z)
    mass = np.array([m for m, _, _ in models])
    remnant = np.array([final for _, final, _ in models]) / mass
    mean = np.array([[x[e] for e in ELEMENTS] for _, _, x in models])
    return YieldRows.from_columns(mass, remnant, 1 - remnant, mean - initial, AGB_RANGE_MSUN)


def _karakas_initial(folder: Path, z: str) -> Array:
    path = folder / f"surf_z{z}.dat"
    if z == "03" and not path.is_file():
        path = folder / "surf_z03_first_block.dat"
    if path.is_file():
        initial = _first_block(read_text(path))
    else:
        logger.info("reconstructed the initial composition of %s from Z = 0.03", path.name)
        initial = _karakas_initial_from_z03(folder, z)
    total = sum(initial.values())
    return np.array([initial[e] for e in ELEMENTS]) / total


def _karakas_initial_from_z03(folder: Path, z: str) -> dict[str, float]:
    source = next(folder / Path(p).name for p in _SURF_Z03 if (folder / Path(p).name).is_file())
    scale, hydrogen, helium = _KARAKAS_RECONSTRUCTED[z]
    mix = {e: x * scale for e, x in _first_block(read_text(source)).items()}
    mix["O"] *= _OXYGEN_FACTOR
    return mix | {"H": hydrogen, "He": helium}


def _symbol(name: str, charge: str) -> str:
    """Element symbol; ``p`` is hydrogen (a proton) or phosphorus, told apart by the charge."""
    return "H" if name == "p" and charge == "1" else name.capitalize()


def _first_block(text: str) -> dict[str, float]:
    """Initial composition of a surface file: element -> mass fraction."""
    mix: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            if "Elemental" in line:
                break
            continue
        columns = line.split()
        if len(columns) == 7:
            mix[_symbol(*columns[:2])] = float(columns[6])
    return mix


def _models(text: str, z: str) -> list[tuple[float, float, Mapping[str, float]]]:
    """Initial mass, final mass [Msun] and normalised mean ejecta of each model."""
    models: list[tuple[float, float, Mapping[str, float]]] = []
    for block in re.split(r"(?=# Initial mass)", text)[1:]:
        mass, final = (
            float(m.group(1)) if (m := re.search(rf"{word} mass = ([\d.]+)", block)) else np.nan
            for word in ("Initial", "Final")
        )
        final = _KARAKAS_REMNANT_CHANGED.get((z, mass), final)
        rows = [r for line in block.splitlines() if len(r := line.split()) == 7 and r[0] != "#"]
        models.append((mass, final, _normalised((_symbol(*r[:2]), float(r[5])) for r in rows)))
    return models


def _models_z001(text: str) -> list[tuple[float, float, Mapping[str, float]]]:
    models: list[tuple[float, float, Mapping[str, float]]] = []
    for block in re.split(r"(?=#\s+[\d.]+ Msun)", text)[1:]:
        mass = float(block.split()[1])
        rows = [r for line in block.splitlines() if len(r := line.split()) == 8 and r[0] != "#"]
        mean = _normalised((r[0], float(r[5])) for r in rows)
        models.append((mass, _KARAKAS_Z001_REMNANT[mass], mean))
    return models


def _normalised(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    mix = dict(pairs)
    total = sum(mix.values())
    return {element: x / total for element, x in mix.items()}
