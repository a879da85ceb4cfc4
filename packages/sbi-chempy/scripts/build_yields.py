r"""Build the embedded yield tables from VICE 1.3.1 and crimsons 0.1.2.

Usage::

    pip download --no-deps --no-binary :all: vice==1.3.1
    pip download --no-deps crimsons==0.1.2
    python scripts/build_yields.py --vice vice-1.3.1.tar.gz \
        --crimsons crimsons-0.1.2-py3-none-any.whl

Both packages are on PyPI under the MIT licence; an installed package folder works in place of
an archive (then without an archive checksum). The tables keep the citation of the original
study, the archive with version and sha256, and a sha256 over the source files used.

Conversions follow docs/chempy-model.md; numbers that neither archive holds
(remnant masses, birth compositions) are published facts listed in :mod:`supplement` beside
this script.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import re
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from supplement import (
    BIRTH_KARAKAS16,
    BIRTH_NOMOTO13,
    REMNANT_KARAKAS10,
    REMNANT_NOMOTO13,
)

from sbi_chempy.constants import AGB_RANGE_MSUN, ELEMENTS, SN2_RANGE_MSUN
from sbi_chempy.yields import SnIaYield, YieldRows, YieldTable, write_yields

__all__ = ["build_all", "main"]

logger = logging.getLogger("build_yields")

Array = NDArray[np.float64]
CONVERSION_VERSION = "1"
H, HE = ELEMENTS.index("H"), ELEMENTS.index("He")

CITATIONS = {
    "iwamoto99": "Iwamoto et al. 1999, ApJS 125, 439",
    "seitenzahl13": "Seitenzahl et al. 2013, MNRAS 429, 1156",
    "gronow21": "Gronow et al. 2021, A&A 649, A155",
    "nomoto13": "Nomoto, Kobayashi & Tominaga 2013, ARA&A 51, 457",
    "limongi18": "Limongi & Chieffi 2018, ApJS 237, 13",
    "woosley95": "Woosley & Weaver 1995, ApJS 101, 181",
    "karakas10": "Karakas 2010, MNRAS 403, 1413",
    "cristallo11": "Cristallo et al. 2011, ApJS 197, 17; 2015, ApJS 219, 40",
    "ventura13": "Ventura et al. 2013, MNRAS 431, 3642",
    "karakas16": "Karakas & Lugaro 2016, ApJ 825, 26; Karakas et al. 2018, MNRAS 477, 421",
}


# ------------------------------------------------------------------------------- sources


@dataclass
class Source:
    """Files of a package, from its archive or its installed folder; keeps count of what is read.

    Parameters
    ----------
    name, version : of the package
    path : ``.tar.gz``, ``.whl`` or package folder
    """

    name: str
    version: str
    path: Path
    used: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._files = _open(self.path, self.name)

    def read(self, path: str) -> bytes:
        """Content of a file, relative to the package folder."""
        content = self._files[path]()
        self.used[path] = hashlib.sha256(content).hexdigest()
        return content

    def names(self, folder: str) -> list[str]:
        """Files directly in a folder, sorted."""
        return sorted(p for p in self._files if p.rpartition("/")[0] == folder)

    def provenance(self) -> dict[str, str]:
        """Archive, version and checksums; forgets the list of files read so far."""
        lines = "".join(f"{sha}  {path}\n" for path, sha in sorted(self.used.items()))
        entry = {
            "archive": f"{self.name} {self.version} (PyPI, MIT)",
            "files": str(len(self.used)),
            "files_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "conversion": CONVERSION_VERSION,
        }
        if self.path.is_file():
            entry["archive_file"] = self.path.name
            entry["archive_sha256"] = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.used.clear()
        return entry


def _open(path: Path, package: str) -> dict:
    """Map from path below the package folder to a function that reads it."""
    if path.is_dir():
        files = (p for p in path.rglob("*") if p.is_file())
        return {p.relative_to(path).as_posix(): p.read_bytes for p in files}
    if path.suffix == ".whl":
        archive = zipfile.ZipFile(path)
        names = [n for n in archive.namelist() if n.startswith(f"{package}/")]
        return {n[len(package) + 1 :]: (lambda n=n: archive.read(n)) for n in names}
    tar = tarfile.open(path)  # noqa: SIM115  read lazily, closed with the process
    pattern = re.compile(rf"[^/]+/{package}/(.+)")
    found = {m.group(1): n for n in tar.getnames() if (m := pattern.fullmatch(n))}
    return {short: (lambda n=n: tar.extractfile(n).read()) for short, n in found.items()}


def _columns(content: bytes) -> list[list[str]]:
    lines = (line.split("#")[0].split() for line in content.decode().splitlines())
    return [line for line in lines if line]


def _element(path: str) -> str:
    return Path(path).stem.capitalize()


# --------------------------------------------------------------------------------- SN Ia


def sn_ia(vice: Source, study: str, model: str) -> SnIaYield:
    """Sum the isotopes of each element; the total is the sum over all files."""
    totals = {
        _element(path): sum(float(row[1]) for row in _columns(vice.read(path)))
        for path in vice.names(f"yields/sneia/{study}/{model}")
        if path.endswith(".dat")
    }
    name = f"{study}-{model.lower().replace('_', '-')}"
    yields = np.array([totals.get(e, 0.0) for e in ELEMENTS])
    total = sum(totals.values())
    return SnIaYield(name, yields, total, study, CITATIONS[study], vice.provenance())


# --------------------------------------------------------------------------------- SN II


def _crimsons(crimsons: Source, group: str) -> dict[str, Array]:
    """Table of one study: gross ejecta [Msun] without the energy column."""
    content = crimsons.read("yields/data/stellar_yields.h5")
    with h5py.File(io.BytesIO(content), "r") as file:
        node = file[f"SNII/{group}"]
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in node["elements"][()]]
        table = {key: node[key][()] for key in ("mass", "metallicity", "yields")}
    keep = [i for i, n in enumerate(names) if n != "Energy"]
    gross = table["yields"][..., keep]
    order = [[names[i] for i in keep].index(e) for e in ELEMENTS]
    return {
        "mass": table["mass"],
        "Z": table["metallicity"],
        "gross": gross[..., order],
        "ejected": gross.sum(axis=-1),
    }


def _sn2_table(
    name: str, study: str, z: Array, rows: list[YieldRows], net: bool, source: dict[str, str]
) -> YieldTable:
    return YieldTable("sn2", name, z, tuple(rows), net, study, CITATIONS[study], source)


def nomoto13(crimsons: Source, *, net: bool) -> YieldTable:
    """net: y = gross/M - (S/M) X0, u = 1 - r; gross: y = gross/M, u = 1 - r - S/M."""
    table = _crimsons(crimsons, "Nomoto13_PopII")
    mass, rows = table["mass"], []
    for k, z in enumerate(table["Z"]):
        ejected = table["ejected"][k] / mass
        yields = table["gross"][k] / mass[:, None]
        remnant = np.array([REMNANT_NOMOTO13[float(z)][float(m)] for m in mass]) / mass
        if net:
            yields = yields - ejected[:, None] * np.array(BIRTH_NOMOTO13[float(z)])
            wind = 1 - remnant
        else:
            wind = 1 - remnant - ejected
        rows.append(YieldRows.from_columns(mass, remnant, wind, yields, SN2_RANGE_MSUN))
    name = "nomoto13-net" if net else "nomoto13-gross"
    return _sn2_table(name, "nomoto13", table["Z"], rows, net, crimsons.provenance())


def limongi18(crimsons: Source, vice: Source, rotation: int) -> YieldTable:
    """y = gross/M - (S/M) X0, r = 1 - S/M, u = 1 - r; set R (collapse above 25 Msun)."""
    table = _crimsons(crimsons, "Limongi18")
    index = (0, 150, 300).index(rotation)
    mass, rows, metallicity = table["mass"], [], []
    for k, folder in enumerate(("FeH-3", "FeH-2", "FeH-1", "FeH0")):
        birth = _birth_mix(vice.read(f"yields/ccsne/LC18/{folder}/birth_composition.dat"))
        metallicity.append(sum(x for e, x in birth.items() if e not in ("H", "He")))
        ejected = table["ejected"][k, index] / mass
        x0 = np.array([birth[e] for e in ELEMENTS])
        yields = table["gross"][k, index] / mass[:, None] - ejected[:, None] * x0
        rows.append(YieldRows.from_columns(mass, 1 - ejected, ejected, yields, SN2_RANGE_MSUN))
    source = crimsons.provenance() | {f"vice_{k}": v for k, v in vice.provenance().items()}
    name = f"limongi18-v{rotation}"
    return _sn2_table(name, "limongi18", np.array(metallicity), rows, True, source)


def _birth_mix(content: bytes) -> dict[str, float]:
    """Mass fractions of a VICE birth composition; hydrogen by difference."""
    mix = {name.capitalize(): float(x) for name, x in _columns(content)}
    return mix | {"H": 1 - sum(mix.values())}


def woosley95(crimsons: Source) -> YieldTable:
    """y = gross/M, r = 1 - S/M, u = 0: no birth composition is published with these yields."""
    table = _crimsons(crimsons, "Woosley95")
    z = np.where(table["Z"] == 1e-7, 0.0, table["Z"])  # 1e-7 stands for metal-free
    mass, rows = table["mass"], []
    for k in np.argsort(z):
        remnant = 1 - table["ejected"][k] / mass
        yields = table["gross"][k] / mass[:, None]
        rows.append(
            YieldRows.from_columns(mass, remnant, np.zeros_like(mass), yields, SN2_RANGE_MSUN)
        )
    return _sn2_table("woosley95", "woosley95", np.sort(z), rows, False, crimsons.provenance())


# ----------------------------------------------------------------------------------- AGB


def _vice_agb(vice: Source, study: str) -> dict[str, dict[tuple[float, float], float]]:
    """Element -> (M, Z) -> stored yield per initial mass."""
    return {
        _element(path): {(float(m), float(z)): float(y) for m, z, y in _columns(vice.read(path))}
        for path in vice.names(f"yields/agb/{study}")
        if path.endswith(".dat")
    }


def cummings18(mass: Array) -> Array:
    """White-dwarf mass from the initial mass [Msun], Cummings et al. 2018, ApJ 866, 21."""
    relation = np.where(
        mass < 2.85,
        0.080 * mass + 0.489,
        np.where(mass < 3.6, 0.187 * mass + 0.184, 0.107 * mass + 0.471),
    )
    return np.minimum(relation, 1.37)


def agb_net(vice: Source, study: str) -> YieldTable:
    """Net yields as stored; hydrogen is minus the sum of all others, u = 1 - r."""
    stored = _vice_agb(vice, study)
    nodes = sorted({node for column in stored.values() for node in column})
    metallicity = sorted({z for _, z in nodes})
    rows = []
    for z in metallicity:
        mass = np.array([m for m, zz in nodes if zz == z])
        columns = {e: np.array([c.get((m, z), 0.0) for m in mass]) for e, c in stored.items()}
        if study == "karakas10" and z == 1e-4:
            # VICE adds the two mass-loss sequences published for this model.
            for column in columns.values():
                column[mass == 6.0] /= 2
        columns["H"] = -sum(columns.values())
        yields = np.stack([columns.get(e, np.zeros_like(mass)) for e in ELEMENTS], axis=1)
        if study == "karakas10":
            remnant = np.array([REMNANT_KARAKAS10[z][float(m)] for m in mass]) / mass
        else:
            remnant = cummings18(mass) / mass
        rows.append(YieldRows.from_columns(mass, remnant, 1 - remnant, yields, AGB_RANGE_MSUN))
    return _agb_table(study, metallicity, rows, vice)


def karakas16(vice: Source) -> YieldTable:
    r"""Repair of VICE's karakas16.

    ``p.dat`` holds protons. For Z >= 0.007 the stored numbers are gross - L a_e Z/0.014 with the
    ejected fraction L and VICE's solar mass fractions a_e, also for H and He. Summing over all
    files gives L = sum(stored) / (1 - (Z/0.014) sum(a_e)); then y = gross - L X0, r = 1 - L.
    """
    stored = _vice_agb(vice, "karakas16")
    solar = _vice_solar(vice, list(stored))
    nodes = sorted({node for column in stored.values() for node in column})
    metallicity = sorted({z for _, z in nodes})
    rows: list[YieldRows] = []
    remnant_at: dict[float, tuple[Array, Array]] = {}
    for z in metallicity[::-1]:
        mass = np.array([m for m, zz in nodes if zz == z])
        columns = {e: np.array([c[m, z] for m in mass]) for e, c in stored.items()}
        if z in BIRTH_KARAKAS16:
            scale = z / 0.014
            lost = sum(columns.values()) / (1 - scale * sum(solar[e] for e in columns))
            gross = {e: c + lost * solar[e] * scale for e, c in columns.items()}
            gross["H"] = gross.pop("P")
            yields = np.stack([gross[e] for e in ELEMENTS], axis=1)
            yields = yields - lost[:, None] * np.array(BIRTH_KARAKAS16[z])
            remnant = 1 - lost
            remnant_at[z] = mass, remnant * mass
        else:  # Z = 0.0028: a true net column
            columns["H"] = columns.pop("P")
            yields = np.stack([columns[e] for e in ELEMENTS], axis=1)
            remnant = np.interp(mass, *remnant_at[0.007]) / mass
        rows.insert(0, YieldRows.from_columns(mass, remnant, 1 - remnant, yields, AGB_RANGE_MSUN))
    return _agb_table("karakas16", metallicity, rows, vice)


def _vice_solar(vice: Source, elements: list[str]) -> dict[str, float]:
    """VICE's solar mass fractions: 0.73 mu 10^(A-12) to three digits, helium 0.2703."""
    folder = "core/dataframe/_builtin_dataframes"
    epsilon, mu = (
        {row[0].capitalize(): float(row[1]) for row in _columns(vice.read(f"{folder}/{f}"))}
        for f in ("asplund09.dat", "mean_molecular_weights.dat")
    )
    solar = {e: float(f"{0.73 * mu[e] * 10 ** (epsilon[e] - 12):.3g}") for e in elements}
    return solar | {"He": 0.2703}


def _agb_table(
    study: str, metallicity: list[float], rows: list[YieldRows], vice: Source
) -> YieldTable:
    return YieldTable(
        "agb",
        study,
        np.array(metallicity),
        tuple(rows),
        True,
        study,
        CITATIONS[study],
        vice.provenance(),
    )


# ----------------------------------------------------------------------------------- all


def build_all(vice: Source, crimsons: Source) -> dict[str, SnIaYield | YieldTable]:
    """Every embedded table by file stem (``channel-name``)."""
    tables: list[SnIaYield | YieldTable] = [
        sn_ia(vice, "iwamoto99", "W7"),
        sn_ia(vice, "iwamoto99", "WDD2"),
        sn_ia(vice, "seitenzahl13", "N100"),
        sn_ia(vice, "gronow21", "M10_03_1"),
        nomoto13(crimsons, net=True),
        nomoto13(crimsons, net=False),
        *(limongi18(crimsons, vice, v) for v in (0, 150, 300)),
        woosley95(crimsons),
        *(agb_net(vice, study) for study in ("karakas10", "cristallo11", "ventura13")),
        karakas16(vice),
    ]
    return {f"{getattr(t, 'channel', 'sn1a')}-{t.name}": t for t in tables}


def main() -> None:
    """Command line: write one HDF5 file per table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vice", type=Path, required=True, help="vice-1.3.1.tar.gz or folder")
    parser.add_argument("--crimsons", type=Path, required=True, help="crimsons wheel or folder")
    folder = Path(__file__).parents[1] / "src" / "sbi_chempy" / "data" / "yields"
    parser.add_argument("--output", type=Path, default=folder)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.output.mkdir(parents=True, exist_ok=True)
    vice = Source("vice", "1.3.1", options.vice)
    crimsons = Source("crimsons", "0.1.2", options.crimsons)
    for stem, table in build_all(vice, crimsons).items():
        path = options.output / f"{stem}.h5"
        path.unlink(missing_ok=True)
        if isinstance(table, SnIaYield):
            write_yields(path, sn1a=table)
        else:
            write_yields(path, tables=[table])
        logger.info("%-32s %6d bytes  %s", path.name, path.stat().st_size, table.hash[:12])


if __name__ == "__main__":
    main()
