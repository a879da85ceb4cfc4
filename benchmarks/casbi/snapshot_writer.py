r"""Small Gasoline snapshots for tests and benchmarks of the reader.

A box of 15 Mpc at h = 0.671 with the mass unit of the mean density,

.. math:: \rho = 277.536627\,h^2\,M_\odot / \mathrm{kpc}^3, \qquad M_u = \rho\,L^3, \qquad
          v_u = 8.0285 \sqrt{G \rho}\,L, \qquad t_u = 0.97781311\,L / v_u,

written by pynbody as big-endian tipsy with auxiliary arrays over all families, a ``.param`` file,
and halos as ``.grp`` or as AHF files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import SOLAR, metals_of
from sbi_casbi.snapshots.reader import need_pynbody

__all__ = ["MockGalaxy", "write_snapshot"]

F64 = NDArray[np.float64]
_H, _OMEGA_M = 0.671, 0.3175
_BOX = 15e3  # kpc
_DENSITY = 277.536627 * _H**2  # Msun/kpc^3
_MASS = _DENSITY * _BOX**3
_VELOCITY = 8.0285 * np.sqrt(6.6743e-8 * _DENSITY) * _BOX  # km/s
_TIME = 0.97781311 * _BOX / _VELOCITY  # Gyr


@dataclass(frozen=True)
class MockGalaxy:
    """Content of a mock snapshot.

    Parameters
    ----------
    fe_h, o_fe
        Abundances of the stars of the main halo [dex, scale ``pynbody``], (n,).
    star_mass
        Mass of every star [Msun].
    dark_particles, dark_mass
        Number and mass [Msun] of dark particles of the main halo.
    gas_particles, gas_mass
        The same of gas.
    a
        Scale factor.
    field
        Particles of every family outside the main halo.
    no_iron
        Further stars without iron in the main halo.
    distant
        Dark particles of hundredfold mass in a second halo, outside the high-resolution region.
    """

    fe_h: F64
    o_fe: F64
    star_mass: float = 1e4
    dark_particles: int = 400
    dark_mass: float = 1e8
    gas_particles: int = 60
    gas_mass: float = 1e5
    a: float = 1.0
    field: int = 20
    no_iron: int = 0
    distant: int = 0


def write_snapshot(
    folder: str | Path,
    name: str,
    galaxy: MockGalaxy,
    *,
    halos: Literal["ahf", "grp", "none"] = "ahf",
    seed: int = 0,
) -> Path:
    """Write one snapshot and return its path.

    Parameters
    ----------
    folder
        Created if need be.
    name
        File name, e.g. ``g8.26e11.01024``.
    galaxy
        Its content.
    halos
        Catalogue to write.
    seed
        Seed of positions.
    """
    pynbody = need_pynbody()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stars = len(galaxy.fe_h) + galaxy.no_iron
    sizes = {
        "gas": galaxy.gas_particles + galaxy.field,
        "dm": galaxy.dark_particles + galaxy.field + galaxy.distant,
        "star": stars + galaxy.field,
    }
    snap = pynbody.new(order="gas,dm,star", **sizes)
    _fill(snap, galaxy, sizes, rng)
    path = folder / name
    (folder / "run.param").write_text(_parameters(), encoding="utf-8")
    snap._byteswap = True  # auxiliary arrays in the byte order of the snapshot
    snap._tipsy_arrays_binary = True
    snap.write(
        fmt=pynbody.snapshot.tipsy.TipsySnap,
        filename=str(path),
        cosmological=True,
        binary_aux_arrays=True,
    )
    members = {
        "gas": galaxy.gas_particles,
        "dm": galaxy.dark_particles,
        "star": stars,
    }
    if halos == "grp":
        _write_grp(path, sizes, members)
    elif halos == "ahf":
        _write_ahf(path, sizes, members, galaxy.distant, 1.0 / galaxy.a - 1.0)
    return path


def _parameters() -> str:
    lines = {
        "dMsolUnit": _MASS,
        "dKpcUnit": _BOX,
        "dOmega0": _OMEGA_M,
        "dLambda": 1.0 - _OMEGA_M,
        "dHubble0": _H / (10.0 * _VELOCITY / _BOX),  # sqrt(8 pi / 3) but for rounded constants
        "bComove": 1,
    }
    return "".join(
        f"{k} = {v!r}\n" if k == "bComove" else f"{k} = {float(v)!r}\n" for k, v in lines.items()
    )


def _fill(snap: Any, g: MockGalaxy, sizes: dict[str, int], rng: np.random.Generator) -> None:
    units = need_pynbody().units
    total = sum(sizes.values())
    snap.properties["a"] = g.a
    length, speed = f"{_BOX} kpc a", f"{_VELOCITY} km a s**-1"
    mass_unit = f"{_MASS} Msol"
    snap["pos"] = rng.normal(0, 10.0, (total, 3)) / (_BOX * g.a)
    snap["vel"] = rng.normal(0, 10.0, (total, 3)) / (_VELOCITY * g.a)
    snap["eps"], snap["phi"] = np.full(total, 1e-5), np.zeros(total)
    snap["pos"].units, snap["vel"].units = units.Unit(length), units.Unit(speed)
    snap["eps"].units = units.Unit(length)
    snap["phi"].units = units.Unit(f"{_VELOCITY**2} km**2 s**-2")
    snap["mass"] = np.zeros(total)
    for family, mass in (("gas", g.gas_mass), ("dm", g.dark_mass), ("star", g.star_mass)):
        getattr(snap, family)["mass"] = np.full(sizes[family], mass / _MASS)
    snap.dm["mass"][sizes["dm"] - g.distant :] *= 100.0
    snap["mass"].units = units.Unit(mass_unit)
    snap.gas["rho"], snap.gas["temp"] = np.ones(sizes["gas"]), np.full(sizes["gas"], 1e4)
    snap.gas["rho"].units = units.Unit(f"{_DENSITY} Msol kpc**-3 a**-3")
    snap.gas["temp"].units = units.Unit("K")
    fe, o = _fractions(g, sizes["star"])
    for name, values in (("FeMassFrac", fe), ("OxMassFrac", o)):
        full = np.zeros(total, np.float32)
        full[total - sizes["star"] :] = values
        snap[name] = full
        snap[name].units = units.Unit("1")
    snap["massform"] = np.zeros(total, np.float32)
    snap["massform"].units = units.Unit(mass_unit)
    snap["iord"] = np.arange(total, dtype=np.int32)
    snap.gas["metals"] = np.zeros(sizes["gas"])
    snap.star["metals"] = metals_of(fe, o)
    for family in (snap.gas, snap.star):
        family["metals"].units = units.Unit("1")
    snap.star["tform"] = np.linspace(0.1, 0.9, sizes["star"]) * 1.0 / _TIME
    snap.star["tform"].units = units.Unit(f"{_TIME} Gyr")


def _fractions(g: MockGalaxy, stars: int) -> tuple[F64, F64]:
    """Return mass fractions of iron and oxygen of all stars; those of the field are solar."""
    sun = SOLAR["pynbody"]
    fe_h, o_fe = np.zeros(stars), np.zeros(stars)
    fe_h[: len(g.fe_h)], o_fe[: len(g.fe_h)] = g.fe_h, g.o_fe
    ratio_fe = 10**fe_h * sun.fe / sun.h
    ratio_o = 10 ** (fe_h + o_fe) * sun.o / sun.h
    # X_H = 1 - 0.236 - 3.1 Z with Z = 1.06 Fe + 2.09 O, Fe = ratio_fe X_H, O = ratio_o X_H
    hydrogen = 0.764 / (1.0 + 3.1 * metals_of(ratio_fe, ratio_o))
    fe, o = ratio_fe * hydrogen, ratio_o * hydrogen
    poor = slice(len(g.fe_h), len(g.fe_h) + g.no_iron)
    fe[poor], o[poor] = 0.0, 0.0
    return fe, o


def _write_grp(path: Path, sizes: dict[str, int], members: dict[str, int]) -> None:
    parts = [np.repeat([1, 0], [members[f], sizes[f] - members[f]]) for f in ("gas", "dm", "star")]
    group = np.concatenate(parts)
    with path.with_name(f"{path.name}.grp").open("wb") as f:
        f.write(np.array([len(group)], ">i4").tobytes() + group.astype(">i4").tobytes())


def _write_ahf(
    path: Path, sizes: dict[str, int], members: dict[str, int], distant: int, z: float
) -> None:
    """Write AHF files with hashed halo numbers of 64 bits; the main halo comes second."""
    # AHF counts dark matter, stars, gas
    dark = np.arange(members["dm"])
    star = sizes["dm"] + np.arange(members["star"])
    gas = sizes["dm"] + sizes["star"] + np.arange(members["gas"])
    heavy = sizes["dm"] - 1 - np.arange(distant)
    small = sizes["dm"] - distant - 1 - np.arange(5)  # five particles of the field
    halos = [(7_000_001, small), (2**63 + 2, np.concatenate([dark, star, gas]))]
    if distant:
        halos.append((2**64 - 3, heavy))
    base = path.with_name(f"{path.name}.z{z:.3f}.AHF_")
    head = "#ID(1) hostHalo(2) numSubStruct(3) Mvir(4) npart(5) Xc(6) Yc(7) Zc(8) Rvir(9)\n"
    lines = [f"{n} 0 0 {1e8:.6e} {len(ids)} 0.0 0.0 0.0 10.0\n" for n, ids in halos]
    Path(f"{base}halos").write_text(head + "".join(lines), encoding="utf-8")
    blocks = [f"{len(halos)}\n"]
    for number, ids in halos:
        blocks.append(f"{len(ids)} {number}\n" + "".join(f"{i} 1\n" for i in ids))
    Path(f"{base}particles").write_text("".join(blocks), encoding="utf-8")
    Path(f"{base}substructure").write_text("", encoding="utf-8")
