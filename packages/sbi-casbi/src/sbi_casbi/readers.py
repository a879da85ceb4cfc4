"""Read observed halos: star lists (FITS, ECSV, CSV), or 64 x 64 histograms (npy, npz, HDF5).

A star list is a table with one row per star: [Fe/H], the library's [O/Fe] or [Mg/Fe], and
optionally their errors, of which the medians are used. A histogram comes with its edges (npz, HDF5:
``counts``, rows [Fe/H], columns [O/Fe], ``edges_fe_h``, ``edges_o_fe``, and optionally
``overflow``, ``sigma_fe``, ``sigma_o``; ``edges_mg_fe`` and ``sigma_mg`` with magnesium).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import LABELS, Element, offsets, solar_scale
from sbi_casbi.config import CasbiConfig
from sbi_casbi.library import Library
from sbi_casbi.plane import PIXELS
from sbi_core import (
    MISSING,
    Batch,
    ColumnReader,
    ConfigError,
    DataFileError,
    ObservationError,
    Observations,
    counted,
    open_hdf5,
    read_npz,
    read_table,
    repeated,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["halo_of_stars", "halo_of_table", "read_halo"]

F64 = NDArray[np.float64]
_NAMES: Mapping[str, tuple[str, ...]] = {
    "fe_h": ("fe_h", "feh", "m_h"),
    "o_fe": ("o_fe", "ofe"),
    "mg_fe": ("mg_fe", "mgfe"),
    "e_fe_h": ("e_fe_h", "fe_h_err", "feh_err", "e_feh", "err_fe_h", "efeh"),
    "e_o_fe": ("e_o_fe", "o_fe_err", "ofe_err", "e_ofe", "err_o_fe", "eofe"),
    "e_mg_fe": ("e_mg_fe", "mg_fe_err", "mgfe_err", "e_mgfe", "err_mg_fe", "emgfe"),
}
_PROXIES = ("alpha_fe", "alpha_m", "alphafe", "a_fe", "afe")  # of any alpha element
_IDS = (
    "source_id", "star_id", "id", "apogee_id", "sobject_id", "gaia_source_id", "gaia_dr3_source_id",
    "gaiadr3_source_id", "gaia_id", "star", "targetid", "h3_id", "cname", "tmass_id", "uid",
)  # fmt: skip
_HALOS = (
    "halo", "halo_id", "haloid", "halo_name", "halo_number", "host", "host_id", "galaxy",
    "galaxy_id", "galaxy_name", "group", "simulation", "substructure", "structure", "stream",
    "progenitor", "cluster",
)  # fmt: skip
_MISSING = (
    *MISSING, 9.99, 99.0, 99.9, 99.99, 999.0, 9999.0, -9.99, -99.0, -99.9, -99.99, -999.9,
)  # fmt: skip  # mark missing abundances
_ARRAYS = ("edges_fe_h", "edges_o_fe", "sigma_fe", "sigma_o", "overflow")  # of a histogram
_LARGEST_ERROR = 2.0  # dex; more are in percent
_OUTSIDE = 0.10, 0.50  # fractions of stars outside the plane: warn, refuse
_FEW = 10  # stars whose [Fe/H] may all be positive
_MARKS = 0.01, 5  # values that mark missing ones: share of the stars, times the next value
_NO_STAR = 5.0  # dex; larger values may be marks


@dataclass(frozen=True)
class _Stars:
    fe_h: F64
    alpha_fe: F64
    sigma_fe: float
    sigma_o: float
    notes: list[str] = field(default_factory=list)


def read_halo(path: str | Path, library: Library, config: CasbiConfig) -> Observations:
    """Return the halo of a file: a list of stars, or a 64 x 64 histogram (npy, npz, HDF5).

    Parameters
    ----------
    path
        File.
    library, config
        See :func:`halo_of_table`.

    Raises
    ------
    DataFileError
        If the file is missing or unreadable.
    ObservationError
        If the list cannot be used, or a histogram is not one of the plane.
    """
    path = Path(path)
    arrays = _arrays(path)
    if arrays:
        x, notes = _histogram(path, arrays, library)
        return _halo(x, notes, str(path), library, config)
    return halo_of_table(read_table(path), str(path), library, config)


def halo_of_table(table: Table, source: str, library: Library, config: CasbiConfig) -> Observations:
    """Return the halo of a list of stars.

    Parameters
    ----------
    table
        One row per star.
    source
        File name for messages; its stem is the identifier of the halo.
    library
        Its plane and solar scale are used.
    config
        Options: columns, meaning of the number of stars, solar scale, and proxies.

    Raises
    ------
    ObservationError
        If columns are missing, no star remains, or more than half of the stars lie outside the
        plane.
    """
    stars = _stars(table, source, library.alpha, config)
    x, notes = halo_of_stars(
        stars.fe_h,
        stars.alpha_fe,
        library,
        sigma=(stars.sigma_fe, stars.sigma_o),
        solar=config.solar,
        source=source,
    )
    return _halo(x, [*stars.notes, *notes], source, library, config)


def _complete_sample(x: NDArray[np.float32], source: str, config: CasbiConfig) -> list[str]:
    """Return a note on the mass that the number of stars means, if it means one.

    Raises
    ------
    ConfigError
        If the meaning of the number of stars was not chosen.
    """
    if config.counts in ("shape", "particles"):
        return []
    kappa, n = config.kappa, round(10 ** float(x[-3]))
    assert kappa is not None
    means = f"a halo of log mass {np.log10(n / kappa):.2f} ({kappa:.3g} stars per Msun)"
    if config.counts is None:
        msg = (
            f"{source}: choose the meaning of the number of stars ({n}), and train with it: "
            "--preset survey, or --set simulator.counts=shape, for a survey, whose number of "
            "stars carries no information on the mass; --set simulator.counts=absolute for a "
            f"complete sample, {means}"
        )
        raise ConfigError(msg)
    return [
        f"WARNING: the sample is taken as complete, and its {counted(n, 'star')} as {means}; a "
        "survey needs a run with counts = 'shape'"
    ]


def _halo(
    x: NDArray[np.float32], notes: list[str], source: str, library: Library, config: CasbiConfig
) -> Observations:
    notes = [*notes, *_complete_sample(x, source, config), *_beyond_training(x, library, config)]
    return Observations.from_batch(
        Batch.of_arrays(x=x[None]), id=[Path(source).stem], source=source, notes=tuple(notes)
    )


def halo_of_stars(
    fe_h: F64,
    alpha_fe: F64,
    library: Library,
    *,
    sigma: tuple[float, float] = (0.0, 0.0),
    solar: str | None = None,
    source: str = "stars",
) -> tuple[NDArray[np.float32], list[str]]:
    """Return a row of x (4100,) of stars, and notes about conversions and excluded stars.

    Parameters
    ----------
    fe_h, alpha_fe
        [Fe/H] and the library's [O/Fe] or [Mg/Fe] [dex], (n,), finite.
    library
        Its plane, element and solar scale are used.
    sigma
        Errors of both abundances [dex].
    solar
        Solar scale of the abundances; default: that of the library.
    source
        Origin of the stars, for messages.

    Raises
    ------
    ObservationError
        If there are no stars, or more than half of them lie outside the plane.
    """
    notes: list[str] = []
    label = LABELS[library.alpha]
    if solar is not None and solar != library.solar:
        solar_scale(solar)
        d_fe, d_alpha = offsets(solar, library.solar, library.alpha)
        fe_h, alpha_fe = fe_h + d_fe, alpha_fe + d_alpha
        notes.append(
            f"abundances converted from solar scale '{solar}' to '{library.solar}': "
            f"[Fe/H] {d_fe:+.3f}, {label} {d_alpha:+.3f} dex"
        )
    if len(fe_h) == 0:
        msg = f"{source}: no star with both abundances"
        raise ObservationError(msg)
    counts, overflow = library.plane.histogram(fe_h, alpha_fe)
    share = overflow / len(fe_h)
    plane = library.plane
    box = (
        f"[Fe/H] {plane.fe_h[0]:g}..{plane.fe_h[1]:g}, {label} {plane.o_fe[0]:g}..{plane.o_fe[1]:g}"
    )
    if share > _OUTSIDE[1]:
        msg = (
            f"{source}: {int(overflow)} of {counted(len(fe_h), 'star')} outside the plane ({box}): "
            "check columns, units and solar scale"
        )
        raise ObservationError(msg)
    if overflow:
        level = "WARNING: more than 10 %" if share > _OUTSIDE[0] else f"{100 * share:.2g} %"
        notes.append(f"{level} of the stars ({int(overflow)}) lie outside the plane ({box})")
    return _row(counts, overflow, sigma), notes


def _row(counts: F64, overflow: float, sigma: tuple[float, float]) -> NDArray[np.float32]:
    total = counts.sum() + overflow
    tail = [overflow, np.log10(max(total, 1.0)), *sigma]
    return np.concatenate([counts.ravel(), tail]).astype(np.float32)


def _beyond_training(x: NDArray[np.float32], library: Library, config: CasbiConfig) -> list[str]:
    """Return warnings about scalars of a halo outside the range of the simulations."""
    notes = []
    for name, value, (low, high), unit in (
        ("error of [Fe/H]", x[-2], config.sigma_fe, " dex"),
        (f"error of {LABELS[library.alpha]}", x[-1], config.sigma_o, " dex"),
        ("number of stars", 10 ** x[-3], config.n_star, ""),
    ):
        if name.startswith("number") and config.counts != "shape":
            continue
        if not low - 1e-6 <= value <= high + 1e-6:
            simulated = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            notes.append(
                f"WARNING: {name} {value:.3g}{unit} is not that of the simulations "
                f"({simulated}{unit}): the posterior is an extrapolation"
            )
    return notes


# -- star lists ------------------------------------------------------------------------------


def _stars(table: Table, path: str, element: Element, config: CasbiConfig) -> _Stars:
    reader = ColumnReader(table, path, missing=_MISSING)
    notes: list[str] = []
    names = {k: (config.columns[k],) if k in config.columns else v for k, v in _NAMES.items()}
    unknown = sorted(set(config.columns) - set(_NAMES) - {"id"})
    if unknown:
        msg = f"simulator.columns takes {', '.join([*_NAMES, 'id'])}, not {unknown}"
        raise ConfigError(msg)
    fe_column = _column(reader, names["fe_h"], "fe_h", path)
    column = reader.find(names[f"{element}_fe"])
    if column is None:
        column = _proxy(reader, element, names, config, path, notes)
    fe_h, alpha_fe = reader.values(fe_column, "dex"), reader.values(column, "dex")
    _leave_out_marks(reader, {fe_column: fe_h, column: alpha_fe})
    reader.leave_out(
        ~(np.isfinite(fe_h) & np.isfinite(alpha_fe)),
        "without one of the abundances",
        f"a star has no {fe_column} or {column}",
        fe_h.tolist(),
    )
    notes += _leave_out_repeats(reader, config)
    for reason, n in Counter(reason for reason, _ in reader.excluded.values()).items():
        notes.append(
            f"{counted(n, 'star')} {reason.replace('not_a_number:', 'with a word in ')} excluded"
        )
    keep = np.ones(len(table), bool)
    keep[list(reader.excluded)] = False
    if not keep.any():
        msg = f"{path}: no star has both {fe_column} and {column}"
        raise ObservationError(msg)
    _check_dex(fe_h[keep], fe_column, path)
    errors = [
        _median_error(reader, of, names[key], keep, label, config, notes)
        for of, key, label in (
            (fe_column, "e_fe_h", "[Fe/H]"),
            (column, f"e_{element}_fe", LABELS[element]),
        )
    ]
    notes.insert(0, f"{counted(int(keep.sum()), 'star')}, columns {fe_column} and {column}")
    if "fe_h" not in config.columns and fe_column == reader.find(("m_h",)):
        notes.append(
            f"WARNING: '{fe_column}' is used for [Fe/H]: with more alpha elements than the Sun, "
            "[M/H] of all metals is higher; name a column of iron with --column fe_h=NAME"
        )
    notes += [*_halos(reader, keep), *_flags(table, keep)]
    return _Stars(fe_h[keep], alpha_fe[keep], errors[0], errors[1], [*notes, *reader.notes])


def _column(reader: ColumnReader, names: tuple[str, ...], key: str, path: str) -> str:
    column = reader.find(names)
    if column is None:
        element = key.split("_")[0]
        over_h = reader.find((f"{element}_h", f"{element}h"))
        compute = (
            f", or add a column {key} with '{over_h}' - [Fe/H] and its error" if over_h else ""
        )
        colnames = reader.table.colnames
        listed = ", ".join(colnames[:10]) + (", ..." if len(colnames) > 10 else "")
        msg = (
            f"{path}: no column of [{key.replace('_', '/').title()}] (looked for "
            f"{', '.join(names)}); it has {listed}: name it with --column {key}=NAME{compute}"
        )
        raise ObservationError(msg)
    return column


def _proxy(
    reader: ColumnReader,
    element: Element,
    names: Mapping[str, tuple[str, ...]],
    config: CasbiConfig,
    path: str,
    notes: list[str],
) -> str:
    """Return the column used instead of the library's element."""
    other: Element = "mg" if element == "o" else "o"
    theirs = reader.find(names[f"{other}_fe"])
    column = theirs or reader.find(_PROXIES)
    if column is None:
        return _column(reader, names[f"{element}_fe"], f"{element}_fe", path)
    if not config.alpha_proxy:
        train = f"train with --set simulator.alpha={other}, or " if theirs else ""
        msg = (
            f"{path}: no column of {LABELS[element]}, which the library has, but '{column}': "
            f"{train}pass --set simulator.alpha_proxy=true to take it for {LABELS[element]}"
        )
        raise ObservationError(msg)
    notes.append(f"WARNING: '{column}' is used instead of {LABELS[element]}")
    return column


def _leave_out_marks(reader: ColumnReader, columns: Mapping[str, F64]) -> None:
    """Leave out stars with an abundance of 0, or of 5 dex and more, where it marks missing values.

    It does where it is far more frequent than any other value, so that rounding cannot explain it.
    """
    for name, values in columns.items():
        known, counts = np.unique(values[np.isfinite(values)], return_counts=True)
        odd = (known == 0) | (np.abs(known) >= _NO_STAR)
        share, ratio = _MARKS
        least = max(share * len(values), ratio * counts[~odd].max(initial=1))
        least = least if (~odd).any() else 1
        for mark in known[odd & (counts > least)]:
            reason = f"with {mark:g} in '{name}' as a mark of missing values"
            message = (
                f"'{name}' is {mark:g} far more often than any other value: {mark:g} is taken as "
                "missing"
            )
            reader.leave_out(values == mark, reason, message, values.tolist())


def _check_dex(fe_h: F64, column: str, path: str) -> None:
    """Refuse mass fractions and ratios in place of [Fe/H]: no halo has positive ones only.

    Raises
    ------
    ObservationError
        If all values are positive.
    """
    if len(fe_h) >= _FEW and fe_h.min() > 0:
        msg = (
            f"{path}: all values of '{column}' are positive ({fe_h.min():.3g} to "
            f"{fe_h.max():.3g}): expected [Fe/H] in dex relative to the Sun, which is negative for "
            "stars of a halo, not a mass fraction or Fe/Fe_sun"
        )
        raise ObservationError(msg)


def _leave_out_repeats(reader: ColumnReader, config: CasbiConfig) -> list[str]:
    """Leave out the rows that repeat an identifier, of those that have both abundances.

    Returns
    -------
    list
        A note, if there is no identifier.

    Raises
    ------
    ObservationError
        If most rows would be left out.
    """
    ids, column = reader.ids((config.columns["id"],) if "id" in config.columns else _IDS)
    if not column:
        return [
            "no identifier: a star with several rows counts several times; name its column with "
            "--column id=NAME"
        ]
    good = np.setdiff1d(np.arange(len(ids)), list(reader.excluded))
    again = np.zeros(len(ids), bool)
    again[good] = repeated(np.asarray(ids, np.str_)[good], np.zeros(len(good)))
    if again.sum() > 0.5 * len(good):
        msg = (
            f"{reader.source}: {again.sum()} of {counted(len(good), 'star')} repeat an identifier "
            f"of another in column '{column}': it does not name stars; name another one with "
            "--column id=NAME"
        )
        raise ObservationError(msg)
    reader.leave_out(again, f"with a repeated '{column}'", f"'{column}' repeats {{value}}", ids)
    return []


def _halos(reader: ColumnReader, keep: NDArray[np.bool_]) -> list[str]:
    """Return a note on a column that seems to divide the kept stars into several halos."""
    column = reader.find(_HALOS)
    if column is None:
        return []
    names = np.unique(np.ma.filled(reader.table[column][keep].astype(str), ""))
    if len(names) < 2:
        return []
    return [
        f"WARNING: '{column}' has {len(names)} values, and all stars are taken as one halo: give "
        "the stars of each halo in a file of its own"
    ]


def _flags(table: Table, keep: NDArray[np.bool_]) -> list[str]:
    """Return a note on columns of flags, which are not read, that are set for kept stars."""
    flagged = {}
    for name in table.colnames:
        values = np.ma.filled(table[name][keep], 0)
        if "flag" in name.lower() and values.dtype.kind in "biuf" and values.ndim == 1:
            flagged[name] = int((np.nan_to_num(values) != 0).sum())
    listed = ", ".join(f"'{name}' ({counted(n, 'star')})" for name, n in flagged.items() if n)
    if not listed:
        return []
    return [
        f"WARNING: flags are not read, and are not zero in {listed}: remove the stars whose "
        "abundances are not reliable"
    ]


def _median_error(
    reader: ColumnReader,
    of: str,
    names: tuple[str, ...],
    keep: NDArray[np.bool_],
    label: str,
    config: CasbiConfig,
    notes: list[str],
) -> float:
    path = reader.source
    column = reader.find(names) or reader.find_error([of])
    if column is None:
        key = next(k for k, v in _NAMES.items() if names[0] in (*v, config.columns.get(k)))
        lack = f"no errors of {label} (looked for {', '.join(names[:3])})"
        name_it = f"name their column with --column {key}=NAME"
        if config.counts == "shape":
            msg = (
                f"{path}: {lack}; {name_it}, or add a column {key} [dex], 0 for stars without "
                "errors: without them results would be too certain"
            )
            raise ObservationError(msg)
        notes.append(f"WARNING: {lack}: 0 is assumed; {name_it}")
        return 0.0
    values = reader.values(column, "dex")[keep]
    good = np.isfinite(values) & (values >= 0)
    if not good.any():
        msg = f"{path}: column '{column}' holds no finite, non-negative error"
        raise ObservationError(msg)
    if not good.all():
        notes.append(f"{counted(int((~good).sum()), 'invalid error')} in '{column}' ignored")
    low, middle, high = np.quantile(values[good], [0.16, 0.5, 0.84])
    if middle > _LARGEST_ERROR:
        msg = (
            f"{path}: errors in column '{column}' have a median of {middle:.3g}; expected dex, not "
            "percent"
        )
        raise ObservationError(msg)
    if high == 0:
        notes.append(f"WARNING: the errors of {label} in '{column}' are 0")
    if high > 2 * max(low, 1e-9):
        notes.append(
            f"WARNING: errors of {label} range from {low:.3g} to {high:.3g} dex (16-84 %); "
            f"the median, {middle:.3g}, is used for all stars"
        )
    return float(middle)


# -- histograms ------------------------------------------------------------------------------


def _histogram(
    path: Path, arrays: dict[str, Any], library: Library
) -> tuple[NDArray[np.float32], list[str]]:
    alpha, label = library.alpha, LABELS[library.alpha]
    if "counts" not in arrays:
        msg = (
            f"'{path}' has {', '.join(sorted(arrays))}, but no array 'counts' ({PIXELS}, {PIXELS}) "
            f"of a histogram with edges_fe_h and edges_{alpha}_fe ({PIXELS + 1},); a list of stars "
            "is a table, e.g. astropy's Table({'fe_h': ...}).write(FILE)"
        )
        raise DataFileError(msg)
    counts = arrays.pop("counts")
    _check_histogram(path, counts, label)
    second = {f"edges_{alpha}_fe": "edges_o_fe", f"sigma_{alpha}": "sigma_o"}
    arrays = {second.get(name, name): value for name, value in arrays.items()}
    others = sorted(set(arrays) - set(_ARRAYS))
    unknown = [name for name in others if name.startswith(("edges", "sigma"))]
    if unknown:
        msg = (
            f"{path}: array {', '.join(unknown)} is not known; a histogram of [Fe/H] and "
            f"{label} has counts, {', '.join(_ARRAYS)}"
        )
        raise ObservationError(msg)
    centres = [0.5 * (edges[1:] + edges[:-1]) for edges in library.plane.edges]
    means = [float(counts.sum(1 - k) @ centres[k] / counts.sum()) for k in (0, 1)]
    notes = [
        f"histogram of {counted(int(counts.sum()), 'star')}: rows [Fe/H], mean {means[0]:.2f}; "
        f"columns {label}, mean {means[1]:.2f}"
    ]
    notes += [f"arrays not read: {', '.join(others)}"] if others else []
    for name, want in zip(_ARRAYS[:2], library.plane.edges, strict=True):
        if name not in arrays:
            notes.append(f"WARNING: no {name} in the file: those of the library are assumed")
            continue
        have = np.asarray(arrays[name], float)
        if have.shape != want.shape or not np.allclose(have, want, atol=1e-6):
            msg = (
                f"{path}: {name} runs from {have.min():g} to {have.max():g} in {len(have)} "
                f"edges, the library from {want[0]:g} to {want[-1]:g} in {len(want)}: give "
                "the list of stars instead"
            )
            raise ObservationError(msg)
    sigma_fe, sigma_o, overflow = (_scalar(path, k, arrays.get(k, 0.0)) for k in _ARRAYS[2:])
    notes += [
        f"WARNING: no error ({name}) in the file: 0 is assumed"
        for name in _ARRAYS[2:4]
        if name not in arrays
    ]
    return _row(counts.astype(float), overflow, (sigma_fe, sigma_o)), notes


def _scalar(path: Path, name: str, value: Any) -> float:
    """Return one non-negative number of a file."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size != 1 or not 0 <= array.item() < np.inf:
        given = (
            f"{name} = {array.item()!r}" if array.size == 1 else f"{name} has {array.size} values"
        )
        msg = f"{path}: {given}, expected one non-negative number"
        raise ObservationError(msg)
    return float(array.item())


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of npy, npz, and HDF5 without a table; nothing for a table."""
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        arrays: dict[str, Any] = read_npz(path)
        return {"counts": arrays[""]} if kind == ".npy" else arrays
    if kind not in (".h5", ".hdf5"):
        return {}
    with open_hdf5(path) as f:
        sets: dict[str, h5py.Dataset] = {}
        f.visititems(lambda name, node: sets.update({name: node} if _is_array(node) else {}))
        tables = any(node.dtype.names for node in sets.values())
        return {} if tables else {name: node[()] for name, node in sets.items()}


def _is_array(node: Any) -> bool:
    return isinstance(node, h5py.Dataset)


def _check_histogram(path: Path, counts: NDArray[Any], label: str) -> None:
    if counts.shape != (PIXELS, PIXELS):
        msg = (
            f"{path}: the histogram 'counts' has shape {counts.shape}, expected ({PIXELS}, "
            f"{PIXELS}): rows [Fe/H], columns {label}"
        )
        raise ObservationError(msg)
    if counts.dtype.kind not in "iuf":
        msg = f"{path}: the histogram has type {counts.dtype}, not numbers"
        raise ObservationError(msg)
    for bad, what in (
        (~np.isfinite(counts.astype(float)), "is not finite"),
        (counts < 0, "is negative"),
        (counts != np.rint(counts), "is not a whole number of stars"),
    ):
        if bad.any():
            row, column = map(int, np.argwhere(bad)[0])
            value, n = counts[row, column], int(bad.sum())
            msg = f"{path}: pixel ({row}, {column}) = {value} {what} ({counted(n, 'pixel')})"
            raise ObservationError(msg)
    if counts.sum() == 0:
        msg = f"{path}: the histogram is empty"
        raise ObservationError(msg)
