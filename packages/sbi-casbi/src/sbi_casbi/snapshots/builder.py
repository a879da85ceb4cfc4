"""A template library from a folder of snapshots: streaming, parallel, resumable.

The stars of every snapshot are stored in a small file in a cache beside the library, so that an
interrupted build continues where it stopped. A snapshot that cannot be used is skipped and listed
with the reason, and so is a file that is neither a snapshot by its name nor belongs to one. Edges
of the plane are quantiles over the stars of the training stems only.

References:
    | Viterbo & Buck 2024, arXiv:2411.17269, section 2.1
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sbi_casbi.abundances import Element
from sbi_casbi.library import (
    Library,
    read_library,
    split_stems,
    templates_of_stars,
    write_library,
)
from sbi_casbi.plane import Plane
from sbi_casbi.snapshots.fields import fields_of
from sbi_casbi.snapshots.halos import HaloSource
from sbi_casbi.snapshots.reader import files_of, read_snapshot
from sbi_casbi.stems import STEM_PATTERN, is_snapshot, stem_and_step
from sbi_core import ConfigError, DataFileError, counted, data_dirs, read_npz, written

__all__ = [
    "BuildConfig",
    "BuildReport",
    "build_library",
    "cached_library",
    "edges_of",
    "find_snapshots",
    "other_files",
]

F64 = NDArray[np.float64]
_HISTOGRAM = 4000  # bins of the streaming quantiles
_RANGE = {"fe_h": (-8.0, 3.0), "o_fe": (-4.0, 4.0)}
_MOST_FAILURES = 0.5
_OTHER_NAME = (
    "its name does not match the pattern of snapshots ({pattern}): if it is one, give --stem-regex"
)


@dataclass(frozen=True)
class BuildConfig:
    """Options of a build.

    Parameters
    ----------
    halo_source, halo_id
        See :func:`read_snapshot`.
    solar
        Solar scale of the abundances.
    alpha
        Element beside iron: oxygen (``o``) or magnesium (``mg``).
    fields
        Arrays of abundances, see :mod:`sbi_casbi.snapshots.fields`; default: found.
    stem_regex
        Pattern of file names.
    largest_mstar
        Snapshots with more stellar mass [Msun] are skipped.
    edges
        ``fixed``, or ``percentile:P`` with P percent of the stars beyond each edge.
    sides
        ``both`` edges are percentiles, or only the ``lower`` one (the upper is the maximum).
    exclude
        Names of snapshots or stems to skip.
    tau_width
        Time between outputs [Gyr].
    seed
        Seed of the split by stem.
    fractions
        Fractions of stems for training, validation and test.
    """

    halo_source: HaloSource = "auto"
    halo_id: int | None = None
    solar: str = "pynbody"
    alpha: Element = "o"
    fields: str | None = None
    stem_regex: str = STEM_PATTERN
    largest_mstar: float = 6e9
    edges: str = "percentile:0.01"
    sides: Literal["both", "lower"] = "both"
    exclude: tuple[str, ...] = ()
    tau_width: float = 0.2158
    seed: int = 1
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class BuildReport:
    """Result of a build.

    Parameters
    ----------
    library
        The library.
    skipped
        Reasons, by path of the skipped snapshots, and of the files whose names are not those of
        snapshots.
    reused
        Number of snapshots taken from the cache.
    """

    library: Library
    skipped: Mapping[str, str]
    reused: int


def build_library(
    root: str | Path,
    out: str | Path,
    config: BuildConfig | None = None,
    *,
    workers: int = 1,
    cache: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Build a library from all snapshots below a folder and write it.

    Parameters
    ----------
    root
        Folder of snapshots.
    out
        HDF5 file to write. ``<out>.skipped.json`` lists skipped files with reasons.
    config
        Options.
    workers
        Number of processes that read.
    cache
        Folder of the stars read so far, from which a rerun continues; default: ``<out>.cache``.
    progress
        Called with the number of snapshots done and their total.

    Raises
    ------
    DataFileError
        If there are no snapshots, or fewer than half of them can be used.
    ConfigError
        If an option is invalid, or there are fewer than ten stems.
    """
    c, out = config or BuildConfig(), Path(out)
    edge_share(c.edges)
    if c.fields is not None:
        fields_of(c.fields)
    paths = find_snapshots(root, c.stem_regex)
    cache = out.with_name(out.name + ".cache") if cache is None else Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    jobs = [_Job(p, cache / f"{_key(p, c)}.npz", c) for p in paths]
    skipped: dict[str, str] = {}
    reused = 0
    for done, (job, reason, old) in enumerate(_read_all(jobs, workers), start=1):
        reused += old
        if reason:
            skipped[str(job.path)] = reason
        if progress is not None:
            progress(done, len(jobs))
    failed = len(skipped)
    kept = [j for j in jobs if str(j.path) not in skipped]
    for job in kept:
        reason = _cut(job, c)
        if reason:
            skipped[str(job.path)] = reason
    first = next(iter(skipped.values()), "")
    others = [str(p) for p in other_files(root, paths, c.halo_source) if not _written_by(out, p)]
    skipped |= dict.fromkeys(others, _OTHER_NAME.format(pattern=c.stem_regex))
    with written(out.with_name(out.name + ".skipped.json")) as temporary:
        content = json.dumps(skipped, indent=1, sort_keys=True) + "\n"
        temporary.write_text(content, encoding="utf-8")
    if failed > _MOST_FAILURES * len(jobs):
        msg = (
            f"{failed} of {counted(len(jobs), 'snapshot')} in '{root}' cannot be used, e.g. "
            f"{first} (all reasons: {out.name}.skipped.json)"
        )
        raise DataFileError(msg)
    kept = [j for j in kept if str(j.path) not in skipped]
    if not kept:
        msg = f"no snapshot of {len(jobs)} in '{root}' remains: the library would be empty"
        raise DataFileError(msg)
    library = _assemble(kept, c, str(root))
    write_library(library, out)
    return BuildReport(library, skipped, reused)


@dataclass(frozen=True)
class _Job:
    path: Path
    cache: Path
    config: BuildConfig


def _key(path: Path, c: BuildConfig) -> str:
    """Return the name of a cache file: a hash of all files read, with size and age, and options."""
    words: list[Any] = [c.halo_source, c.halo_id, c.solar, c.alpha, c.fields, c.stem_regex]
    for file in files_of(path, c.halo_source):
        stat = file.stat()
        words += [file.resolve(), stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256("|".join(map(str, words)).encode()).hexdigest()[:24]


def _read_all(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, str, bool]]:
    """Yield each job in order, with its reason of failure and True if it was in the cache."""
    if workers <= 1:
        for job in jobs:
            yield (job, *_read_one(job))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for job, result in zip(jobs, pool.map(_read_one, jobs), strict=True):
            yield (job, *result)


def _read_one(job: _Job) -> tuple[str, bool]:
    c = job.config
    if _usable(job.cache):
        return "", True
    try:
        stem, _ = stem_and_step(job.path, c.stem_regex)
        if {job.path.name, stem} & set(c.exclude):
            return "excluded by name", False
        s = read_snapshot(
            job.path,
            halo_source=c.halo_source,
            halo_id=c.halo_id,
            solar=c.solar,
            stem_regex=c.stem_regex,
            fields=c.fields,
            alpha=c.alpha,
        )
    except DataFileError as error:
        return str(error), False
    facts = {k: v for k, v in asdict(s).items() if np.isscalar(v)}
    with written(job.cache) as temporary:
        np.savez(
            temporary, fe_h=s.fe_h, o_fe=s.alpha_fe, mass=s.mass, facts=np.array(json.dumps(facts))
        )
    return "", False


def _usable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        _stars(path)
    except (DataFileError, ValueError, KeyError):
        path.unlink()
        return False
    return True


def _stars(path: Path) -> tuple[F64, F64, F64, dict[str, Any]]:
    f = read_npz(path)
    return f["fe_h"], f["o_fe"], f["mass"], json.loads(str(f["facts"]))


def _cut(job: _Job, c: BuildConfig) -> str:
    facts = _stars(job.cache)[3]
    if facts["mstar"] >= c.largest_mstar:
        return f"{facts['mstar']:.3g} Msun of stars, at or above {c.largest_mstar:.3g}"
    return ""


# -- the plane -------------------------------------------------------------------------------


def edge_share(edges: str) -> float | None:
    """Return the fraction of stars beyond an edge, or None for fixed edges.

    Raises
    ------
    ConfigError
        If it is neither ``fixed`` nor ``percentile:P`` with 0 < P < 50.
    """
    if edges == "fixed":
        return None
    kind, _, value = edges.partition(":")
    try:
        share = float(value) / 100.0
    except ValueError:
        share = -1.0
    if kind != "percentile" or not 0 < share < 0.5:
        msg = f"edges must be 'fixed' or 'percentile:P' with 0 < P < 50, got '{edges}'"
        raise ConfigError(msg)
    return share


def edges_of(
    stars: Iterator[tuple[F64, F64]], share: float, sides: Literal["both", "lower"]
) -> Plane:
    """Return the plane with quantiles of all stars as edges, read one snapshot at a time."""
    names = ("fe_h", "o_fe")
    counts = {k: np.zeros(_HISTOGRAM, np.int64) for k in names}
    most = {k: -np.inf for k in names}
    for values in stars:
        for name, v in zip(names, values, strict=True):
            clipped = np.clip(v, *_RANGE[name])
            counts[name] += np.histogram(clipped, _HISTOGRAM, _RANGE[name])[0]
            most[name] = max(most[name], float(v.max(initial=-np.inf)))
    spans: dict[str, tuple[float, float]] = {}
    for name in names:
        grid = np.linspace(*_RANGE[name], _HISTOGRAM + 1)
        cdf = np.concatenate([[0.0], np.cumsum(counts[name]) / counts[name].sum()])
        low = float(np.interp(share, cdf, grid))
        high = float(np.interp(1 - share, cdf, grid)) if sides == "both" else most[name]
        spans[name] = (low, high)
    return Plane(spans["fe_h"], spans["o_fe"])


def _assemble(jobs: Sequence[_Job], c: BuildConfig, root: str) -> Library:
    facts = [_stars(j.cache)[3] for j in jobs]
    stem = np.array([f["stem"] for f in facts])
    log_mstar = np.log10([f["mstar"] for f in facts])
    split = split_stems(stem, log_mstar, c.seed, c.fractions)
    share = edge_share(c.edges)
    plane = Plane()
    if share is not None:
        training = (_stars(j.cache)[:2] for j, s in zip(jobs, split, strict=True) if s == 0)
        plane = edges_of(training, share, c.sides)
    rows, over = [], []
    for job in jobs:
        fe_h, o_fe, _, _ = _stars(job.cache)
        rows.append(templates_of_stars(plane, fe_h, o_fe, np.zeros(len(fe_h), int), 1))
        over.append(int(plane.histogram(fe_h, o_fe)[1]))
    with np.errstate(divide="ignore"):
        log_mdm = np.log10([f["mdm"] for f in facts])
        log_mgas = np.log10([f["mgas"] for f in facts])
    return Library(
        plane=plane,
        templates=sparse.vstack(rows, format="csr", dtype=np.float32),
        galaxy_name=np.array([f["name"] for f in facts]),
        stem=stem,
        log_mstar=log_mstar,
        log_mdm=np.where(np.isfinite(log_mdm), log_mdm, np.nan),
        log_mgas=np.where(np.isfinite(log_mgas), log_mgas, np.nan),
        tau=np.array([f["tau"] for f in facts]),
        z=np.array([f["z"] for f in facts]),
        n_star=np.array([len(_stars(j.cache)[0]) for j in jobs]),
        n_masked=np.array([f["n_masked"] for f in facts]),
        n_over=np.array(over),
        split=split,
        solar=c.solar,
        alpha=c.alpha,
        tau_width=c.tau_width,
        source=f"snapshots in {Path(root).name}",
        options={k: v for k, v in asdict(c).items() if v is not None},
    )


def cached_library(root: str | Path) -> Library:
    """Return the library of a folder of snapshots, built with default options at first use.

    It is kept in the user's cache directory, never in the folder of snapshots, and built again when
    a file in the folder was added, removed or changed.
    """
    config = BuildConfig()
    keys = "|".join(_key(path, config) for path in find_snapshots(root, config.stem_regex))
    name = hashlib.sha256(str(Path(root).resolve()).encode()).hexdigest()[:16]
    version = hashlib.sha256(keys.encode()).hexdigest()[:16]
    folder = data_dirs()[-1] / "casbi-libraries" / name
    path = folder / f"{version}.h5"
    if path.is_file():
        return read_library(path)
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "stars"
    return build_library(root, path, workers=os.cpu_count() or 1, cache=cache).library


def find_snapshots(root: str | Path, pattern: str = STEM_PATTERN) -> list[Path]:
    """Return all snapshots below a folder, sorted by name.

    Raises
    ------
    DataFileError
        If the folder does not exist or holds none.
    """
    root = Path(root).absolute()  # the folder around a snapshot is its simulation
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        msg = f"folder of snapshots '{root}' {what}"
        raise DataFileError(msg)
    matching = [p for p in root.rglob("*") if is_snapshot(p, pattern)]
    if not matching:
        some = [str(p.relative_to(root)) for p in other_files(root, [])[:3]]
        holds = f" (it holds {', '.join(some)}, ...)" if some else ""
        msg = f"'{root}' has no file whose name matches {pattern}{holds}; give --stem-regex"
        raise DataFileError(msg)
    return sorted(matching, key=lambda p: (p.name, str(p)))


def other_files(
    root: str | Path, snapshots: Sequence[Path], halo_source: HaloSource = "auto"
) -> list[Path]:
    """Return the files below a folder that neither are snapshots nor belong to one, sorted.

    Parameters
    ----------
    root
        The folder.
    snapshots
        Its snapshots, as of :func:`find_snapshots`.
    halo_source
        Catalogues that belong to a snapshot, see :func:`read_snapshot`.

    Notes
    -----
    To a snapshot belong the files that are read with it, those in its folder (RAMSES), and those
    named after it (``NAME.timeform``, ``snap_099.1.hdf5``). Likewise only the first of several
    files with one unknown name is returned, and only the folder of a RAMSES output. Parameter files
    and hidden files are left out.
    """
    root = Path(root).absolute()
    known = {file for path in snapshots for file in files_of(path, halo_source)}
    owners = {path.with_name(path.name.removesuffix(".0.hdf5")) for path in snapshots}
    found: list[Path] = []
    for path in sorted(root.rglob("*")):
        inside = [path, *path.parents]
        parts = path.relative_to(root).parts
        if path in known or path.suffix == ".param" or any(p.startswith(".") for p in parts):
            continue
        if any(p in owners for p in inside) or _named_after(path, owners):
            continue
        if path.is_file() or any(path.glob("info_*.txt")):
            found.append(path)
            owners.add(path)
    return found


def _named_after(path: Path, owners: set[Path]) -> bool:
    """Return True if a name is that of an owner in the same folder with an ending."""
    ends = (k for k, letter in enumerate(path.name) if letter == ".")
    return any(path.with_name(path.name[:k]) in owners for k in ends if k)


def _written_by(out: Path, path: Path) -> bool:
    """Return True for the library and the files beside it that a build writes."""
    own = out.absolute()
    inside = (path, *path.parents)
    return any(p.parent == own.parent and p.name.startswith(own.name) for p in inside)
