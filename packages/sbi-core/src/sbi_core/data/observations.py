"""Observed (or mock) objects: data with identifiers, groups, units and, for mocks, the truth.

Table form: one row per object; a column per observable, ``e_<observable>`` for its standard
deviation, ``<context>`` columns, ``id``, ``group``, and ``true_<parameter>`` for mocks. A value
that was not observed is NaN or masked.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.data.batch import Batch
from sbi_core.data.gate import checked_file, open_hdf5, read_npz
from sbi_core.data.writing import harmless, written
from sbi_core.errors import DataFileError, ObservationError, counted, first_line

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Excluded", "Observable", "Observations", "holds_arrays", "repeated"]

FORMATS = {  # of tables, as astropy calls them
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".tsv": "ascii.tab",
    ".txt": "ascii",
    ".dat": "ascii",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".parquet": "parquet",
    ".mrt": "ascii.mrt",
}
_ARRAY_FILES = (".npz", ".h5", ".hdf5")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)
WORDS = ("observables", "units", "context_names", "truth_names")
_LAYOUT = {"x", "id", "group", *WORDS}
_EXCLUDED = ("excluded_row", "excluded_id", "excluded_reason", "excluded_detail")
LABEL = "label_"  # prefix of label columns in npz and HDF5


@dataclass(frozen=True, slots=True)
class Observable:
    """One observed quantity.

    Parameters
    ----------
    name
        Column name.
    label
        TeX label without dollars.
    unit
        astropy unit string.
    aliases
        Other column names under which it may be found (compared without case).
    """

    name: str
    label: str = ""
    unit: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Excluded:
    """A row of the source that cannot be inferred; it appears in the results with its reason.

    Parameters
    ----------
    row
        Position in the source, from 0.
    id
        Identifier.
    reason
        Flag of the row in every table of results, e.g. ``"nothing_observed"``.
    detail
        Explanation, e.g. the value that cannot be used.
    """

    row: int
    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Observations:
    """Objects to infer.

    Parameters
    ----------
    batch
        Data of n objects; ``theta`` holds the truth when this is a mock.
    id
        Identifier per object, (n,) strings, unique.
    group
        Objects of one group share the global parameters, (n,) strings.
    observables
        What the (flattened) columns of ``batch.x`` are; may be empty for images and spectra.
    context_names
        What the columns of ``batch.context`` are.
    truth_names
        What the columns of ``batch.theta`` are.
    source
        Where they come from: a file name or a sentence.
    notes
        Conversions and assumptions made on reading, one sentence each. Counts at the beginning
        (``3 rows without ...``) are summed over the parts of a file.
    excluded
        Rows of the source that cannot be inferred, with their reasons.
    rows
        Position of every object in the source, (n,); default: one after the other.
    labels
        Columns that go into the tables of results as they are, (n,) each, e.g. ``ra``.

    Raises
    ------
    ObservationError
        If identifiers repeat or lengths disagree.
    """

    batch: Batch
    id: NDArray[np.str_]
    group: NDArray[np.str_]
    observables: tuple[Observable, ...] = ()
    context_names: tuple[str, ...] = ()
    truth_names: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    excluded: tuple[Excluded, ...] = ()
    rows: NDArray[np.int64] | None = None
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows is None:
            taken = {e.row for e in self.excluded}
            free = (k for k in range(len(self.batch) + len(taken)) if k not in taken)
            object.__setattr__(self, "rows", np.fromiter(free, np.int64))
        for name in ("id", "group"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.str_))
            if getattr(self, name).shape != (len(self.batch),):
                msg = f"'{name}' has shape {getattr(self, name).shape}, expected ({len(self)},)"
                raise ObservationError(msg)
        names, counts = np.unique(self.id, return_counts=True)
        if (counts > 1).any():
            twice = names[counts > 1]
            rows = np.flatnonzero(np.isin(self.id, twice[:1]))[:5].tolist()
            msg = (
                f"{self.source or 'observations'}: {counted(len(twice), 'id')} in more than one "
                f"row, e.g. '{twice[0]}' in rows {rows}; every object needs its own id"
            )
            raise ObservationError(msg)
        _check_values(self)

    @classmethod
    def from_batch(
        cls,
        batch: Batch,
        *,
        id: Sequence[str] | None = None,  # noqa: A002
        group: Sequence[str] | str = "all",
        **rest: Any,
    ) -> Observations:
        """Build from a batch; identifiers default to row numbers, the group to ``all``."""
        ids = [f"{k}" for k in range(len(batch))] if id is None else list(id)
        groups = [group] * len(batch) if isinstance(group, str) else list(group)
        return cls(batch, np.asarray(ids, np.str_), np.asarray(groups, np.str_), **rest)

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, rows: Any) -> Observations:
        index = np.atleast_1d(np.arange(len(self))[rows])
        return replace(
            self,
            batch=self.batch[index],
            id=self.id[index],
            group=self.group[index],
            excluded=(),
            rows=None,
            labels={name: np.asarray(v)[index] for name, v in self.labels.items()},
        )

    def in_source(self, start: int, stop: int) -> Observations:
        """Return rows ``start`` to ``stop`` of the source, excluded ones too, counted from 0."""
        assert self.rows is not None
        inside = np.flatnonzero((self.rows >= start) & (self.rows < stop))
        excluded = tuple(
            replace(e, row=e.row - start) for e in self.excluded if start <= e.row < stop
        )
        return replace(self[inside], rows=self.rows[inside] - start, excluded=excluded)

    @property
    def n_rows(self) -> int:
        """Rows of the source, excluded ones counted."""
        assert self.rows is not None
        last = [int(self.rows[-1])] if len(self.rows) else []
        return 1 + max([*last, *(e.row for e in self.excluded)], default=-1)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence per reason for which rows are excluded, with their number."""
        by_reason: dict[str, list[Excluded]] = {}
        for e in self.excluded:
            by_reason.setdefault(e.reason, []).append(e)
        return tuple(map(excluded_sentence, by_reason.values()))

    def without(self, rows: NDArray[np.int64]) -> Observations:
        """Return the observations with some rows of the source excluded as repeated."""
        assert self.rows is not None
        keep = np.flatnonzero(~np.isin(self.rows, rows))
        if len(keep) == len(self):
            return self
        names = dict(zip(self.rows.tolist(), self.id.tolist(), strict=True))
        repeats = {int(k): names[int(k)] for k in rows if int(k) in names}
        more = [
            Excluded(k, name, "repeated_id", f"'{name}' appears again")
            for k, name in repeats.items()
        ]
        excluded = tuple(sorted((*self.excluded, *more), key=lambda e: e.row))
        return replace(self[keep], rows=self.rows[keep], excluded=excluded)

    @property
    def truth(self) -> Mapping[str, NDArray[np.float64]] | None:
        """True parameter values per object, or None when they are not known."""
        if self.batch.theta is None:
            return None
        theta = self.batch.theta.double().cpu().numpy()
        return {name: theta[:, k] for k, name in enumerate(self.truth_names)}

    @property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """Row numbers of each group, in order of first appearance."""
        first = dict.fromkeys(self.group.tolist())
        return {g: np.flatnonzero(self.group == g) for g in first}

    def to_table(self) -> Table:
        """Return an :class:`astropy.table.Table` in the form described above.

        Raises
        ------
        ObservationError
            For data that are not one number per observable (images, spectra).
        """
        from astropy.table import Table

        x = self.batch.x
        if x.ndim != 2 or len(self.observables) != x.shape[1]:
            msg = f"data of shape {tuple(x.shape[1:])} have no table form; write npz or HDF5"
            raise ObservationError(msg)
        table = Table({"id": self.id, "group": self.group})
        observed = self.batch.observed
        values = torch.where(observed, x, torch.nan).double().cpu().numpy()
        for k, o in enumerate(self.observables):
            table[o.name] = values[:, k]
            table[o.name].unit = o.unit or None
            if self.batch.x_err is not None:
                err = torch.where(observed, self.batch.x_err, torch.nan).double().cpu().numpy()
                table[f"e_{o.name}"] = err[:, k]
                table[f"e_{o.name}"].unit = o.unit or None
        if self.batch.context is not None:
            for k, name in enumerate(self.context_names):
                table[name] = self.batch.context[:, k].double().cpu().numpy()
        for name, value in self.labels.items():
            table[name] = value
        for name, value in (self.truth or {}).items():
            table[f"true_{name}"] = value
        table.meta["source"] = self.source
        return table

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write as npz or HDF5 (everything, data of any shape), or as a table.

        Raises
        ------
        ObservationError
            If the file exists, the suffix is unknown, or the data have no table form.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            msg = f"{path} exists; pass overwrite=True to replace it"
            raise ObservationError(msg)
        if path.suffix in _ARRAY_FILES:
            with written(path) as temporary:
                _write_arrays(self, temporary)
        elif path.suffix in FORMATS:
            table = self.to_table()
            for name in table.colnames:
                table[name] = harmless(table[name], path.suffix)
            with written(path) as temporary:
                form = FORMATS[path.suffix]
                if form.startswith("ascii"):
                    temporary.write_text(text_of(table, form), encoding="utf-8")
                else:
                    table.write(temporary, format=form, overwrite=True)
        else:
            known = ", ".join([*FORMATS, ".npz"])
            msg = f"unknown format '{path.suffix}' of '{path}'; known suffixes: {known}"
            raise ObservationError(msg)

    @classmethod
    def read(cls, path: str | Path) -> Observations:
        """Read what :meth:`write` wrote as npz or HDF5, with context and truth.

        Raises
        ------
        DataFileError
            If the file is missing, damaged or has another layout.
        """
        return cls.of_arrays(_read_arrays(Path(path)), str(path))

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], source: str) -> Observations:
        """Build from the arrays that npz and HDF5 files hold, by name; the mapping is emptied."""
        words = {k: tuple(str(v) for v in arrays.pop(k)) for k in WORDS}
        units = words.pop("units")
        observables = tuple(
            Observable(n, unit=u) for n, u in zip(words.pop("observables"), units, strict=True)
        )
        ids, group = arrays.pop("id"), arrays.pop("group")
        rows = arrays.pop("rows", None)
        labels = {k.removeprefix(LABEL): arrays.pop(k) for k in list(arrays) if k.startswith(LABEL)}
        at, *rest = (arrays.pop(name, ()) for name in _EXCLUDED)
        rest = [v if len(v) == len(at) else [""] * len(at) for v in rest]  # no detail in 0.1.0
        excluded = tuple(
            Excluded(int(row), *map(str, facts)) for row, *facts in zip(at, *rest, strict=True)
        )
        words["notes"] = tuple(str(note) for note in arrays.pop("notes", ()))
        return cls(
            Batch(**arrays), ids, group, observables, source=source, excluded=excluded,
            rows=rows, labels=labels, **words,
        )  # fmt: skip

    def __repr__(self) -> str:
        groups = len(np.unique(self.group))
        return f"Observations(n={len(self)}, groups={groups}, source={self.source!r})"


def excluded_sentence(excluded: Sequence[Excluded]) -> str:
    """Return e.g. ``"2 rows cannot be inferred (nothing_observed): rows 4, 9"``, from 0."""
    first, n = excluded[0], len(excluded)
    rows = ", ".join(str(e.row) for e in excluded[:5]) + (", ..." if n > 5 else "")
    listed = f"row {rows}" if n == 1 else f"rows {rows}"
    sentence = f"{counted(n, 'row')} cannot be inferred ({first.reason}): {listed}"
    return f"{sentence}; {first.detail} in row {first.row}" if first.detail else sentence


def repeated(ids: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows repeat an identifier: all but its first row with the most values.

    Parameters
    ----------
    ids : (n,)
        Identifiers, or their hashes.
    values : (n,)
        Number of observed values of every row.
    """
    order = np.lexsort((np.arange(len(ids)), -np.asarray(values, np.int64), ids))
    out = np.zeros(len(ids), bool)
    out[order[1:]] = ids[order][1:] == ids[order][:-1]
    return out


def _check_values(obs: Observations) -> None:
    """Raise when an observed value is not finite or an error is not positive."""
    observed = obs.batch.observed
    problems = [("value", ~torch.isfinite(obs.batch.x) & observed)]
    if obs.batch.x_err is not None:
        bad = ~torch.isfinite(obs.batch.x_err) | (obs.batch.x_err <= 0)
        problems.append(("error", bad & observed))
    for what, bad in problems:
        if bool(bad.any()):
            rows = torch.nonzero(bad.reshape(len(obs), -1).any(1))[:, 0]
            flat = bad.reshape(len(obs), -1)[rows[0]]
            column = int(torch.nonzero(flat)[0, 0])
            name = obs.observables[column].name if obs.observables else f"column {column}"
            data = obs.batch.x if what == "value" else obs.batch.x_err
            assert data is not None
            value = float(data.reshape(len(obs), -1)[rows[0], column])
            listed = ", ".join(str(int(r)) for r in rows[:5]) + (", ..." if len(rows) > 5 else "")
            need = "finite" if what == "value" else "finite and positive"
            msg = (
                f"{obs.source or 'observations'}: {what} of '{name}' is {value:g} in row "
                f"{int(rows[0])}, expected {need} ({counted(len(rows), 'row')}: {listed}); "
                "leave a value empty or NaN if it was not observed"
            )
            raise ObservationError(msg)


def text_of(table: Table, form: str) -> str:
    """Return a table as text; a row whose first word begins with ``#`` stays a row to readers."""
    text = io.StringIO()
    table.write(text, format=form)
    lines = text.getvalue().split("\n")
    first = next((k for k, x in enumerate(lines) if not x.startswith("#")), 0) + 1
    quoted = False
    for k, line in enumerate(lines[first:], first):
        if line.startswith("#") and not quoted:
            cell = re.split("[ ,\t]", line, maxsplit=1)[0]
            lines[k] = f'"{cell}"{line[len(cell) :]}'
        quoted ^= line.count('"') % 2 == 1
    return "\n".join(lines)


def holds_arrays(path: str | Path) -> bool:
    """Return whether a file has the layout that :meth:`Observations.write` gives npz and HDF5."""
    path = Path(path)
    if path.suffix not in _ARRAY_FILES:
        return False
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(checked_file(path)) as members:
                return not _LAYOUT - {n.removesuffix(".npy") for n in members.namelist()}
        with open_hdf5(path, rows=1) as f:
            return not _LAYOUT - set(f)
    except (*_UNREADABLE, DataFileError):
        return False


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = read_npz(path)
        else:
            with open_hdf5(path) as f:
                arrays = {name: decoded(f[name][()]) for name in f if hasattr(f[name], "dtype")}
    except (*_UNREADABLE, zlib.error) as error:
        msg = f"'{path}' cannot be read: {first_line(error)}"
        raise DataFileError(msg) from None
    missing = sorted(_LAYOUT - set(arrays))
    optional = {"rows", "notes", *_EXCLUDED, *(f.name for f in fields(Batch))}
    unknown = sorted(k for k in set(arrays) - _LAYOUT - optional if not k.startswith(LABEL))
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        msg = f"'{path}' is not a file of observations: it {what}"
        raise DataFileError(msg)
    return arrays


def decoded(value: Any) -> Any:
    """Return words of HDF5, which come as bytes in UTF-8, as str."""
    kind = getattr(value, "dtype", None)
    if kind is not None and kind.kind == "S":
        return np.char.decode(value, "utf-8")
    if kind != np.dtype(object):
        return value
    return np.asarray([v.decode() if isinstance(v, bytes) else str(v) for v in value], np.str_)


def _write_arrays(obs: Observations, path: Path) -> None:
    arrays = obs.batch.numpy() | {"id": obs.id, "group": obs.group}
    arrays["observables"] = np.asarray([o.name for o in obs.observables], np.str_)
    arrays["units"] = np.asarray([o.unit for o in obs.observables], np.str_)
    arrays["context_names"] = np.asarray(obs.context_names, np.str_)
    arrays["truth_names"] = np.asarray(obs.truth_names, np.str_)
    arrays |= {LABEL + name: np.asarray(v) for name, v in obs.labels.items()}
    if obs.excluded:
        assert obs.rows is not None
        arrays["rows"] = obs.rows
        arrays["excluded_row"] = np.asarray([e.row for e in obs.excluded])
        arrays["excluded_id"] = np.asarray([e.id for e in obs.excluded], np.str_)
        arrays["excluded_reason"] = np.asarray([e.reason for e in obs.excluded], np.str_)
        arrays["excluded_detail"] = np.asarray([e.detail for e in obs.excluded], np.str_)
    if obs.notes:
        arrays["notes"] = np.asarray(obs.notes, np.str_)
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        return
    import h5py

    with h5py.File(path, "w") as f:
        for name, value in arrays.items():
            text = value.dtype.kind == "U"
            f[name] = harmless(value, ".h5").astype(h5py.string_dtype()) if text else value
