r"""Stellar yield tables: data, validation, and their files.

A star of initial mass M and metallicity Z returns, per unit initial mass and for element e,

.. math:: y_e + u X_e ,

with y the newly made (or destroyed) element, u the unprocessed wind and X the composition the
star was born with; r is what stays as a remnant. A *net* table has r + u = 1 and
:math:`\sum_e y_e \approx 0`; a *gross* table has r + u + :math:`\sum_e y_e \approx 1`
(elements outside the nine tracked ones make up the difference).

Files: ``.npz`` or HDF5 with the same names. Channel c is ``sn2`` or ``agb``; per metallicity k
there are ``{c}_{k}_mass``, ``_edges``, ``_remnant``, ``_wind``, ``_yield``, and once per channel
``{c}_Z``, ``{c}_mass_range`` and (optional) ``{c}_net``. SN Ia: ``ia_yield_msun``,
``ia_total_msun``. A file may hold one channel or all three. Pickled data is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from sbi_chempy.constants import AGB_RANGE_MSUN, ELEMENTS, SN2_RANGE_MSUN
from sbi_core import DataFileError, open_hdf5, read_npz, written

__all__ = [
    "Channel",
    "SnIaYield",
    "YieldRows",
    "YieldSet",
    "YieldTable",
    "YieldTableError",
    "read_yields",
    "row_edges",
    "write_yields",
]

Channel = Literal["sn2", "agb"]
Array = NDArray[np.float64]

MASS_RANGES: Mapping[str, tuple[float, float]] = {"sn2": SN2_RANGE_MSUN, "agb": AGB_RANGE_MSUN}
BALANCE_TOLERANCE = 0.05  # fraction of the initial mass that may be missing in a table row


class YieldTableError(ValueError):
    """A yield table is malformed; the message names table, metallicity and row."""


def row_edges(mass: Array, mass_range: tuple[float, float]) -> Array:
    """Limits of the mass bins that the rows of a table stand for.

    Parameters
    ----------
    mass : (R,) Msun, ascending
    mass_range : Msun
        Lower and upper limit of the channel.

    Returns
    -------
    (R+1,) Msun
        Lower limit, midpoints of neighbouring rows, upper limit (end rows extend as constants).
    """
    return np.concatenate([mass_range[:1], (mass[1:] + mass[:-1]) / 2, mass_range[1:]])


@dataclass(frozen=True, eq=False)
class YieldRows:
    """Rows of one metallicity; all columns but the masses are fractions of the initial mass.

    Parameters
    ----------
    mass : (R,) Msun
        Initial masses, ascending.
    edges : (R+1,) Msun
        Bin limits, see :func:`row_edges`.
    remnant, wind : (R,)
        Remnant r and unprocessed wind u.
    yields : (R, 9)
        y in the order of :data:`sbi_chempy.constants.ELEMENTS`.
    """

    mass: Array
    edges: Array
    remnant: Array
    wind: Array
    yields: Array

    @classmethod
    def from_columns(
        cls,
        mass: Array,
        remnant: Array,
        wind: Array,
        yields: Array,
        mass_range: tuple[float, float],
    ) -> YieldRows:
        """Rows with standard edges; rows outside ``mass_range`` are dropped, the rest sorted."""
        keep = np.flatnonzero((mass >= mass_range[0]) & (mass <= mass_range[1]))
        keep = keep[np.argsort(mass[keep], kind="stable")]
        mass = np.asarray(mass, dtype=np.float64)[keep]
        return cls(mass, row_edges(mass, mass_range), remnant[keep], wind[keep], yields[keep])

    def arrays(self) -> dict[str, Array]:
        """Columns by the names of the file layout."""
        return {
            "mass": self.mass,
            "edges": self.edges,
            "remnant": self.remnant,
            "wind": self.wind,
            "yield": self.yields,
        }


@dataclass(frozen=True, eq=False)
class YieldTable:
    """Yields of one channel on a metallicity grid.

    Parameters
    ----------
    channel : "sn2" or "agb"
    name : str
        Short name, as used in configuration.
    metallicity : (nZ,)
        Metal mass fractions, ascending.
    rows : one :class:`YieldRows` per metallicity
    net : bool
        True for net y (r + u = 1), False for gross (r + u + sum(y) = 1).
    study, citation : str
        Authors of the yields.
    source : mapping
        Provenance: archive, version, sha256 of the source files, conversion version.

    Raises
    ------
    YieldTableError
        If the content is malformed.
    """

    channel: Channel
    name: str
    metallicity: Array
    rows: tuple[YieldRows, ...]
    net: bool
    study: str = ""
    citation: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_table(self)

    @property
    def mass_range(self) -> tuple[float, float]:
        """Initial-mass limits of the channel [Msun]."""
        return MASS_RANGES[self.channel]

    @property
    def absent(self) -> tuple[str, ...]:
        """Elements whose column is zero throughout: the study does not follow them.

        Stars then return of such an element what they were born with.
        """
        used = np.any([(r.yields != 0).any(axis=0) for r in self.rows], axis=0)
        return tuple(e for e, some in zip(ELEMENTS, used, strict=True) if not some)

    @property
    def hash(self) -> str:
        """sha256 of the numbers (not of names or provenance)."""
        return _digest(f"{self.channel} net={self.net}", self._numbers())

    def _numbers(self) -> Iterator[Array]:
        yield self.metallicity
        for rows in self.rows:
            yield from rows.arrays().values()

    def __repr__(self) -> str:
        kind = "net" if self.net else "gross"
        return f"YieldTable({self.channel} {self.name!r}, {kind}, {len(self.rows)} metallicities)"


@dataclass(frozen=True, eq=False)
class SnIaYield:
    """Yield of one SN Ia event.

    Parameters
    ----------
    name : str
    yields : (9,) Msun per event
        In the order of :data:`sbi_chempy.constants.ELEMENTS`.
    total : Msun per event
        Sum over *all* species of the source, also those not tracked.
    study, citation, source
        As in :class:`YieldTable`.
    """

    name: str
    yields: Array
    total: float
    study: str = ""
    citation: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"SN Ia yield {self.name!r}"
        if self.yields.shape != (len(ELEMENTS),):
            raise YieldTableError(
                f"{where}: missing element: need one number for each of {', '.join(ELEMENTS)}, "
                f"got shape {self.yields.shape}"
            )
        for element, value in zip(ELEMENTS, self.yields, strict=True):
            if not np.isfinite(value) or value < 0:
                raise YieldTableError(f"{where}: {element} is {value}, must be finite and >= 0")
        if not np.isfinite(self.total) or self.total < self.yields.sum() - 1e-6:
            raise YieldTableError(
                f"{where}: total {self.total} Msun is below the sum of its elements "
                f"{self.yields.sum():.6f} Msun"
            )

    @property
    def hash(self) -> str:
        """sha256 of the numbers."""
        return _digest("sn1a", [self.yields, np.array([self.total])])

    def __repr__(self) -> str:
        return f"SnIaYield({self.name!r}, {self.total:.5g} Msun)"


@dataclass(frozen=True, eq=False)
class YieldSet:
    """The three channels of a galaxy: SN Ia, SN II and AGB yields.

    ``hash`` identifies the numbers; it belongs into every estimator trained on the set.
    """

    sn1a: SnIaYield
    sn2: YieldTable
    agb: YieldTable
    name: str = ""

    def __post_init__(self) -> None:
        for channel, table in (("sn2", self.sn2), ("agb", self.agb)):
            if table.channel != channel:
                raise YieldTableError(f"{table!r} cannot be used as {channel}")

    @property
    def hash(self) -> str:
        """sha256 of the three channel hashes."""
        parts = (self.sn1a.hash, self.sn2.hash, self.agb.hash)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Name of the set, or the three channel names joined."""
        return self.name or " + ".join((self.sn1a.name, self.sn2.name, self.agb.name))

    def __repr__(self) -> str:
        return f"YieldSet({self.label!r}, hash={self.hash[:12]})"


def _digest(head: str, arrays: Iterator[Array] | Sequence[Array]) -> str:
    digest = hashlib.sha256(head.encode())
    for array in arrays:
        # 12 decimals: the order of a sum in a file reader must not change the identity.
        rounded = np.round(np.asarray(array, dtype=np.float64), 12) + 0.0
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(rounded, dtype="<f8").tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------- validation


def _check_table(table: YieldTable) -> None:
    head = f"yield table {table.name!r} ({table.channel})"
    if table.channel not in MASS_RANGES:
        raise YieldTableError(f"{head}: channel must be 'sn2' or 'agb'")
    z = table.metallicity
    if z.ndim != 1 or len(z) == 0 or len(z) != len(table.rows):
        raise YieldTableError(f"{head}: {len(table.rows)} tables for metallicities {z}")
    if not np.isfinite(z).all() or (z < 0).any() or (np.diff(z) <= 0).any():
        raise YieldTableError(f"{head}: metallicities must be >= 0, sorted and unique, got {z}")
    for metallicity, rows in zip(z, table.rows, strict=True):
        _check_rows(rows, f"{head}, Z={metallicity:g}", table)


def _check_rows(rows: YieldRows, where: str, table: YieldTable) -> None:
    n = len(rows.mass)
    if rows.yields.ndim != 2 or rows.yields.shape[1] != len(ELEMENTS):
        raise YieldTableError(
            f"{where}: missing element: yields need {len(ELEMENTS)} columns "
            f"({', '.join(ELEMENTS)}), got shape {rows.yields.shape}"
        )
    shapes = (rows.remnant.shape, rows.wind.shape, rows.yields.shape[:1], rows.edges[1:].shape)
    if n == 0 or any(shape != (n,) for shape in shapes):
        raise YieldTableError(f"{where}: columns differ in length ({n} masses, others {shapes})")
    for name, column in rows.arrays().items():
        bad = [not np.isfinite(value).all() for value in column]
        _refuse(np.array(bad), where, f"{name} is not finite")
    _refuse(np.append(False, np.diff(rows.mass) <= 0), where, "masses are unsorted or duplicate")
    _refuse(rows.mass <= 0, where, "mass is not positive")
    _refuse(rows.remnant < 0, where, "remnant is negative")
    low, high = table.mass_range
    edges = rows.edges
    inside = (edges[:-1] >= low - 1e-9) & (edges[1:] <= high + 1e-9)
    _refuse(~inside, where, f"edges leave the range of the channel, {low:g} to {high:g} Msun")
    _refuse(np.diff(edges) < 0, where, "edges are unsorted")
    _refuse(rows.wind < -BALANCE_TOLERANCE, where, "wind is negative")
    if not table.net:
        _refuse(rows.yields.min(axis=1) < 0, where, "gross yield is negative")
    _refuse(rows.yields.min(axis=1) < -1, where, "net yield is below -1 of the initial mass")
    balance = rows.remnant + rows.wind + (0.0 if table.net else rows.yields.sum(axis=1))
    formula = "remnant + wind" if table.net else "remnant + wind + sum of yields"
    for row in np.flatnonzero(np.abs(balance - 1) > BALANCE_TOLERANCE)[:1]:
        raise YieldTableError(
            f"{where}, row {row} ({rows.mass[row]:g} Msun): {formula} is {balance[row]:.4f}, "
            f"must be within {BALANCE_TOLERANCE} of 1"
        )


def _refuse(bad: NDArray[np.bool_], where: str, what: str) -> None:
    for row in np.flatnonzero(bad)[:1]:
        raise YieldTableError(f"{where}, row {row}: {what}")


# --------------------------------------------------------------------------------- files


def write_yields(
    path: Path, *, sn1a: SnIaYield | None = None, tables: Sequence[YieldTable] = ()
) -> None:
    """Write channels to an ``.npz`` or HDF5 file (by suffix).

    Parameters
    ----------
    path : ``.npz``, ``.h5`` or ``.hdf5``
    sn1a : optional SN Ia yield
    tables : SN II and/or AGB tables, at most one per channel
    """
    content: dict[str, NDArray[np.generic]] = {"elements": np.array(ELEMENTS)}
    for table in tables:
        content |= _flatten(table)
    if sn1a is not None:
        content["ia_yield_msun"] = sn1a.yields
        content["ia_total_msun"] = np.array(sn1a.total)
        content["ia_about"] = np.array(json.dumps(_about(sn1a)))
    if path.suffix == ".npz":
        with written(path) as temporary:
            np.savez_compressed(temporary, **content)  # type: ignore[arg-type]
        return
    with written(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for key, value in content.items():
            if value.dtype.kind == "U":  # text: attributes keep the file small and readable
                file.attrs[key] = value.tolist()
            else:
                file.create_dataset(key, data=value, track_times=False)


def _flatten(table: YieldTable) -> dict[str, NDArray[np.generic]]:
    c = table.channel
    content: dict[str, NDArray[np.generic]] = {
        f"{c}_Z": table.metallicity,
        f"{c}_mass_range": np.array(table.mass_range),
        f"{c}_net": np.array(table.net),
        f"{c}_about": np.array(json.dumps(_about(table))),
    }
    for k, rows in enumerate(table.rows):
        content |= {f"{c}_{k}_{name}": column for name, column in rows.arrays().items()}
    return content


def _about(item: YieldTable | SnIaYield) -> dict[str, object]:
    return {
        "name": item.name,
        "study": item.study,
        "citation": item.citation,
        "source": dict(item.source),
    }


def read_yields(path: Path, name: str = "") -> dict[str, SnIaYield | YieldTable]:
    """Return the channels of a file in the table form of this package.

    Parameters
    ----------
    path : ``.npz``, ``.h5`` or ``.hdf5``
    name : name given to the tables where the file has none (default: the file name)

    Returns
    -------
    dict
        Some of ``sn1a``, ``sn2``, ``agb``.

    Raises
    ------
    YieldTableError
        If the file holds no channel, misses a column or an element, or fails validation.
    """
    try:
        content = _read_npz(path) if path.suffix == ".npz" else _read_hdf5(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, DataFileError) as error:
        raise YieldTableError(f"{path}: cannot be read as a yield file: {error}") from None
    name = name or path.stem
    order = _element_order(content, path)
    tables: dict[str, SnIaYield | YieldTable] = {}
    if "ia_yield_msun" in content:
        tables["sn1a"] = SnIaYield(
            yields=np.asarray(content["ia_yield_msun"], dtype=np.float64)[order],
            total=float(_need(content, "ia_total_msun", path)),
            **_named(content, "ia_about", name),  # type: ignore[arg-type]
        )
    stellar: tuple[Channel, ...] = ("sn2", "agb")
    for channel in stellar:
        if f"{channel}_Z" in content:
            tables[channel] = _unflatten(content, channel, path, name, order)
    if not tables:
        raise YieldTableError(f"{path}: no yield channel (sn2_Z, agb_Z or ia_yield_msun) in it")
    return tables


def _unflatten(
    content: Mapping[str, NDArray[np.generic]],
    channel: Channel,
    path: Path,
    name: str,
    order: list[int],
) -> YieldTable:
    z = np.atleast_1d(np.asarray(content[f"{channel}_Z"], dtype=np.float64))
    tables = {int(m.group(1)) for key in content if (m := re.match(rf"{channel}_(\d+)_", key))}
    if tables != set(range(len(z))):
        raise YieldTableError(
            f"{path}: metallicity grid mismatch in {channel}: {channel}_Z has {len(z)} entries, "
            f"but there are tables number {', '.join(map(str, sorted(tables))) or 'none'}"
        )
    rows = []
    for k in range(len(z)):
        mass, edges, remnant, wind, yields = (
            np.asarray(_need(content, f"{channel}_{k}_{column}", path), dtype=np.float64)
            for column in ("mass", "edges", "remnant", "wind", "yield")
        )
        if yields.ndim == 2 and yields.shape[1] == len(content["elements"]):
            yields = yields[:, order]
        rows.append(YieldRows(mass, edges, remnant, wind, yields))
    net = content.get(f"{channel}_net")
    return YieldTable(
        channel=channel,
        metallicity=z,
        rows=tuple(rows),
        net=_looks_net(rows) if net is None else bool(net),
        **_named(content, f"{channel}_about", name),  # type: ignore[arg-type]
    )


def _looks_net(rows: Sequence[YieldRows]) -> bool:
    """Return True if remnant and wind alone account for the whole star."""
    return all(np.abs(r.remnant + r.wind - 1).max() <= BALANCE_TOLERANCE for r in rows)


def _element_order(content: Mapping[str, NDArray[np.generic]], path: Path) -> list[int]:
    elements = [str(e) for e in np.atleast_1d(_need(content, "elements", path))]
    missing = [e for e in ELEMENTS if e not in elements]
    if missing:
        raise YieldTableError(f"{path}: missing element {', '.join(missing)}")
    return [elements.index(e) for e in ELEMENTS]


def _need(content: Mapping[str, NDArray[np.generic]], key: str, path: Path) -> NDArray[np.generic]:
    if key not in content:
        raise YieldTableError(f"{path}: no array {key!r}")
    return content[key]


def _named(
    content: Mapping[str, NDArray[np.generic]], key: str, name: str
) -> dict[str, str | dict[str, str]]:
    if key not in content:
        return {"name": name}
    about = json.loads(str(content[key]))
    return {"name": about["name"] or name, **{k: about[k] for k in ("study", "citation", "source")}}


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    return dict(read_npz(path))


def _read_hdf5(path: Path) -> dict[str, NDArray[np.generic]]:
    with open_hdf5(path) as file:
        content = {key: np.asarray(file[key]) for key in file}
        return content | {key: np.asarray(value) for key, value in file.attrs.items()}
