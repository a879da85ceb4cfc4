"""From a configuration entry to a :class:`~sbi_chempy.yields.tables.YieldSet`.

A *spec* is a set name, or a mapping that names one table per channel:

* ``"default"`` : the default embedded tables;
* ``"tng"``, ``"alternative"``, ``"alternative-net"`` : the sets of the published applications,
  read from the user's data directory (not shipped);
* names of tables joined by ``+``, e.g. ``"iwamoto99-w7+woosley95+karakas16"``; each replaces its
  channel of the default set. Tables are embedded, or read from the user's data directory
  (:data:`~sbi_chempy.yields.chempy_tables.RAW_TABLES`);
* ``{"sn1a": ..., "sn2": ..., "agb": ...}`` : per channel a table, a set name (that channel of the
  set) or the path of a user's ``.npz`` / HDF5 file. Missing channels are default.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from sbi_chempy.yields.chempy_raw import RAW_SETS, find_missing_files, read_chempy_directory
from sbi_chempy.yields.chempy_tables import RAW_TABLES, missing_table_files, read_chempy_table
from sbi_chempy.yields.embedded import DEFAULT_SET, EMBEDDED, load_embedded
from sbi_chempy.yields.tables import (
    Channel,
    SnIaYield,
    YieldSet,
    YieldTable,
    YieldTableError,
    read_yields,
)

__all__ = ["YieldsNotFoundError", "load_yields"]

_FILE_SUFFIXES = (".npz", ".h5", ".hdf5")
_CHANNELS = ("sn1a", "sn2", "agb")
_Name = TypeVar("_Name", bound=str)


class _Place(NamedTuple):
    """Where sets that are not shipped are looked for."""

    data_dir: Path | None
    directory: Path | None


class YieldsNotFoundError(FileNotFoundError):
    """Yield tables that are not part of the package are missing on this computer."""


def load_yields(
    spec: str | Mapping[str, str | Path] = "default",
    data_dir: Path | None = None,
    *,
    yield_directory: str | Path | None = None,
) -> YieldSet:
    """Load a yield set by name or by channel.

    Parameters
    ----------
    spec : str or mapping
        See the module docstring.
    data_dir : Path, optional
        Folder that contains ``chempy/`` (the value of SBI_DATA_DIR); only needed for sets that
        are not shipped.
    yield_directory : Path, optional
        An original Chempy yield directory, used for everything that is not shipped instead.

    Returns
    -------
    YieldSet

    Raises
    ------
    ValueError
        If a name is unknown; the message lists near matches.
    YieldsNotFoundError
        If a set that is not shipped is not in ``data_dir``, or ``yield_directory`` lacks files;
        the message names them.
    YieldTableError
        If a file is malformed or lacks the channel.
    """
    place = _Place(data_dir, None if yield_directory is None else Path(yield_directory))
    if isinstance(spec, str):
        return _named_set(spec, place)
    unknown = [key for key in spec if key not in _CHANNELS]
    if unknown:
        raise ValueError(_unknown("yield channel", unknown[0], _CHANNELS))
    parts = {c: _channel(c, spec.get(c, DEFAULT_SET[c]), place) for c in _CHANNELS}
    return _combine(parts)


def _combine(parts: Mapping[str, SnIaYield | YieldTable], name: str = "") -> YieldSet:
    return YieldSet(**parts, name=name)  # type: ignore[arg-type]


def _single_tables(channel: str) -> tuple[str, ...]:
    return (*EMBEDDED[channel], *RAW_TABLES.get(channel, ()))


def _named_set(name: str, place: _Place) -> YieldSet:
    if name == "default":
        return _combine({c: load_embedded(c, n) for c, n in DEFAULT_SET.items()}, name)
    if name in RAW_SETS:
        return _published_set(name, place)
    names = [part.strip() for part in name.split("+")]
    chosen = dict(DEFAULT_SET)
    for part in names:
        channels = [c for c in _CHANNELS if part in _single_tables(c)]
        if not channels:
            known = ["default", *RAW_SETS, *(n for c in _CHANNELS for n in _single_tables(c))]
            raise ValueError(_unknown("yield set", part, known))
        chosen[channels[0]] = part
    return _combine({c: _single(c, n, place) for c, n in chosen.items()}, name)


def _channel(channel: str, choice: str | Path, place: _Place) -> SnIaYield | YieldTable:
    if isinstance(choice, Path) or choice.lower().endswith(_FILE_SUFFIXES):
        return _from_file(channel, Path(choice))
    if choice in _single_tables(channel):
        return _single(channel, choice, place)
    if choice == "default":
        return load_embedded(channel, DEFAULT_SET[channel])
    if choice in RAW_SETS:
        table: SnIaYield | YieldTable = getattr(_published_set(choice, place), channel)
        return table
    known = ["default", *_single_tables(channel), *RAW_SETS]
    raise ValueError(_unknown(f"{channel} yields", choice, known))


def _single(channel: str, name: str, place: _Place) -> SnIaYield | YieldTable:
    if name in EMBEDDED[channel]:
        return load_embedded(channel, name)
    stellar: Channel = "agb" if channel == "agb" else "sn2"
    folder = _raw_folder(name, place, missing_table_files, "chempy-tables")
    return read_chempy_table(folder, stellar, name)


def _from_file(channel: str, path: Path) -> SnIaYield | YieldTable:
    if not path.is_file():
        raise FileNotFoundError(f"{channel} yields: no file {path}")
    tables = read_yields(path)
    if channel not in tables:
        raise YieldTableError(f"{path}: no {channel} channel, only {', '.join(tables)}")
    return tables[channel]


def _published_set(name: str, place: _Place) -> YieldSet:
    raw = next(n for n in RAW_SETS if n == name)
    if place.directory is None and place.data_dir is not None:
        table = place.data_dir / "chempy" / f"yield_tables_{name.replace('-', '_')}.npz"
        if table.is_file():
            return _combine(read_yields(table, name), name)
    return read_chempy_directory(_raw_folder(raw, place, find_missing_files, "chempy-yields"), raw)


def _raw_folder(
    name: _Name, place: _Place, missing_files: Callable[[Path, _Name], list[str]], dataset: str
) -> Path:
    """Folder that holds the files of a set or table."""
    if place.directory is not None:
        missing = missing_files(place.directory, name)
        if missing:
            raise YieldsNotFoundError(
                f"yield set {name!r}: yield directory {place.directory} lacks {', '.join(missing)}"
            )
        return place.directory
    incomplete = ""
    if place.data_dir is not None:
        for folder in (place.data_dir / "chempy" / "raw", place.data_dir / dataset):
            missing = missing_files(folder, name)
            if not missing:
                return folder
            if folder.is_dir() and not incomplete:
                incomplete = f" ({folder} lacks {', '.join(missing)})"
    raise YieldsNotFoundError(
        f"yield set {name!r} is not part of sbi-chempy and is missing here{incomplete}: "
        f"run `sbi-run data fetch {dataset}`, or set SBI_DATA_DIR to a folder that holds them"
    )


def _unknown(what: str, name: str, known: list[str] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"unknown {what} {name!r}; {hint or 'known: ' + ', '.join(known)}"
