"""Files that a command will write, checked before the work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from sbi_core.errors import ConfigError
from sbi_core.files.directory import RunDirectory

if TYPE_CHECKING:
    from sbi_core.components import Simulator

__all__ = ["checked_folder", "checked_target", "files_read", "summary_target"]


def checked_target(
    path: str | Path, suffixes: tuple[str, ...] = (), *, inputs: Iterable[str | Path | None] = ()
) -> Path:
    """Return the path of a file that a command will write.

    Parameters
    ----------
    path
        The file that will be written.
    suffixes
        Formats that can be written, in lower case; empty: any.
    inputs
        Files and folders of files that are read, which must not be overwritten; None is skipped.

    Raises
    ------
    ConfigError
        If the file cannot be written, is one of the inputs, or belongs to a run.
    """
    path = Path(path)
    for source in (Path(i) for i in inputs if i is not None):
        if _is_or_holds(source, path):
            msg = f"'{path}' is a file that the command reads; choose another file for the output"
            raise ConfigError(msg)
    run = RunDirectory(path.parent)
    if run.provenance.exists() and path.name in {
        p.name for p in vars(run).values() if isinstance(p, Path) and p.parent == run.root
    }:
        msg = f"'{path}' is a result of the run itself; choose another file for the output"
        raise ConfigError(msg)
    if path.exists() and not path.is_file() and not path.is_symlink():
        msg = f"cannot write '{path}': it is a folder, a pipe or a device; choose another file"
        raise ConfigError(msg)
    if suffixes and path.suffix.lower() not in suffixes:
        msg = f"cannot write '{path}': unknown format, use {', '.join(suffixes)}"
        raise ConfigError(msg)
    if not path.parent.is_dir():
        msg = f"cannot write '{path}': folder '{path.parent}' does not exist"
        raise ConfigError(msg)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        msg = f"cannot write '{path}': permission denied"
        raise ConfigError(msg)
    return path


def files_read(simulator: Simulator, *observations: str | Path | None) -> list[str | Path]:
    """Return the files that a command reads: observations, and those that options name."""
    config = getattr(simulator, "config", None)
    values = vars(config).values() if config is not None else ()
    named = [v for v in values if isinstance(v, str | Path) and v and Path(v).is_file()]
    return [*(o for o in observations if o is not None), *named]


def _is_or_holds(source: Path, path: Path) -> bool:
    """Return whether an existing path is an input, or a file in a folder of inputs."""
    if not path.exists() or not source.exists():
        return False
    same = os.path.samefile
    return same(path, source) or (path.is_file() and source.is_dir() and same(path.parent, source))


def checked_folder(path: str | Path) -> Path:
    """Return the path of a folder that a command will write into, made if it is new.

    Raises
    ------
    ConfigError
        If it is a file, or cannot be made or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file has this name" if is_file else error.strerror
        msg = f"cannot write the folder '{path}': {why}; choose another one"
        raise ConfigError(msg) from None
    if not os.access(path, os.W_OK):
        msg = f"cannot write the folder '{path}': permission denied"
        raise ConfigError(msg)
    return path


def summary_target(folder: Path, observations: str | Path) -> Path:
    """Return ``infer-NAME.ecsv`` in a folder, with the suffix of the file where it is needed.

    Raises
    ------
    ConfigError
        If both names are taken by the results of other files.
    """
    source = Path(observations)
    for name in (source.stem, source.name):
        target = folder / f"infer-{name}.ecsv"
        if not target.exists() or _source_of(target) == source.resolve():
            return target
    msg = f"'{target}' holds the results of another file; choose another --out"
    raise ConfigError(msg)


def _source_of(table: Path) -> Path | None:
    """Return the file whose objects a summary table (ECSV) describes, if it records one."""
    from astropy.table.meta import YamlParseError, get_header_from_yaml

    with table.open(encoding="utf-8", errors="replace") as f:
        head = [line[2:] for line in takewhile(lambda line: line.startswith("# "), f)]
    try:
        source = get_header_from_yaml(head).get("meta", {}).get("source")
    except (YamlParseError, AttributeError):
        return None
    return Path(source).resolve() if source else None
