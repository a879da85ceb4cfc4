"""A library of templates: the [Fe/H]-[O/Fe] distributions of snapshots of dwarf galaxies.

A template is the fraction of a galaxy's stars in each bin of the fine grid. Its sum is 1 minus the
fraction outside the grid. Snapshots of one *stem* (one simulation at several times) are nearly
equal. Therefore stems, not snapshots, are split into training, validation and test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sbi_casbi.abundances import LABELS, Element
from sbi_casbi.plane import FINE, FINE_PER_PIXEL, PIXELS, Plane
from sbi_casbi.smoothing import coarse
from sbi_casbi.stems import canonical
from sbi_core import ConfigError, DataFileError, counted, open_hdf5, stream, written

__all__ = [
    "SPLITS",
    "Library",
    "Split",
    "is_library",
    "make_templates",
    "read_library",
    "split_stems",
    "templates_of_stars",
    "write_library",
]

F64 = NDArray[np.float64]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SCHEMA = 1
_COLUMNS = ("log_mstar", "log_mdm", "log_mgas", "tau", "z", "n_star", "n_masked", "n_over", "split")
_STRATA = 10


@dataclass(frozen=True)
class Library:
    """n snapshots.

    Parameters
    ----------
    plane
        Pixels.
    templates
        Fraction of stars per fine bin, sparse (n, 160 * 160).
    galaxy_name, stem
        Names of the snapshot and of the galaxy, (n,).
    log_mstar, log_mdm, log_mgas
        log10 of stellar, dark and gas mass [Msun], (n,); NaN where unknown.
    tau, z
        Age of the universe [Gyr since the Big Bang] and redshift, (n,).
    n_star
        Number of star particles in the template, (n,); 0 for analytic templates.
    split
        0 training, 1 validation, 2 test, (n,).
    mixing
        Scatter of stars in [Fe/H] and [O/Fe] [dex] in addition to the templates.
    solar
        Name of the solar scale.
    alpha
        Element beside iron: oxygen (``o``) or magnesium (``mg``).
    tau_width
        Time between snapshots [Gyr]; infall times are uncertain by half of it.
    source
        Origin of the library.
    n_masked, n_over
        Numbers of excluded stars and of stars outside the plane, (n,).
    options
        Options of its construction, JSON-serialisable.

    Raises
    ------
    DataFileError
        If it is empty, or a stem is in several splits.
    """

    plane: Plane
    templates: sparse.csr_matrix
    galaxy_name: NDArray[np.str_]
    stem: NDArray[np.str_]
    log_mstar: F64
    log_mdm: F64
    log_mgas: F64
    tau: F64
    z: F64
    n_star: NDArray[np.int64]
    split: NDArray[np.int64]
    mixing: tuple[float, float] = (0.0, 0.0)
    solar: str = "pynbody"
    alpha: Element = "o"
    tau_width: float = 0.0
    source: str = ""
    n_masked: NDArray[np.int64] | None = None
    n_over: NDArray[np.int64] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.stem)
        if n == 0:
            msg = f"the template library is empty ({self.source or 'no source'})"
            raise DataFileError(msg)
        for name in ("n_masked", "n_over"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(n, np.int64))
        if self.templates.shape != (n, FINE * FINE):
            msg = f"templates have shape {self.templates.shape}, expected ({n}, {FINE * FINE})"
            raise DataFileError(msg)
        self.check_splits()

    def check_splits(self) -> None:
        """Raise DataFileError if a stem, in any spelling, is in several splits."""
        _, group = _galaxies(self.stem)
        pairs = np.unique(np.stack([group, self.split]), axis=1)
        groups, counts = np.unique(pairs[0], return_counts=True)
        if (counts > 1).any():
            shared = groups[counts > 1]
            spellings = "', '".join(np.unique(self.stem[group == shared[0]]))
            msg = (
                f"stems in several splits: {len(shared)}, e.g. '{spellings}': "
                "snapshots of one galaxy must stay together; split by stem again"
            )
            raise DataFileError(msg)

    def __len__(self) -> int:
        return len(self.stem)

    @property
    def is_embedded(self) -> bool:
        """True for a library made by this package instead of from simulations."""
        return self.solar == "embedded"

    @property
    def has_dark_mass(self) -> bool:
        """True if all snapshots have a dark mass."""
        return bool(np.isfinite(self.log_mdm).all())

    @property
    def theta(self) -> F64:
        """log10 M_star, log10 M_dm and tau of every snapshot, (n, 3)."""
        return np.stack([self.log_mstar, self.log_mdm, self.tau], axis=1)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the snapshots of one split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Library:
        """Return a library of some snapshots.

        Raises
        ------
        DataFileError
            If none is left.
        """
        chosen = np.asarray(rows)
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        if len(rows) == 0:
            msg = f"the cuts leave no snapshot of {len(self)} ({self.source})"
            raise DataFileError(msg)
        names = ("galaxy_name", "stem", *_COLUMNS)
        changed = {name: getattr(self, name)[rows] for name in names}
        return replace(self, templates=self.templates[rows], **changed)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of templates, parameters, splits and edges."""
        total = hashlib.sha256()
        for part in (
            self.templates.data.astype("<f4"),
            self.templates.indices.astype("<i4"),
            self.templates.indptr.astype("<i8"),
            np.nan_to_num(self.theta).astype("<f8"),
            self.split.astype("<i8"),
            np.asarray([*self.plane.fe_h, *self.plane.o_fe, *self.mixing], "<f8"),
        ):
            total.update(np.ascontiguousarray(part).tobytes())
        total.update(self.solar.encode())
        if self.alpha != "o":
            total.update(self.alpha.encode())
        return total.hexdigest()

    @cached_property
    def box(self) -> tuple[slice, slice, sparse.csr_matrix]:
        """Rows and columns of the fine grid with stars, and the templates there (float32)."""
        flat = np.zeros(FINE * FINE, bool)
        flat[self.templates.indices] = True
        seen = flat.reshape(FINE, FINE)
        spans = [np.flatnonzero(seen.any(axis)) for axis in (1, 0)]
        fe, o = (slice(int(k[0]), int(k[-1]) + 1) if len(k) else slice(0, 1) for k in spans)
        inside = np.zeros((FINE, FINE), bool)
        inside[fe, o] = True
        return fe, o, self.templates[:, np.flatnonzero(inside.ravel())].astype(np.float32)

    @cached_property
    def moments(self) -> F64:
        """Means and standard deviations in [Fe/H], [O/Fe] and their correlation, (n, 5)."""
        low, width = self.plane.fine_low, self.plane.pixel
        centres = [low[k] + (np.arange(FINE) + 0.5) * width[k] / FINE_PER_PIXEL for k in range(2)]
        x, y = np.repeat(centres[0], FINE), np.tile(centres[1], FINE)
        total = np.asarray(self.templates.sum(1)).ravel()
        first = self.templates @ np.stack([x, y, x * x, y * y, x * y], axis=1)
        m = first / np.maximum(total, 1e-12)[:, None]
        sx = np.sqrt(np.maximum(m[:, 2] - m[:, 0] ** 2, 0) + self.mixing[0] ** 2)
        sy = np.sqrt(np.maximum(m[:, 3] - m[:, 1] ** 2, 0) + self.mixing[1] ** 2)
        r = (m[:, 4] - m[:, 0] * m[:, 1]) / np.maximum(sx * sy, 1e-9)
        return np.stack([m[:, 0], m[:, 1], sx, sy, r], axis=1)

    def __repr__(self) -> str:
        stems = len(np.unique(self.stem))
        return (
            f"Library({counted(len(self), 'snapshot')} of {counted(stems, 'stem')}, {self.source})"
        )


def _galaxies(stem: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return one stem per galaxy (g,), and the galaxy of every snapshot (n,)."""
    spellings, place = np.unique(stem, return_inverse=True)
    same = np.array([canonical(str(s)) for s in spellings])
    _, first, galaxy = np.unique(same, return_index=True, return_inverse=True)
    return spellings[first], np.asarray(galaxy[place], np.int64)


def make_templates(plane: Plane, fe_h: F64, o_fe: F64, weight: F64) -> sparse.csr_matrix:
    """Return templates (n, 160 * 160) of n galaxies given by weighted points, each (n, points).

    Weights of a galaxy sum to one; points outside the fine grid are ignored.
    """
    n = len(fe_h)
    index = plane.fine_index(fe_h, o_fe)
    row = np.broadcast_to(np.arange(n)[:, None], index.shape)
    inside = (index >= 0) & (weight > 0)
    entries = (weight[inside].astype(np.float32), (row[inside], index[inside]))
    matrix = sparse.csr_matrix(entries, shape=(n, FINE * FINE), dtype=np.float32)
    matrix.sum_duplicates()
    return matrix


def templates_of_stars(
    plane: Plane, fe_h: F64, alpha_fe: F64, galaxy: NDArray[np.int64], n: int
) -> sparse.csr_matrix:
    """Return templates (n, 160 * 160) of n galaxies: the fractions of their stars per fine bin.

    Parameters
    ----------
    plane
        Pixels.
    fe_h, alpha_fe, galaxy
        Abundances of the stars and their galaxies, (m,); every galaxy has a star.
    """
    index = plane.fine_index(fe_h, alpha_fe)
    inside = index >= 0
    entries = (np.ones(int(inside.sum())), (galaxy[inside], index[inside]))
    counts = sparse.csr_matrix(entries, shape=(n, FINE * FINE))
    counts.data /= np.repeat(np.bincount(galaxy, minlength=n), np.diff(counts.indptr))
    return counts.astype(np.float32)


def split_stems(
    stem: NDArray[np.str_],
    log_mstar: F64,
    seed: int,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> NDArray[np.int64]:
    """Return the split of every snapshot: 0 training, 1 validation, 2 test.

    Stems are sorted into ten strata by their largest mass, and within a stratum by a keyed hash of
    the name, so that an additional stem changes the split of few others.

    Raises
    ------
    ConfigError
        If fractions are not positive or do not sum to one, or there are fewer than ten stems.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1.0) > 1e-6:
        msg = (
            f"fractions of training, validation and test must be positive and sum to 1: {fractions}"
        )
        raise ConfigError(msg)
    names, inverse = _galaxies(stem)
    if len(names) < _STRATA:
        msg = (
            f"{counted(len(names), 'stem')} cannot be divided into training, validation and "
            f"test: at least {_STRATA} simulations are needed (check --stem-regex)"
        )
        raise ConfigError(msg)
    most = np.full(len(names), -np.inf)
    np.maximum.at(most, inverse, log_mstar)
    salt = int(stream(seed, "stems").integers(0, 2**62))
    keys = [hashlib.sha256(f"{salt}:{name}".encode()).digest() for name in names]
    rank = np.empty(len(names), int)
    rank[np.argsort(most, kind="stable")] = np.arange(len(names))
    stratum = rank * _STRATA // len(names)
    order = np.array(sorted(range(len(names)), key=lambda k: (stratum[k], keys[k])))
    # a low-discrepancy sequence: each split takes evenly from all strata
    place = np.empty(len(names))
    place[order] = (np.arange(len(names)) * 0.6180339887498949) % 1.0
    by_place = np.argsort(place, kind="stable")
    counts = np.rint(np.cumsum(fractions) * len(names)).astype(int)
    counts[0] = min(max(counts[0], 1), len(names) - 2)
    counts[1] = min(max(counts[1], counts[0] + 1), len(names) - 1)
    side = np.empty(len(names), np.int64)
    for k, part in enumerate(np.split(by_place, counts[:2])):
        side[part] = k
    return np.asarray(side[inverse])


# -- files -------------------------------------------------------------------------------


def write_library(library: Library, path: str | Path) -> Path:
    """Write an HDF5 file; templates are kept sparse (``fine/data, indices, indptr``).

    ``hist`` contains counts per pixel for libraries of star particles, and fractions otherwise.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    t = library.templates
    with written(path) as temporary:
        with h5py.File(temporary, "w") as f:
            f.create_dataset("fine/data", data=t.data.astype(np.float32), compression="gzip")
            f.create_dataset("fine/indices", data=t.indices.astype(np.int32), compression="gzip")
            f.create_dataset("fine/indptr", data=t.indptr.astype(np.int64))
            f.create_dataset("hist", data=histograms(library), compression="gzip")
            for name in ("galaxy_name", "stem"):
                f[name] = getattr(library, name).astype(h5py.string_dtype())
            for name in _COLUMNS:
                f[name] = getattr(library, name)
            f.attrs.update(
                schema=_SCHEMA,
                fe_h=library.plane.fe_h,
                o_fe=library.plane.o_fe,
                mixing=library.mixing,
                solar=library.solar,
                alpha=library.alpha,
                tau_width=library.tau_width,
                source=library.source,
                options=json.dumps(dict(library.options)),
                hash=library.hash,
            )
    return path


def histograms(library: Library) -> NDArray[np.float32]:
    """Return stars (for analytic templates: fractions) per pixel, (n, 64, 64)."""
    out = np.empty((len(library), PIXELS, PIXELS), np.float32)
    scale = np.where(library.n_star > 0, library.n_star, 1)
    for k in range(0, len(library), 256):
        dense = library.templates[k : k + 256].toarray().reshape(-1, FINE, FINE)
        out[k : k + 256] = coarse(dense) * scale[k : k + 256, None, None]
    return out


def is_library(path: str | Path) -> bool:
    """Return True for a file of :func:`write_library`."""
    try:
        with open_hdf5(path) as f:
            return "schema" in f.attrs and "fine" in f
    except (OSError, DataFileError):
        return False


def read_library(path: str | Path) -> Library:
    """Read a file of :func:`write_library`.

    Raises
    ------
    DataFileError
        If the file is missing, damaged, altered or empty, or a stem is in several splits.
    """
    path = Path(path)
    try:
        with open_hdf5(path) as f:
            if int(f.attrs.get("schema", -1)) != _SCHEMA:
                msg = f"'{path}' is not a template library of schema {_SCHEMA}"
                raise DataFileError(msg)
            n = len(f["stem"])
            entries = (f["fine/data"][()], f["fine/indices"][()], f["fine/indptr"][()])
            words = {k: f[k].asstr()[()].astype(np.str_) for k in ("galaxy_name", "stem")}
            columns = {k: f[k][()] for k in _COLUMNS}
            attrs = dict(f.attrs)
    except FileNotFoundError:
        msg = f"template library '{path}' does not exist; build one with `sbi-run casbi build`"
        raise DataFileError(msg) from None
    except (OSError, KeyError, ValueError) as error:
        msg = f"template library '{path}' is damaged, or not a library: {error}"
        raise DataFileError(msg) from None
    library = Library(
        plane=Plane(tuple(attrs["fe_h"]), tuple(attrs["o_fe"])),
        templates=sparse.csr_matrix(entries, shape=(n, FINE * FINE), dtype=np.float32),
        mixing=(float(attrs["mixing"][0]), float(attrs["mixing"][1])),
        solar=str(attrs["solar"]),
        alpha=_element(attrs.get("alpha", "o"), path),
        tau_width=float(attrs["tau_width"]),
        source=str(attrs["source"]),
        options=json.loads(str(attrs["options"])),
        **words,
        **columns,
    )
    if library.hash != attrs["hash"]:
        msg = f"template library '{path}' was altered: its content does not match its hash"
        raise DataFileError(msg)
    return library


def _element(name: object, path: Path) -> Element:
    if name not in LABELS:
        msg = f"template library '{path}' has the element '{name}'; known: {', '.join(LABELS)}"
        raise DataFileError(msg)
    return "mg" if name == "mg" else "o"
